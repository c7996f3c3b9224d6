"""Four real data sets that ship with scikit-learn: nothing to download."""

from __future__ import annotations

from dataclasses import replace

from crossfade.lab.data.table import Table, from_frame

__all__ = ["BUILTIN", "load_builtin"]

BUILTIN = ("iris", "wine", "breast_cancer", "digits")


def load_builtin(name: str) -> Table:
    """One of ``BUILTIN``; raises KeyError for another name."""
    from sklearn import datasets

    loaders = {
        "iris": datasets.load_iris, "wine": datasets.load_wine,
        "breast_cancer": datasets.load_breast_cancer, "digits": datasets.load_digits,
    }  # fmt: skip
    bunch = loaders[name](as_frame=True)
    table = from_frame(
        bunch.data, bunch.target, name=name, source=f"scikit-learn load_{name}", where=name, target="target"
    )
    return replace(table, notes=())  # three pixels of the digits are always off: known, and nothing to act on
