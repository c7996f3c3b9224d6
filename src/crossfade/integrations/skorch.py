"""skorch: a callback that moves the criterion's weights with the net's epochs."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Callback
from torch import Tensor

from crossfade.errors import UserError
from crossfade.integrations._shared import Scheduled


def softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the softmax over the classes. As skorch's ``predict_nonlinearity`` it can be pickled, unlike a lambda."""
    return torch.softmax(logits / temperature, dim=-1)


class CrossfadeCallback(Callback):  # type: ignore[misc]
    """A callback that calls ``criterion.at(epoch / max_epochs)`` as each epoch begins.

    The epoch is the length of ``net.history``.

    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from crossfade import CrossfadeLoss
    >>> net = NeuralNetClassifier(
    ...     nn.Linear(4, 3), criterion=CrossfadeLoss, predict_nonlinearity=softmax, callbacks=[CrossfadeCallback()]
    ... )

    For ``nn.CrossEntropyLoss`` skorch turns logits into probabilities; with any other criterion ``predict_proba``
    returns the logits as they are, unless the classifier is given a ``predict_nonlinearity``.

    Args:
        total_epochs: length of the whole training, if it is not ``net.max_epochs`` (several calls of ``partial_fit``).

    Raises:
        ValueError: ``total_epochs`` < 1.
        UserError: as training begins: the criterion has no schedule, or a classifier's ``predict_nonlinearity`` is
            "auto".
    """

    def __init__(self, *, total_epochs: int | None = None) -> None:
        if total_epochs is not None and total_epochs < 1:
            raise ValueError(f"total_epochs must be at least 1, got {total_epochs!r}")
        self.total_epochs = total_epochs

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        if not isinstance(net.criterion_, Scheduled):
            raise UserError(f"criterion must be a CrossfadeLoss, got {type(net.criterion_).__name__}")
        if isinstance(net, NeuralNetClassifier) and net.predict_nonlinearity == "auto":
            raise UserError(
                "predict_proba would return logits: set predict_nonlinearity=crossfade.integrations.skorch.softmax "
                "(or None, if logits are what you want)"
            )

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        net.criterion_.at(min((len(net.history) - 1) / (self.total_epochs or net.max_epochs), 1.0))
