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
_MODULES = ("diagnostics", "functional", "lab", "losses", "migrate", "schedules", "stats", "testing")

__all__ = [*_HOME, *_MODULES, "__version__"]

if TYPE_CHECKING:
    from crossfade.functional import (
        complement_entropy as complement_entropy,
    )
    from crossfade.functional import (
        crossfade_loss as crossfade_loss,
    )
    from crossfade.functional import (
        expectation_loss as expectation_loss,
    )
    from crossfade.functional import (
        focal_loss as focal_loss,
    )
    from crossfade.functional import (
        generalized_cross_entropy as generalized_cross_entropy,
    )
    from crossfade.functional import (
        linear_crossfade_loss as linear_crossfade_loss,
    )
    from crossfade.functional import (
        mae_loss as mae_loss,
    )
    from crossfade.functional import (
        mpce_loss as mpce_loss,
    )
    from crossfade.functional import (
        poly_loss as poly_loss,
    )
    from crossfade.functional import (
        probability_loss as probability_loss,
    )
    from crossfade.functional import (
        tamed_cross_entropy as tamed_cross_entropy,
    )
    from crossfade.functional import (
        truncated_cross_entropy as truncated_cross_entropy,
    )
    from crossfade.losses import CrossfadeLoss as CrossfadeLoss
    from crossfade.losses import LinearCrossfadeLoss as LinearCrossfadeLoss
    from crossfade.losses import MaxMahalanobisCenterLoss as MaxMahalanobisCenterLoss
    from crossfade.schedules import (
        Schedule as Schedule,
    )
    from crossfade.schedules import (
        Weights as Weights,
    )
    from crossfade.schedules import (
        constant as constant,
    )
    from crossfade.schedules import (
        cross_entropy as cross_entropy,
    )
    from crossfade.schedules import (
        expectation as expectation,
    )
    from crossfade.schedules import (
        gradual as gradual,
    )
    from crossfade.schedules import (
        linear as linear,
    )
    from crossfade.schedules import (
        staircase as staircase,
    )
    from crossfade.schedules import (
        switch as switch,
    )
    from crossfade.schedules import (
        weights as weights,
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
