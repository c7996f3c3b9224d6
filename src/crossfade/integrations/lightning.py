"""A callback for Lightning that moves the criterion's weights with the trainer's own step or epoch; its loggers."""

from __future__ import annotations

import inspect
import math
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from crossfade.errors import UserError
from crossfade.integrations._shared import Scheduled

_LOGGERS = {"csv": "CSVLogger", "tensorboard": "TensorBoardLogger"}


class CrossfadeCallback(Callback):  # type: ignore[misc]
    """A callback that calls ``criterion.at(progress)`` before every training batch, for each criterion of the module.

    Progress is ``trainer.global_step / total_steps`` (optimizer steps) or ``trainer.current_epoch /
    trainer.max_epochs``. Lightning's checkpoint restores both, so that a resumed run has exactly the schedule's weights
    and the callback has nothing to save.

    Args:
        criterion: the criterion, if it is not an attribute of the module.
        interval: ``"step"`` or ``"epoch"``, named as in Lightning's configuration of learning rate schedules.
        total_steps: optimizer steps of the whole training. Needed only where Lightning doesn't know them: loaders
            without a length, neither ``max_steps`` nor ``max_epochs``, manual optimization (several optimizers), a
            ``GradientAccumulationScheduler``. After that many steps the schedule stays at its end.

    Raises:
        UserError: at the start of training, if no criterion is found or the length of the training is unknown.
        TypeError: a ``criterion`` without a schedule.
        ValueError: another ``interval``, or ``total_steps`` < 1.

    >>> trainer = Trainer(max_epochs=10, callbacks=[CrossfadeCallback()])  # doctest: +SKIP
    """

    def __init__(
        self,
        criterion: Scheduled | None = None,
        *,
        interval: Literal["step", "epoch"] = "step",
        total_steps: int | None = None,
    ) -> None:
        if criterion is not None and not isinstance(criterion, Scheduled):
            raise TypeError(f"criterion must be a CrossfadeLoss, got {type(criterion).__name__}")
        if interval not in ("step", "epoch"):
            raise ValueError(f"interval must be 'step' or 'epoch', got {interval!r}")
        if total_steps is not None and total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps!r}")
        if total_steps is not None and interval == "epoch":
            raise ValueError("total_steps goes with interval='step'; with interval='epoch' set Trainer(max_epochs=...)")
        self.interval = interval
        self.total_steps = total_steps
        self.criterion = criterion
        self._criteria: list[Scheduled] = []
        self._total = 1.0
        self._progress = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        within = [self.criterion] if self.criterion is not None else pl_module.modules()
        self._criteria = [one for one in within if isinstance(one, Scheduled)]
        if not self._criteria:
            raise UserError(
                f"no CrossfadeLoss found in {type(pl_module).__name__}: assign it to an attribute "
                "(self.criterion = CrossfadeLoss()) or pass CrossfadeCallback(criterion=...)"
            )
        self._total = self._length(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        done = trainer.current_epoch if self.interval == "epoch" else trainer.global_step
        self._progress = min(done / self._total, 1.0)
        self.on_validation_batch_start()

    def on_validation_batch_start(self, *_: object) -> None:
        for criterion in self._criteria:  # a callback that averages the model's weights averages these buffers, too
            criterion.at(self._progress)

    def _length(self, trainer: Trainer) -> float:
        if self.interval == "epoch":
            if trainer.max_epochs is None or trainer.max_epochs < 1:
                raise UserError("the number of epochs is unknown: set Trainer(max_epochs=...), or use interval='step'")
            return int(trainer.max_epochs)
        if self.total_steps is not None:
            return self.total_steps
        # Lightning's own estimate takes one step a batch, and the first epoch's accumulation for all.
        countable = trainer.lightning_module.automatic_optimization and not any(
            isinstance(one, GradientAccumulationScheduler) and len(one.scheduling) > 1 for one in trainer.callbacks
        )
        total = trainer.estimated_stepping_batches if countable else trainer.max_steps
        if not 0 < total < math.inf:
            raise UserError(
                "the number of training steps is unknown (a loader without a length, unlimited epochs, manual "
                "optimization or an accumulation that changes): pass CrossfadeCallback(total_steps=...) or set "
                "Trainer(max_steps=...)"
            )
        return float(total)


def make_logger(name: str, folder: Path | None) -> Any:
    """Return one of Lightning's loggers for one training, or False for none, as Lightning wants it.

    Args:
        name: ``"csv"``, ``"tensorboard"``, another class of ``lightning.pytorch.loggers`` (``"MLFlowLogger"``), your
            own class as ``"module:Class"``, or ``""`` for none. It gets the arguments ``save_dir``, ``name`` and
            ``run_name`` if it has them; configure the rest in the logger's own way, such as environment variables.
        folder: The training's folder, named after its trial; a logger that writes files uses ``log`` in it.

    Raises:
        UserError: an unknown logger, no folder, or a logger that can't be created.
    """
    if not name:
        return False
    if folder is None:
        raise UserError("logger: needs a folder to write to")
    if ":" in name and os.getcwd() not in sys.path:  # a module in the current folder
        sys.path.append(os.getcwd())
    try:
        kind = pkgutil.resolve_name(name if ":" in name else f"lightning.pytorch.loggers:{_LOGGERS.get(name, name)}")
    except (AttributeError, ValueError):
        kind = None
    except Exception as error:  # the user's module may raise anything
        raise UserError(f"logger {name}: {str(error).strip() or type(error).__name__}") from error
    if not inspect.isclass(kind):
        raise UserError(
            f"logger must be {', '.join(_LOGGERS)}, a class of lightning.pytorch.loggers or module:Class, got {name!r}"
        )
    given = {"save_dir": str(folder / "log"), "name": folder.name, "run_name": folder.name}
    if name in _LOGGERS:
        given = {"save_dir": str(folder), "name": "log", "version": ""}
    taken = inspect.signature(kind).parameters
    try:
        return kind(**{key: value for key, value in given.items() if key in taken})
    except Exception as error:
        raise UserError(f"logger {name}: {str(error).strip() or type(error).__name__}") from error
