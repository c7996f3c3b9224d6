"""The 121 UCI sets of Fernandez-Delgado et al. 2014, prepared and split by Klambauer et al. 2017.

A folder for each set holds, comma-separated and without header, ``NAME_py.dat`` (N x D numbers), ``labels_py.dat`` (N
labels 0..C-1), ``folds_py.dat`` and ``validation_folds_py.dat`` (N x 4; 1 marks a test or a validation row of split j).
The four splits are four separate draws, not a partition, and 19 sets have one fixed test part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.data.split import Split, entry
from crossfade.lab.trial import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS = 4
_NAMES = """
abalone acute-inflammation acute-nephritis adult annealing arrhythmia audiology-std balance-scale balloons bank blood
breast-cancer breast-cancer-wisc breast-cancer-wisc-diag breast-cancer-wisc-prog breast-tissue car
cardiotocography-10clases cardiotocography-3clases chess-krvk chess-krvkp congressional-voting
conn-bench-sonar-mines-rocks conn-bench-vowel-deterding connect-4 contrac credit-approval cylinder-bands dermatology
echocardiogram ecoli energy-y1 energy-y2 fertility flags glass haberman-survival hayes-roth heart-cleveland
heart-hungarian heart-switzerland heart-va hepatitis hill-valley horse-colic ilpd-indian-liver image-segmentation
ionosphere iris led-display lenses letter libras low-res-spect lung-cancer lymphography magic mammographic miniboone
molec-biol-promoter molec-biol-splice monks-1 monks-2 monks-3 mushroom musk-1 musk-2 nursery
oocytes_merluccius_nucleus_4d oocytes_merluccius_states_2f oocytes_trisopterus_nucleus_2f
oocytes_trisopterus_states_5b optical ozone page-blocks parkinsons pendigits pima pittsburg-bridges-MATERIAL
pittsburg-bridges-REL-L pittsburg-bridges-SPAN pittsburg-bridges-T-OR-D pittsburg-bridges-TYPE planning plant-margin
plant-shape plant-texture post-operative primary-tumor ringnorm seeds semeion soybean spambase spect spectf
statlog-australian-credit statlog-german-credit statlog-heart statlog-image statlog-landsat statlog-shuttle
statlog-vehicle steel-plates synthetic-control teaching thyroid tic-tac-toe titanic trains twonorm
vertebral-column-2clases vertebral-column-3clases wall-following waveform waveform-noise wine wine-quality-red
wine-quality-white yeast zoo
"""  # as Klambauer et al. spell them
UCI_NAMES = tuple(_NAMES.split())
_LABELS, _TEST, _VALIDATION = "labels_py.dat", "folds_py.dat", "validation_folds_py.dat"


@dataclass(frozen=True, eq=False)
class UciTask:
    """One set. Repeat r is seed r // 4 on the published split r % 4, so that more seeds or splits keep the old keys."""

    folder: Path
    name: str

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What decides the numbers: the files' bytes."""
        bytes_ = hashlib.blake2b(digest_size=16)
        for name in (f"{self.name}_py.dat", _LABELS, _TEST, _VALIDATION):
            bytes_.update((self.folder / name).read_bytes())
        return {"data": bytes_.hexdigest(), "splits": "klambauer"}

    @cached_property
    def shape(self) -> Shape:
        """Rows, inputs, classes."""
        x, y, _, _ = self._arrays
        return Shape(len(y), x.shape[1], int(y.max()) + 1)

    def split(self, repeat: int) -> Split:
        """Return the published rows of split ``repeat % 4``, as they are."""
        x, y, test, validation = self._arrays
        is_test, is_validation = test[:, repeat % SPLITS] == 1, validation[:, repeat % SPLITS] == 1
        is_training = ~is_test & ~is_validation
        parts = [(np.ascontiguousarray(x[rows]), y[rows]) for rows in (is_training, is_validation, is_test)]
        if any(len(labels) == 0 for _, labels in parts):
            raise UserError(f"{self.name}: split {repeat % SPLITS} has an empty part; the copy isn't complete")
        (x_train, y_train), (x_val, y_val), (x_test, y_test) = parts
        return Split(x_train, y_train, x_val, y_val, x_test, y_test, int(y.max()) + 1)

    def describe(self) -> dict[str, Any]:
        """Return one entry of a report's ``datasets``."""
        x, y, test, validation = self._arrays
        n_test, n_val = int((test[:, 0] == 1).sum()), int((validation[:, 0] == 1).sum())
        sizes, classes, digest = (len(y) - n_test - n_val, n_val, n_test), int(y.max()) + 1, self.content["data"]
        source = "UCI, Klambauer et al. 2017"
        return entry(self.name, source, features=x.shape[1], classes=classes, sizes=sizes, sha256=digest)

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int8], NDArray[np.int8]]:
        x = _read(self.folder / f"{self.name}_py.dat").astype(np.float32)
        labels = _read(self.folder / _LABELS)[:, 0]
        y = labels.astype(np.int64)
        test, validation = (_read(self.folder / name).astype(np.int8) for name in (_TEST, _VALIDATION))
        if not (len(x) == len(y) == len(test) == len(validation)):
            raise UserError(
                f"{self.folder}: {len(x)} rows, {len(y)} labels, {len(test)} and {len(validation)} fold rows; "
                "the copy isn't complete"
            )
        if (y != labels).any() or y.min() < 0 or not np.isfinite(x).all() or test.shape[1] < SPLITS:
            raise UserError(f"{self.folder}: not the published files (labels 0..C-1, finite numbers, 4 splits)")
        return x, y, test, validation


def _read(path: Path) -> NDArray[np.float64]:
    import pandas as pd

    try:
        return pd.read_csv(path, header=None, dtype=np.float64).to_numpy()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as comma-separated numbers ({' '.join(str(error).split())})") from None


def find_uci(data_dir: Path) -> Path | None:
    """Return the folder with the sets' folders: ``data_dir`` itself, or the archive's ``data`` or ``uci121`` in it."""
    for folder in (data_dir, data_dir / "uci121", data_dir / "data", data_dir / "uci121" / "data"):
        if any((folder / name / _LABELS).is_file() for name in UCI_NAMES):
            return folder
    return None


def uci_tasks(data_dir: Path, names: tuple[str, ...] = ()) -> tuple[list[UciTask], list[str]]:
    """Return tasks for the sets that are here, and the names of those that aren't (of all 121, or of ``names``).

    Raises:
        UserError: none is here, or a name is none of the 121.
    """
    import difflib

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
    wanted = names or UCI_NAMES
    # The published archive spells a few names with an underscore or a space where others have a hyphen.
    here = {_plain(entry.name): entry for entry in folder.iterdir() if entry.is_dir()}
    tasks, missing = [], []
    for name in wanted:
        entry = here.get(_plain(name))
        complete = entry is not None and all(
            (entry / file).is_file() for file in (f"{entry.name}_py.dat", _LABELS, _TEST, _VALIDATION)
        )
        if complete and entry is not None:
            tasks.append(UciTask(entry, entry.name))
        else:
            missing.append(name)
    return tasks, missing


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
