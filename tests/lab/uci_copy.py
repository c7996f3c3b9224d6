"""A small, real copy in the published layout: UCI sets that ship with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn import datasets


def write_uci(folder: Path, rows: int | None = None) -> Path:
    """``folder/uci121/NAME/`` for three of the 121 sets, with four random 75/25 draws."""
    for name, load in (
        ("iris", datasets.load_iris),
        ("wine", datasets.load_wine),
        ("breast-cancer-wisc-diag", datasets.load_breast_cancer),
    ):
        x, y = load(return_X_y=True)
        random = np.random.default_rng(0)
        order = random.permutation(len(y))[:rows]
        x, y = x[order], y[order]
        test = (random.random((len(y), 4)) < 0.25).astype(float)
        validation = ((random.random((len(y), 4)) < 0.25) & (test == 0)).astype(float)
        place = folder / "uci121" / name
        place.mkdir(parents=True)
        np.savetxt(place / f"{name}_py.dat", (x - x.mean(0)) / x.std(0), delimiter=",")
        np.savetxt(place / "labels_py.dat", y)
        np.savetxt(place / "folds_py.dat", test, delimiter=",")
        np.savetxt(place / "validation_folds_py.dat", validation, delimiter=",")
    return folder
