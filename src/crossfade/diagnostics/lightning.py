"""A Lightning callback that records p_y of every example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from crossfade.diagnostics.recorder import ProbabilityRecorder
from crossfade.errors import UserError

_Batch: TypeAlias = Mapping[str, Tensor] | Sequence[Tensor]


class RecordProbabilities(pl.Callback):  # type: ignore[misc]
    """Record a training's batches, those of its validation, or both.

    The logits are what the module's ``forward`` returned last in the step (a tensor, or an object with ``.logits``):
    nothing is computed twice, and ``training_step`` stays as it is, as long as it calls ``self(x)``.

    Args:
        training: recorder for training examples. Batches must carry the examples' indices: wrap the data set in
            :class:`~crossfade.diagnostics.IndexedDataset`.
        validation: recorder for validation examples, whose loader must keep its order: they are counted. With several
            validation loaders the examples follow each other, loader by loader. One process only.
        index, target: how to get (N,) indices and class indices from a batch. By default ``batch["index"]``,
            ``batch["labels"]`` of a mapping, and ``batch[2]``, ``batch[1]`` of a sequence.

    The epoch is ``trainer.current_epoch``: a run resumed from a checkpoint goes on in the same recording.

    Raises:
        ValueError: neither ``training`` nor ``validation`` is given.
        UserError: as training begins: ``validation`` with several processes.
    """

    def __init__(
        self,
        training: ProbabilityRecorder | None = None,
        validation: ProbabilityRecorder | None = None,
        *,
        index: Callable[[_Batch], Tensor] = lambda batch: batch["index"] if isinstance(batch, Mapping) else batch[2],
        target: Callable[[_Batch], Tensor] = lambda batch: batch["labels"] if isinstance(batch, Mapping) else batch[1],
    ) -> None:
        super().__init__()
        if training is None and validation is None:
            raise ValueError("nothing to record: pass training=, validation= or both")
        self.training, self.validation = training, validation
        self._index, self._target = index, target
        self._logits: Tensor | None = None
        self._hook: RemovableHandle | None = None
        self._counted = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self.validation is not None and trainer.world_size > 1:
            raise UserError(
                f"validation examples are counted in one process, got {trainer.world_size}: leave validation= out"
            )
        if self._hook is not None:  # of a training that failed, perhaps of another model
            self._hook.remove()
        self._hook = pl_module.register_forward_hook(self._keep_logits)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._flush()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: _Batch, *_: object
    ) -> None:
        if self.training is not None:
            self.training.record(trainer.current_epoch, self._index(batch), self._take_logits(), self._target(batch))

    def on_validation_epoch_start(self, *_: object) -> None:
        self._counted = 0

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: _Batch, *_: object
    ) -> None:
        if self.validation is not None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            target = self._target(batch)
            index = torch.arange(self._counted, self._counted + len(target))
            self._counted += len(target)
            self.validation.record(trainer.current_epoch, index, self._take_logits(), target)

    def _flush(self, *_: object) -> None:
        for recorder in (self.training, self.validation):
            if recorder is not None:
                recorder.flush()

    on_train_epoch_end = on_validation_epoch_end = _flush
    on_save_checkpoint = _flush  # a run resumed in mid-epoch doesn't see again what came before

    def _keep_logits(self, module: nn.Module, args: object, output: object) -> None:
        logits = getattr(output, "logits", output)
        if isinstance(logits, Tensor) and logits.ndim:  # DDP calls the module for the whole step, which returns a loss
            self._logits = logits.detach()

    def _take_logits(self) -> Tensor:
        logits, self._logits = self._logits, None
        if logits is None:
            raise RuntimeError(
                "no logits to record: the step must call self(x), and forward return logits or an object with .logits"
            )
        return logits
