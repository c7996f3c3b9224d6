"""The bookkeeping of "A Motivating Example": what becomes of test images that are wrong at some epoch."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from crossfade.diagnostics import ProbabilityRecorder, Recording
from crossfade.lab.train.deep.recipe import DeepRecipe

_NEAR = 0.2  # p_y that parts the wrong predictions


class Watcher:
    """An observer that records p_y of the test images after epoch ``recipe.watch`` and after the last."""

    def __init__(self, folder: Path, examples: int, recipe: DeepRecipe) -> None:
        self.recorder = ProbabilityRecorder(folder, examples, recipe.epochs)
        self.epochs = (recipe.watch - 1, recipe.epochs - 1)

    def __call__(self, epoch: int, part: str, index: Tensor, logits: Tensor, labels: Tensor) -> None:
        if part == "test" and epoch in self.epochs:
            self.recorder.record(epoch, index, logits, labels)
            self.recorder.flush()  # a checkpoint may follow, and the watched epoch isn't seen again


def escapes(folder: Path, recipe: DeepRecipe) -> dict[str, int]:
    """Return how many test images of each group at epoch ``recipe.watch`` are right at the end.

    The groups are: right, wrong with p_y > 0.2, wrong with p_y < 0.2.
    """
    recording = Recording(folder)
    then, now = recipe.watch - 1, recipe.epochs - 1
    right, p, end = recording.correct(then), recording.p(then), recording.correct(now)
    groups = {"right": right, "near": ~right & (p >= _NEAR), "far": ~right & (p < _NEAR)}
    counts = {f"watch_{name}": int(group.sum()) for name, group in groups.items()}
    return counts | {f"end_{name}": int((group & end).sum()) for name, group in groups.items()}
