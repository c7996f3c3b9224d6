"""The probability p_y of every example in every epoch, recorded at the cost of one more softmax of the logits.

A recording is a folder with one memory-mapped float16 array of shape (epochs, 3, examples) and a small JSON file:

* plane 0: ce = -log p_y, with the sign bit set where the prediction is wrong. The logarithm keeps three digits of p_y
  anywhere between 1 and 1e-28000; p_y itself would underflow in float16 below 6e-8.
* plane 1: -log of the largest probability (the confidence). plane 2: the sum of the squared probabilities (for Brier).

NaN means not seen (or logits that were not finite). 50,000 examples over 200 epochs take 60 MB. Nothing has to be
restored on resume: every value has its place by (epoch, example), and an epoch recorded twice is overwritten.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from crossfade._tensors import check_range

_ARRAY, _META, _VERSION = "probabilities.npy", "recording.json", 1
# On an accelerator every copy to the host waits for the device, and on the CPU calls on small batches are mostly
# overhead. So batches are written in groups of up to GROUP, and on the CPU of up to _GROUP_LOGITS logits.
GROUP = 50
_GROUP_LOGITS = 2**18
_LARGEST = torch.finfo(torch.float16).max

_Float32Array: TypeAlias = npt.NDArray[np.float32]
_BoolArray: TypeAlias = npt.NDArray[np.bool_]
Observer: TypeAlias = Callable[[int, str, Tensor, Tensor, Tensor], None]  # epoch, part, index, logits, labels


class Recording:
    """What a :class:`ProbabilityRecorder` has written to a folder. It can be read also while it is being written.

    Raises:
        FileNotFoundError: there is no recording in ``folder``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not (self.folder / _META).exists():
            raise FileNotFoundError(f"no recording in {str(folder)!r}: expected {_META} and {_ARRAY} there")
        self.meta: dict[str, int] = json.loads((self.folder / _META).read_text())
        self._planes = np.load(self.folder / _ARRAY, mmap_mode="r")
        self.epochs, _, self.examples = self._planes.shape

    def _plane(self, epoch: int, plane: int) -> _Float32Array:
        if not 0 <= epoch < self.epochs:
            raise IndexError(f"epoch must be in [0, {self.epochs}), got {epoch}")
        return np.asarray(self._planes[epoch, plane], dtype=np.float32)

    def seen(self, epoch: int) -> _BoolArray:
        """Return which examples were recorded in this epoch."""
        return ~np.isnan(self._plane(epoch, 0))

    def ce(self, epoch: int) -> _Float32Array:
        """Return -log p_y of every example, in nats; NaN where not seen."""
        return np.abs(self._plane(epoch, 0))

    def p(self, epoch: int) -> _Float32Array:
        """Return p_y of every example; NaN where not seen."""
        return np.asarray(np.exp(-self.ce(epoch)))

    def correct(self, epoch: int) -> _BoolArray:
        """Return whether the class with the largest logit is the target; False where not seen."""
        plane = self._plane(epoch, 0)
        return ~np.signbit(plane) & ~np.isnan(plane)

    def confidence(self, epoch: int) -> _Float32Array:
        """Return the largest probability of every example; NaN where not seen."""
        return np.asarray(np.exp(-self._plane(epoch, 1)))

    def brier(self, epoch: int) -> _Float32Array:
        """Return sum_j (p_j - onehot_j)^2 = 1 - 2 p_y + sum_j p_j^2 of every example, in [0, 2]."""
        return np.asarray(1 - 2 * self.p(epoch) + self._plane(epoch, 2))

    def complete(self) -> list[int]:
        """Return the epochs in which every example was seen."""
        return [epoch for epoch in range(self.epochs) if self.seen(epoch).all()]


