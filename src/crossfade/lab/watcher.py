"""A recorder of p_y while a network of any family trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from crossfade.diagnostics import ProbabilityRecorder, Recording

Observer: TypeAlias = Callable[[int, str, Tensor, Tensor, Tensor], None]  # epoch, part, index, logits, labels


class Watcher:
    """An observer that records p_y of the examples of some parts in some epochs.

    Recordings are continued; one that can't be, such as a torn one, is begun again.

    Args:
        parts: The folder of a part's recording and its number of examples, by the part's name.
        epochs: The number of epochs of the training.
        watched: The epochs (from 0) that are recorded.
    """

    def __init__(self, parts: Mapping[str, tuple[Path, int]], epochs: int, watched: Collection[int]) -> None:
        self.recorders = {part: _recorder(*place, epochs) for part, place in parts.items()}
        self.watched = watched

    def __call__(self, epoch: int, part: str, index: Tensor, logits: Tensor, labels: Tensor) -> None:
        if part in self.recorders and epoch in self.watched:
            self.recorders[part].record(epoch, index, logits, labels)
            if part == "test":  # a checkpoint may follow, and a run that resumes from it doesn't repeat this epoch
                self._flush()

    def missing(self, epochs: int) -> int:
        """Write down what was recorded, and return how many values of the first ``epochs`` epochs were not."""
        self._flush()
        recordings = [Recording(recorder.folder) for recorder in self.recorders.values()]
        watched = [epoch for epoch in self.watched if epoch < epochs]
        return sum(int((~one.seen(epoch)).sum()) for one in recordings for epoch in watched)

    def _flush(self) -> None:
        for recorder in self.recorders.values():
            recorder.flush()


def _recorder(folder: Path, examples: int, epochs: int) -> ProbabilityRecorder:
    try:
        return ProbabilityRecorder(folder, examples, epochs)
    except (FileNotFoundError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
        return ProbabilityRecorder(folder, examples, epochs)
