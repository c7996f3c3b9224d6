"""Methods of a repeat that begin alike are trained once as far as they do: the second goes on from the first's epoch.

The mixtures of the paper share their first phases (F = 0 and F = 0, 0.5 all but the last 5 %), and everything else of a
repeat is paired. A resumed training is the undisturbed one, so the numbers are those of training each from the start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from crossfade.lab.methods import Method

if TYPE_CHECKING:
    from crossfade.lab.train.hardware import Hardware
    from crossfade.lab.trial import Trial

__all__ = ["Forks", "shared_epochs"]

_GRID = 5040  # places in an epoch where two step schedules are compared
_SUFFIX = ".fork"


def shared_epochs(first: Method, second: Method, recipe: Any) -> int:
    """How many whole epochs two methods train alike, less than all; 0 for methods that aren't plain mixtures."""
    if type(first) is not Method or type(second) is not Method or first.g is not None or second.g is not None:
        return 0
    steps = 1 if recipe.granularity == "epoch" else _GRID
    # What is watched must be seen by each method's own training.
    most: int = min(recipe.epochs - 1, recipe.watch - 1 if recipe.watch else recipe.epochs)
    for epoch in range(most):
        for step in range(steps):
            progress = (epoch + step / steps) / recipe.epochs
            if tuple(first.schedule(progress)) != tuple(second.schedule(progress)):
                return epoch
    return max(0, most)


class Forks:
    """The checkpoints that later trials of a repeat start from.

    Args:
        work: Where checkpoints are.
        trials: Of one recipe and one repeat of a task, in the order in which they are trained.
        hardware: With more than one process nothing is shared.
    """

    def __init__(self, work: Path, trials: Sequence[Trial], hardware: Hardware) -> None:
        self.work, self.trials = work, trials
        self.enabled = hardware.devices * hardware.nodes == 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1

    def begin(self, trial: Trial) -> int:
        """Lay an earlier trial's checkpoint where this one looks for its own; how many epochs that saves."""
        own = self.work / trial.key / "last.ckpt"
        if not self.enabled or own.exists():
            return 0
        earlier = self.trials[: self.trials.index(trial)]
        for epochs, other in sorted(((self._shared(one, trial), one.key) for one in earlier), reverse=True):
            fork = self._path(other, epochs)
            if epochs and fork.exists():
                own.parent.mkdir(parents=True, exist_ok=True)
                part = own.with_suffix(".part")
                shutil.copyfile(fork, part)
                part.replace(own)
                return epochs
        return 0

    def callbacks(self, trial: Trial) -> list[pl.Callback]:
        """What keeps the checkpoints that later trials want of this one."""
        if not self.enabled:
            return []
        later = self.trials[self.trials.index(trial) + 1 :]
        wanted = {epochs: self._path(trial.key, epochs) for one in later if (epochs := self._shared(trial, one))}
        return [_Keep(self.work / trial.key / "last.ckpt", wanted)] if wanted else []

    def finish(self) -> None:
        """All are trained: what was kept for them isn't needed any more."""
        for trial in self.trials:
            for fork in self.work.glob(f"{trial.key}.*{_SUFFIX}"):
                fork.unlink()

    def _shared(self, first: Trial, second: Trial) -> int:
        return shared_epochs(first.method, second.method, first.recipe)

    def _path(self, key: str, epochs: int) -> Path:
        return self.work / f"{key}.{epochs}{_SUFFIX}"


class _Keep(pl.Callback):  # type: ignore[misc]
    def __init__(self, last: Path, wanted: dict[int, Path]) -> None:
        self.last, self.wanted = last, wanted

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The checkpoint of the epoch before was written when that epoch ended.
        path = self.wanted.get(trainer.current_epoch)
        if path is not None and not path.exists() and self.last.exists():
            part = path.with_suffix(".part")
            shutil.copyfile(self.last, part)
            part.replace(path)
