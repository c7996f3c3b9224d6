"""The 121 UCI sets of Fernandez-Delgado et al. 2014, prepared and split by Klambauer et al. 2017.

A folder for each set holds, comma-separated and without header, ``NAME_py.dat`` (N x D numbers), ``labels_py.dat`` (N
labels 0..C-1), ``folds_py.dat`` and ``validation_folds_py.dat`` (N x 4; 1 marks a test or a validation row of split j).
The four splits are four separate draws, not a partition, and 19 sets have one fixed test part.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crossfade.errors import UserError
from crossfade.lab.data.split import Split, entry
from crossfade.lab.trial import Shape

SPLITS = 4
# The names as Klambauer et al. spell them, and the digests of the published files (miniboone's weren't at hand).
UCI_DIGESTS = dict(line.split(",") for line in Path(__file__).with_suffix(".csv").read_text(encoding="utf-8").split())
UCI_NAMES = tuple(UCI_DIGESTS)
_LABELS = "labels_py.dat"


@dataclass(frozen=True, eq=False)
class UciTask:
    """One UCI set. Repeat r is seed r // 4 on the published split r % 4, so more seeds or splits keep the old keys."""

    folder: Path
    name: str

    @cached_property
    def content(self) -> Mapping[str, object]:
        """What decides the numbers: the files' bytes."""
        hashed = hashlib.blake2b(digest_size=16)
        for path in _files(self.folder):
            hashed.update(path.read_bytes())
        return {"data": hashed.hexdigest(), "splits": "klambauer"}

    @cached_property
    def shape(self) -> Shape:
        """Rows, inputs, classes."""
        x, y, _, _ = self._arrays
        return Shape(len(y), x.shape[1], int(y.max()) + 1)

    def split(self, repeat: int) -> Split:
        """Return the published rows of split ``repeat % 4``, as they are."""
        x, y, test, validation = self._arrays
        at = repeat % SPLITS
        parts = [~test[:, at] & ~validation[:, at], validation[:, at], test[:, at]]
        if not all(rows.any() for rows in parts):
            raise UserError(f"{self.name}: split {at} has an empty part; the copy isn't complete")
        train, val, held = parts
        return Split(x[train], y[train], x[val], y[val], x[held], y[held], self.shape.classes)

    def describe(self) -> dict[str, str | int]:
        parts = [labels for _, labels in self.split(0).parts]
        return entry(self, "UCI, Klambauer et al. 2017", self.shape.inputs, parts, str(self.content["data"]))

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        features, labels, *folds = map(_read, _files(self.folder))
        x, y = features.astype(np.float32), labels[:, 0].astype(np.int64)
        test, validation = (np.equal(marks, 1) for marks in folds)
        if not (len(x) == len(y) == len(test) == len(validation)):
            raise UserError(
                f"{self.folder}: {len(x)} rows, {len(y)} labels, {len(test)} and {len(validation)} fold rows; "
                "the copy isn't complete"
            )
        if (y != labels[:, 0]).any() or y.min() < 0 or not np.isfinite(x).all() or test.shape[1] < SPLITS:
            raise UserError(f"{self.folder}: not the published files (labels 0..C-1, finite numbers, 4 splits)")
        return x, y, test, validation


def _files(folder: Path) -> list[Path]:
    """Return a set's numbers, labels, test rows and validation rows."""
    return [folder / name for name in (f"{folder.name}_py.dat", _LABELS, "folds_py.dat", "validation_folds_py.dat")]


def _read(path: Path) -> NDArray[np.float64]:
    try:
        return pd.read_csv(path, header=None, dtype=np.float64).to_numpy()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as comma-separated numbers ({' '.join(str(error).split())})") from None


def find_uci(data_dir: Path) -> Path | None:
    """Return the folder with the sets' folders: ``data_dir`` itself, or the archive's ``data`` or ``uci121`` in it."""
    folders = (data_dir / place for place in (".", "uci121", "data", "uci121/data"))
    return next((place for place in folders if any((place / name / _LABELS).is_file() for name in UCI_NAMES)), None)


def uci_tasks(data_dir: Path, names: tuple[str, ...] = ()) -> tuple[list[UciTask], list[str]]:
    """Return tasks for the sets that are here, and the names of those that aren't (of all 121, or of ``names``).

    Raises:
        UserError: none is here, or a name is none of the 121.
    """
    for name in names:
        if name not in UCI_NAMES:
            near = difflib.get_close_matches(name, UCI_NAMES, n=1)
            raise UserError(f"UCI set {name!r} is unknown" + (f" (did you mean {near[0]!r}?)" if near else ""))
    folder = find_uci(data_dir)
    if folder is None:
        raise UserError(
            f"{data_dir}: none of the 121 UCI sets is here (looked for NAME/{_LABELS}); "
            "`crossfade data uci --download --data-dir DIR` gets them"
        )
    # The published archive spells a few names with an underscore or a space instead of a hyphen.
    here = {plain_name(sub.name): sub for sub in folder.iterdir() if all(path.is_file() for path in _files(sub))}
    found = {name: here[plain_name(name)] for name in names or UCI_NAMES if plain_name(name) in here}
    missing = [name for name in names or UCI_NAMES if name not in found]
    return [UciTask(sub, sub.name) for sub in found.values()], missing


def plain_name(name: str) -> str:
    """Return a set's name with hyphens alone; copies spell a few with underscores or spaces."""
    return name.lower().replace("_", "-").replace(" ", "-")
