"""The lab: trials, the store, the stacked training of tiny networks, and comparisons on your own data.

>>> from crossfade.lab import compare  # doctest: +SKIP
>>> compare(X, y)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade.lab.comparison import ComparisonResult, compare, compare_folder
    from crossfade.lab.store import Store
    from crossfade.lab.train.deep.weights import load_model
    from crossfade.lab.trial import Trial, seed

__all__ = ["ComparisonResult", "Store", "Trial", "compare", "compare_folder", "load_model", "seed"]

_HOMES = {
    "ComparisonResult": "comparison", "compare": "comparison", "Store": "store", "Trial": "trial", "seed": "trial",
    "compare_folder": "comparison", "load_model": "train.deep.weights",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
