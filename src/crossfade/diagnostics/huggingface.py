"""Record p_y of every example under the Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from crossfade.diagnostics.recorder import ProbabilityRecorder

__all__ = ["RecordProbabilities"]


class RecordProbabilities(TrainerCallback):  # type: ignore[misc]
    """Record training batches of a sequence classifier (logits (N, C), labels (N,)).

    Each item must hold its number under the key ``index_key`` (:class:`~crossfade.diagnostics.IndexedDataset` adds it),
    and ``TrainingArguments(remove_unused_columns=False)`` must let it through. The model never sees it: a hook takes it
    out before ``forward``. Where the Trainer keeps the labels from the model (``compute_loss_func``, label smoothing),
    wrap the loss as well::

        record = RecordProbabilities(ProbabilityRecorder("recording", len(train), epochs=3))
        Trainer(..., compute_loss_func=record.wrap(my_loss), callbacks=[record])

    The epoch is the Trainer's own, so a run resumed from a checkpoint, also in mid-epoch, goes on in the same
    recording.
    """

    def __init__(self, recorder: ProbabilityRecorder, *, index_key: str = "index", labels_key: str = "labels") -> None:
        self.recorder = recorder
        self._index_key, self._labels_key = index_key, labels_key
        self._epoch = 0
        self._active = False
        self._index: Tensor | None = None
        self._hooks: list[Any] = []

    def wrap(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """``loss(outputs, labels, num_items_in_batch)`` for ``Trainer(compute_loss_func=...)`` that also records."""

        def recorded(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
            self._record(outputs, labels)
            return loss(outputs, labels, num_items_in_batch)

        return recorded

    def _record(self, outputs: Any, labels: Tensor) -> None:
        index, self._index = self._index, None
        if index is None or not self._active:
            return
        logits = outputs["logits"] if isinstance(outputs, dict) else getattr(outputs, "logits", outputs)
        self.recorder.record(self._epoch, index, logits, labels.view(-1))

    def _before(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kwargs = dict(kwargs)
        self._index = kwargs.pop(self._index_key, None)
        if self._active and module.training and self._index is None:
            raise KeyError(
                f"no {self._index_key!r} in the batch: wrap the data set in IndexedDataset "
                "and set remove_unused_columns=False"
            )
        if not module.training:
            self._index = None
        return args, kwargs

    def _after(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        labels = kwargs.get(self._labels_key)
        if labels is not None:
            self._record(output, labels)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The Trainer hands callbacks the model inside any data-parallel wrapper, whose forward runs in any case.
        model = kwargs["model"]
        self._active = True
        if not self._hooks:
            self._hooks = [
                model.register_forward_pre_hook(self._before, with_kwargs=True),
                model.register_forward_hook(self._after, with_kwargs=True),
            ]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A resumed state holds a float that may fall a rounding short of the epoch.
        self._epoch = int((state.epoch or 0.0) + 1e-6)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.recorder.flush()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.recorder.flush()  # a checkpoint in the middle of an epoch: what came before isn't seen again

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The hooks stay: evaluation after training gets batches with the index as well. Only the recording stops.
        self._active = False
        self.recorder.flush()
