"""A callback for TRL's SFTTrainer that computes the loss per token, fused with the output projection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer
from trl.trainer import utils

from crossfade._stats import LossStats
from crossfade.errors import UserError
from crossfade.functional import linear_crossfade_loss
from crossfade.integrations import transformers


class CrossfadeCallback(transformers.CrossfadeCallback):
    """A callback that replaces the loss: ``SFTTrainer(..., callbacks=[CrossfadeCallback(CrossfadeLoss())])``.

    The trainer computes each token's log-probability in tiles, without the (tokens x vocabulary) logits. This callback
    puts :func:`crossfade.linear_crossfade_loss` of the same hidden states in their place, with every option of the
    criterion. TRL still does prompt masking, packing, accumulation over batches and processes, and its metrics; beside
    the loss, the entropy and the accuracy it logs the mean ``ce`` and ``p`` of the tokens, and ``weight_mass``, the
    mean of their row weights: how much of the cross entropy's gradient is left. With ``dft()`` loss and gradients are
    those of ``loss_type="dft"``. The model itself stays as it is: another trainer of the same model has its own loss.

    A TRL without that fused head takes the full logits instead:
    ``SFTTrainer(..., callbacks=[fade], compute_loss_func=fade.compute_loss)``, as the Hugging Face Trainer does.

    Args:
        criterion: a ``CrossfadeLoss``, any ``Fade``, or one of :mod:`crossfade.objectives`, such as ``deft()``.

    Raises:
        UserError: a ``loss_type`` other than "nll", a ``label_smoothing_factor``, a criterion with a ``shift``, another
            ``ignore_index`` than -100 or a softcap beside the model's own, or a trainer that needs the other form.
    """

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_init_end(args, state, control, **kwargs)
        if getattr(args, "loss_type", "nll") != "nll":
            raise UserError(
                f"the criterion is the loss: set SFTConfig(loss_type='nll'), got {args.loss_type!r} "
                "(DFT's gradients are CrossfadeLoss(expectation())'s)"
            )

    def losses(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        softcap: float | None,
        scale: float,
    ) -> tuple[Tensor, LossStats]:
        """Return the sum of the losses of the tokens, hidden states (N, D) with labels (N), and their statistics."""
        criterion = self.criterion
        if criterion.softcap and softcap:
            raise UserError(f"the model caps its logits at {softcap:g} itself: expected softcap=None of the criterion")
        self._used = True
        criterion.to(hidden.device)
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(weight.dtype)
        if scale != 1.0:
            hidden, bias = hidden * scale, None if bias is None else bias * scale
        options = criterion._loss_options() | {"reduction": "sum", "softcap": softcap or criterion.softcap, "shift": 0}
        return linear_crossfade_loss(hidden, weight, labels, bias=bias, g=criterion.g(), return_stats=True, **options)


class _Head:
    """A stand-in for TRL's function of hidden states, labels and output weights while a loss is computed."""

    def __init__(self, fade: CrossfadeCallback) -> None:
        self.fade = fade
        self.stats: LossStats | None = None

    def apply(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        temperature: float,
        chunk: int,
        softcap: float | None,
        scale: float,
        outputs: object,
    ) -> tuple[Tensor | None, ...]:
        """Return, in place of log-probabilities, minus the tokens' mean loss for each; their entropies, and hits.

        TRL sums them. The gradients of a sum are computed where the logits are at hand, those of rows would take a
        second computation of the logits.
        """
        total, self.stats = self.fade.losses(hidden, weight, bias, labels, softcap, scale)
        rows = (-total / max(len(labels), 1)).expand(len(labels))
        return rows, self.stats.entropy, None, None, self.stats.correct

    def log_to(self, trainer: SFTTrainer) -> None:
        """Add the means over the tokens of all processes to what the trainer logs beside the loss."""
        if (stats := self.stats) is None:
            return
        sums = torch.stack([stats.ce.sum(), stats.p.sum(), stats.weight_mass, stats.valid.sum()])
        *found, count = trainer.accelerator.reduce(sums, "sum").tolist()
        metrics = trainer._metrics["train" if trainer.model.training else "eval"]
        for name, value in zip(("ce", "p", "weight_mass"), found, strict=True):
            metrics[name].append(value / max(count, 1))


def _with_criterion(compute_loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``SFTTrainer.compute_loss`` for trainers with a :class:`CrossfadeCallback`, unchanged for all others."""

    @functools.wraps(compute_loss)
    def of_trainer(self: SFTTrainer, *args: Any, **kwargs: Any) -> Any:
        fades = [c for c in self.callback_handler.callbacks if isinstance(c, CrossfadeCallback)]
        if len(fades) > 1:
            raise UserError(f"a trainer has one loss: pass one CrossfadeCallback, got {len(fades)}")
        # With full logits the fused head only serves TRL's metrics.
        if not fades or self.compute_loss_func is not None or not hasattr(utils, "_ChunkedLogProbFunction"):
            return compute_loss(self, *args, **kwargs)
        head = _Head(fades[0])
        # Where it has Triton, TRL leaves out the ignored tokens before its head.
        with patch.multiple(utils, _ChunkedLogProbFunction=head, _use_triton=lambda device: True):
            found = compute_loss(self, *args, **kwargs)
        head.log_to(self)
        return found

    return of_trainer


# A callback never sees its trainer, and a hook on the model would change the loss of every other trainer of that model.
SFTTrainer.compute_loss = _with_criterion(SFTTrainer.compute_loss)
