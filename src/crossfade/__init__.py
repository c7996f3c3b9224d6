"""Train classifiers for accuracy: start on the cross entropy, fade into the expectation loss 1 - p_y.

>>> import torch, crossfade
>>> criterion = crossfade.CrossfadeLoss(crossfade.gradual())
>>> loss = criterion.at(0.5)(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))

Names are loaded on first use: ``import crossfade`` alone imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_FUNCTIONAL = (
    "complement_entropy",
    "crossfade_loss",
    "expectation_loss",
    "focal_loss",
    "generalized_cross_entropy",
    "linear_crossfade_loss",
    "mae_loss",
    "mpce_loss",
    "poly_loss",
    "probability_loss",
    "tamed_cross_entropy",
    "truncated_cross_entropy",
)
_LOSSES = ("CrossfadeLoss", "LinearCrossfadeLoss", "MaxMahalanobisCenterLoss")
_SCHEDULES = (
    "Schedule",
    "Weights",
    "constant",
    "cross_entropy",
    "expectation",
    "gradual",
    "linear",
    "staircase",
    "switch",
    "weights",
)
_HOME = (
    dict.fromkeys(_FUNCTIONAL, "functional") | dict.fromkeys(_LOSSES, "losses") | dict.fromkeys(_SCHEDULES, "schedules")
)
# `crossfade.linear` is a schedule by contract, and a module by the same name would shadow it once imported.
_MODULES = ("diagnostics", "functional", "lab", "losses", "schedules", "stats", "testing")

__all__ = [*_HOME, *_MODULES, "__version__"]

if TYPE_CHECKING:
    from crossfade.functional import (
        complement_entropy,
        crossfade_loss,
        expectation_loss,
        focal_loss,
        generalized_cross_entropy,
        linear_crossfade_loss,
        mae_loss,
        mpce_loss,
        poly_loss,
        probability_loss,
        tamed_cross_entropy,
        truncated_cross_entropy,
    )
    from crossfade.losses import CrossfadeLoss, LinearCrossfadeLoss, MaxMahalanobisCenterLoss
    from crossfade.schedules import (
        Schedule,
        Weights,
        constant,
        cross_entropy,
        expectation,
        gradual,
        linear,
        staircase,
        switch,
        weights,
    )


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(importlib.import_module(f"crossfade.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"crossfade.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