class ProbabilityRecorder:
    """A writer of every example's p_y, of whether it is classified right, its confidence and its Brier term.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> recorder = ProbabilityRecorder(folder, examples=3, epochs=2)
    >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    >>> recorder.record(0, torch.tensor([2, 0]), logits, target)  # epoch 0, examples 2 and 0
    >>> recorder.flush()
    >>> Recording(folder).p(0).round(3), Recording(folder).correct(0)
    (array([0.269,   nan, 0.881], dtype=float32), array([False, False,  True]))

    Args:
        folder: created if necessary. An existing recording of the same shape is continued.
        examples: N, the size of the data set that the indices count.
        epochs: how many epochs (or any other moments to record) there will be.

    Raises:
        ValueError: ``folder`` holds a recording of another shape or version, or a torn one.

    Batches go into the memory map in groups of up to 50 (so that recording doesn't wait for an accelerator). What has
    reached it survives a kill of the process; :meth:`flush` writes the rest: call it before a checkpoint. Processes on
    one host (DDP) may write into one folder, each its own examples.
    """

    def __init__(self, folder: str | os.PathLike[str], examples: int, epochs: int) -> None:
        if examples < 1 or epochs < 1:
            raise ValueError(f"examples and epochs must be positive, got {examples} and {epochs}")
        self.folder = Path(folder)
        self.examples, self.epochs = examples, epochs
        expected = {"version": _VERSION, "examples": examples, "epochs": epochs}
        _create(self.folder, expected)
        meta = json.loads((self.folder / _META).read_text())
        if meta != expected:
            raise ValueError(f"{str(folder)!r} holds another recording: {meta}, not {expected}; take a new folder")
        open_memmap(self.folder / _ARRAY, mode="r")  # "r+" would fill a torn file with zeros: perfect predictions
        self._planes = open_memmap(self.folder / _ARRAY, mode="r+")
        if self._planes.shape != (epochs, 3, examples):
            raise ValueError(f"{self.folder / _ARRAY} has shape {self._planes.shape}, not {(epochs, 3, examples)}")
        # Epoch, index, logits and target; or epoch, index, the values that `_describe` returns and None.
        self._pending: list[tuple[int, Tensor, Tensor, Tensor | None]] = []
        self._pending_logits = 0  # on the CPU

    @torch.no_grad()
    def record(self, epoch: int, index: Tensor | Sequence[int], logits: Tensor, target: Tensor) -> None:
        """Record a batch.

        Args:
            epoch: in [0, epochs).
            index: (N,) integers, which examples of the data set these are.
            logits: (N, C), any floating dtype, any device. Left as they are.
            target: (N,) class indices in [0, C).

        Raises:
            IndexError: the epoch or an index is out of range.
            ValueError: shapes that don't fit together, an index or a target that isn't an integer, or a target outside
                [0, C).
        """
        if not 0 <= epoch < self.epochs:
            raise IndexError(f"epoch must be in [0, {self.epochs}), got {epoch}; the recorder was made for that many")
        index = torch.asarray(index, copy=True)  # the caller may reuse its buffer before this batch is written
        if logits.ndim != 2 or target.shape != logits.shape[:1] or index.shape != target.shape:
            raise ValueError(
                "expected logits (N, C), target (N,) and index (N,), got shapes "
                f"{tuple(logits.shape)}, {tuple(target.shape)} and {tuple(index.shape)}"
            )
        for name, numbers in (("index", index), ("target", target)):
            if numbers.numel() and (numbers.is_floating_point() or numbers.dtype == torch.bool):
                raise ValueError(f"{name} must hold integers, got {numbers.dtype}")
        here = logits.device.type == "cpu"
        if here:
            # On other devices gather checks the target without waiting.
            check_range("target", target, logits.shape[1], ValueError)
            check_range("index", index, self.examples, IndexError)
            self._pending_logits += logits.numel()
        if here and logits.numel() < _GROUP_LOGITS:  # a copy of large logits would cost more than the calls it saves
            self._pending.append((epoch, index, logits.detach().clone(), target.clone()))
        else:
            self._pending.append((epoch, index, _describe(logits, target), None))
        if len(self._pending) >= GROUP or self._pending_logits >= _GROUP_LOGITS:
            self._drain()

    def _drain(self) -> None:
        pending, self._pending, self._pending_logits = self._pending, [], 0
        for (epoch, described, *_), batches in groupby(
            pending, key=lambda one: (one[0], one[3] is None, one[2].shape[1], one[2].dtype)
        ):
            group = [batch[1:] for batch in batches]
            if not described:
                indices, logits, targets = (torch.cat(parts) for parts in zip(*group, strict=True))
                group = [(indices, _describe(logits, targets), None)]
            for index, values, _ in group:
                check_range("index", index, self.examples, IndexError)
                rows = index.long().cpu().numpy()
                columns = values.cpu().numpy()
                for plane in range(3):
                    self._planes[epoch, plane, rows] = columns[plane]

    def flush(self) -> None:
        """Write everything recorded so far to disk. Call it once an epoch and at the end."""
        self._drain()
        self._planes.flush()

    def __enter__(self) -> ProbabilityRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()


def _describe(logits: Tensor, target: Tensor) -> Tensor:
    """Return (3, N) float16: signed ce, -log confidence, sum of squares, all from one exp over the logits."""
    logits = logits.detach().float()
    top, predicted = logits.max(1)
    own = logits.gather(1, target.long().unsqueeze(1)).squeeze(1)
    relative = (logits - top.unsqueeze(1)).exp_()
    total = relative.sum(1)
    confidence = total.log()  # -log of exp(0) / total
    squares = relative.square_().sum(1) / total.square()
    described = torch.stack([confidence + (top - own), confidence, squares]).clamp_(max=_LARGEST)
    described[0].copysign_(torch.where(predicted == target, 1.0, -1.0))
    return described.half()


def _create(folder: Path, meta: dict[str, int]) -> None:
    """Create the files unless they exist. The JSON file is complete and comes last, so a kill leaves no partial one."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _META).exists():
        return
    mine, draft = folder / f".{os.getpid()}.npy", folder / f".{os.getpid()}.json"
    try:
        with mine.open("wb") as file:  # written and not mapped: a full disk is an OSError, and not a SIGBUS later
            np.save(file, np.broadcast_to(np.float16(np.nan), (meta["epochs"], 3, meta["examples"])))
            os.fsync(file.fileno())
        # link() doesn't replace files: if several processes start together, the first one's file is used by all.
        with contextlib.suppress(FileExistsError):
            os.link(mine, folder / _ARRAY)
        draft.write_text(json.dumps(meta))
        os.replace(draft, folder / _META)
    finally:
        mine.unlink(missing_ok=True)
        draft.unlink(missing_ok=True)


class IndexedDataset(torch.utils.data.Dataset[object]):
    """A map-style data set whose items also carry their index: (x, y) becomes (x, y, index).

    A mapping gets the key ``"index"`` instead, which is what Hugging Face's collators keep.

    >>> IndexedDataset([("a", 1), ("b", 0)])[1]
    ('b', 0, 1)
    """

    def __init__(self, dataset: _Sized) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> object:
        item = self.dataset[index]
        return {**item, "index": index} if isinstance(item, Mapping) else (*item, index)

    def __iter__(self) -> Iterator[object]:
        return (self[i] for i in range(len(self)))


class _Sized(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


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
