"""The paper's arguments as measurements that work on any model, any loss and any data.

* gradient curves (Fig. 1): :func:`gradient_curve`, :func:`criterion_curve`, :func:`row_weight`, :func:`peak`
* Taylor's remainder (eq. 11): :func:`remainder`, :func:`check_claims`
* training dynamics: :class:`ProbabilityRecorder`, :class:`Recording`, :func:`transitions`, :func:`histograms`,
  :func:`forgetting`, :func:`gradient_mass`, :func:`calibration`, :func:`calibration_history`
* escaping efficiency (eq. 15-18): :func:`noise_and_curvature`, :func:`escaping_efficiency`, :func:`concavity`
* sharpness: :func:`largest_eigenvalue`, :func:`loss_slice`, :func:`random_direction`
* simulation: :func:`simulate_escapes`, :class:`DoubleWell`

Names are loaded on first use. The callbacks live in ``crossfade.diagnostics.lightning`` and
``crossfade.diagnostics.huggingface``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOME = {
    "Peak": "curves",
    "criterion_curve": "curves",
    "gradient_curve": "curves",
    "numeric_peak": "curves",
    "peak": "curves",
    "row_weight": "curves",
    "Claim": "curves",
    "check_claims": "curves",
    "remainder": "curves",
    "remainder_bounds": "curves",
    "xi": "curves",
    "IndexedDataset": "recorder",
    "ProbabilityRecorder": "recorder",
    "Recording": "recorder",
    "Calibration": "dynamics",
    "Forgetting": "dynamics",
    "Transitions": "dynamics",
    "calibration": "dynamics",
    "calibration_history": "dynamics",
    "forgetting": "dynamics",
    "gradient_mass": "dynamics",
    "histograms": "dynamics",
    "transitions": "dynamics",
    "Estimate": "escaping",
    "NoiseAndCurvature": "escaping",
    "noise_and_curvature": "escaping",
    "EscapingEfficiency": "escaping",
    "concavity": "escaping",
    "escaping_efficiency": "escaping",
    "largest_eigenvalue": "sharpness",
    "loss_slice": "sharpness",
    "random_direction": "sharpness",
    "DoubleWell": "simulate",
    "EscapeCounts": "simulate",
    "simulate_escapes": "simulate",
}
__all__ = [
    "Calibration",
    "Claim",
    "DoubleWell",
    "EscapeCounts",
    "EscapingEfficiency",
    "Estimate",
    "Forgetting",
    "IndexedDataset",
    "NoiseAndCurvature",
    "Peak",
    "ProbabilityRecorder",
    "Recording",
    "Transitions",
    "calibration",
    "calibration_history",
    "check_claims",
    "concavity",
    "criterion_curve",
    "escaping_efficiency",
    "forgetting",
    "gradient_curve",
    "gradient_mass",
    "histograms",
    "largest_eigenvalue",
    "loss_slice",
    "noise_and_curvature",
    "numeric_peak",
    "peak",
    "random_direction",
    "remainder",
    "remainder_bounds",
    "row_weight",
    "simulate_escapes",
    "transitions",
    "xi",
]

if TYPE_CHECKING:
    from crossfade.diagnostics.curves import (
        Claim,
        Peak,
        check_claims,
        criterion_curve,
        gradient_curve,
        numeric_peak,
        peak,
        remainder,
        remainder_bounds,
        row_weight,
        xi,
    )
    from crossfade.diagnostics.dynamics import (
        Calibration,
        Forgetting,
        Transitions,
        calibration,
        calibration_history,
        forgetting,
        gradient_mass,
        histograms,
        transitions,
    )
    from crossfade.diagnostics.escaping import (
        EscapingEfficiency,
        Estimate,
        NoiseAndCurvature,
        concavity,
        escaping_efficiency,
        noise_and_curvature,
    )
    from crossfade.diagnostics.recorder import IndexedDataset, ProbabilityRecorder, Recording
    from crossfade.diagnostics.sharpness import largest_eigenvalue, loss_slice, random_direction
    from crossfade.diagnostics.simulate import DoubleWell, EscapeCounts, simulate_escapes


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
