"""Figure 1: |dL/dq_y| over p_y for mixtures of CE and EL, both scales, and for the other losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from crossfade._transforms import Mixture
from crossfade.diagnostics.curves import criterion_curve, gradient_curve, numeric_peak, peak
from crossfade.errors import UserError
from crossfade.functional import mpce_loss
from crossfade.lab.methods import Method, method
from crossfade.lab.paper.why.files import COLOURS, check_scale, write_study
from crossfade.schedules import Weights, weights
from crossfade.stats.drawing import new_figure

FOCUSES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_NAMED = ("focal", "mae", "gce", "tgce", "tce", "poly")


def run(out: Path, scale: str = "short", *, losses: Sequence[Method] = ()) -> None:
    """Write ``curves.csv``, ``peaks.csv``, ``figure1.svg`` and ``losses.svg`` into the folder ``out``.

    Args:
        out: The folder. The files are written anew in every call, as the exact curves take a second.
        scale: The scale, which sets the number of points of a curve.
        losses: The user's own losses (methods with a g), in addition to the library's.

    Raises:
        UserError: an unknown scale, a loss that isn't a function of ce alone, or a folder that can't be written to.
    """
    check_scale(scale)
    p = torch.linspace(0, 1, {"smoke": 51, "short": 201, "paper": 1001}[scale], dtype=torch.float64)
    peaks: list[dict[str, object]] = []
    curves: list[pd.DataFrame] = []
    for unit, (title, value) in _mixtures().items():
        found = peak(*value)
        peaks.append({"unit": unit, "loss": title, **value._asdict(), "peak_p": found.p, "peak_height": found.height})
        curves.append(_curve(unit, title, p, gradient_curve(Mixture(*value), p)))
    chosen = [*map(method, _NAMED), *losses]
    for one in chosen:
        if one.g is None:
            raise UserError(f"--loss {one.title}: expected a function g(ce), got a loss with a schedule or of its row")
        found = numeric_peak(one.g)
        peaks.append({"unit": one.name, "loss": one.title, "scale": "", "peak_p": found.p, "peak_height": found.height})
        curves.append(_curve(one.name, one.title, p, gradient_curve(one.g, p)))
    table = pd.concat([*curves, _two_class(p)], ignore_index=True)
    figures = {"figure1": _draw_mixtures(table), "losses": _draw_losses(table, [one.name for one in chosen])}
    write_study(out, "figure1", scale, {"peaks": pd.DataFrame(peaks), "curves": table}, figures, {"points": len(p)})


def _mixtures() -> dict[str, tuple[str, Weights]]:
    """Return title and weights of CE and of the mixtures on both scales."""
    named = {"ce": ("CE", Weights(1.0, 0.0))}
    for scale in ("paper", "unit"):
        for focus in FOCUSES:
            named[f"{scale}-{focus:g}"] = (f"F = {focus:g}, {scale} scale", weights(focus, scale))
    return named


def _curve(unit: str, title: str, p: Tensor, gradient: Tensor) -> pd.DataFrame:
    return pd.DataFrame({"unit": unit, "loss": title, "p": p.numpy(), "gradient": gradient.numpy()})


def _two_class(p: Tensor) -> pd.DataFrame:
    """Return MPCE's curve (eq. 7), which isn't a function of ce: with two classes it is 0 once p_y > 1/2."""
    inner = p[(p > 0) & (p < 1)]
    curve = criterion_curve(lambda logits, target: mpce_loss(logits, target, reduction="none"), inner)
    return _curve("mpce", "MPCE, 2 classes", inner, curve)


def _draw_mixtures(curves: pd.DataFrame) -> Figure:
    figure, axes = new_figure(2, share_x=True)
    for axis, scale in zip(axes, ("paper", "unit"), strict=True):
        for unit in ("ce", *(f"{scale}-{focus:g}" for focus in FOCUSES)):
            focus = unit.partition("-")[2]
            colour = COLOURS["ce" if unit == "ce" else "el" if focus == "0.5" else f"f{focus}"]
            own = curves[curves["unit"] == unit]
            label, style = (f"F = {focus}", "-") if focus else ("CE", "--")
            axis.plot(own["p"], own["gradient"], color=colour, lw=1.6, ls=style, label=label)
        axis.set(title=f"{scale} scale", xlabel="p, the probability of the right class")
    axes[0].set_ylabel("|dL/dq_y|")
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def _draw_losses(curves: pd.DataFrame, losses: list[str]) -> Figure:
    figure, (axis,) = new_figure(height=3.2, width=5.2)
    for unit in ("ce", "unit-0", "unit-0.5", *losses, "mpce"):
        own = curves[curves["unit"] == unit]
        axis.plot(own["p"], own["gradient"], lw=1.5, label=own["loss"].iloc[0])
    axis.set(xlabel="p, the probability of the right class", ylabel="|dL/dq_y|")
    axis.legend(frameon=False, fontsize=7, loc="upper right")
    return figure
