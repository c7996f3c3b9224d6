"""A callback of the Hugging Face Trainer that records p_y of every example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState

from crossfade.diagnostics.recorder import ProbabilityRecorder
from crossfade.errors import UserError

_Outputs: TypeAlias = Tensor | Mapping[str, Tensor]  # logits, or an output that has them


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

    Raises:
        KeyError: a training batch has no ``index_key``.
        UserError: one process trains on several GPUs.
    """

    def __init__(self, recorder: ProbabilityRecorder, *, index_key: str = "index", labels_key: str = "labels") -> None:
        self.recorder = recorder
        self._index_key, self._labels_key = index_key, labels_key
        self._epoch = 0
        self._active = False
        self._index: Tensor | None = None
        self._hooks: list[RemovableHandle] = []

    def wrap(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return ``loss(outputs, labels, num_items_in_batch)`` that also records, for ``compute_loss_func``."""

        def recorded(outputs: _Outputs, labels: Tensor, num_items_in_batch: object = None) -> Tensor:
            self._record(outputs, labels)
            return loss(outputs, labels, num_items_in_batch)

        return recorded

    def on_train_begin(self, *_: Any, model: nn.Module, **__: object) -> None:
        args: TrainingArguments = _[0]
        if args.n_gpu > 1:  # the threads of nn.DataParallel share this object
            raise UserError(
                f"recording needs one GPU a process, got {args.n_gpu}: start one process for each GPU, as torchrun does"
            )
        self._active = True
        for hook in self._hooks:  # of an earlier training, perhaps of another model: each trial of a search makes one
            hook.remove()
        before = model.register_forward_pre_hook(self._before, with_kwargs=True)
        self._hooks = [before, model.register_forward_hook(self._after, with_kwargs=True)]

    def on_epoch_begin(self, args: object, state: TrainerState, *_: object, **__: object) -> None:
        # A resumed state holds a float, which may be smaller than the epoch by a rounding error.
        self._epoch = int((state.epoch or 0.0) + 1e-6)

    def on_epoch_end(self, *_: object, **__: object) -> None:
        self.recorder.flush()

    on_save = on_epoch_end  # a run resumed in mid-epoch doesn't repeat the batches before its checkpoint

    def on_train_end(self, *_: object, **__: object) -> None:
        # The hooks stay, as batches of an evaluation after training hold the index, too. Only the recording stops.
        self._active = False
        self.recorder.flush()

    def _before(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Tensor]
    ) -> tuple[tuple[object, ...], dict[str, Tensor]]:
        kwargs = dict(kwargs)
        index = kwargs.pop(self._index_key, None)
        if self._active and module.training and index is None:
            raise KeyError(
                f"no {self._index_key!r} in the batch: wrap the data set in IndexedDataset "
                "and set remove_unused_columns=False"
            )
        self._index = index if module.training else None
        return args, kwargs

    def _after(self, module: nn.Module, args: object, kwargs: dict[str, Tensor], output: _Outputs) -> None:
        labels = kwargs.get(self._labels_key)
        if labels is not None:
            self._record(output, labels)

    def _record(self, outputs: _Outputs, labels: Tensor) -> None:
        index, self._index = self._index, None
        if index is None or not self._active:
            return
        logits = outputs["logits"] if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
        self.recorder.record(self._epoch, index, logits, labels.reshape(-1))
