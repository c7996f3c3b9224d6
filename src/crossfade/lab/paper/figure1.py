"""Figure 1: |dL/dq_y| over p_y for mixtures of CE and EL, both scales, and for the other losses."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from crossfade.diagnostics.curves import criterion_curve, gradient_curve, numeric_peak, peak
from crossfade.lab.methods import METHODS, Method
from crossfade.lab.paper.why_tables import COLOURS, Progress, Table, check_scale, figure, save, write_provenance
from crossfade.schedules import Weights, weights

__all__ = ["FOCUSES", "run"]

FOCUSES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_NAMED = ("focal", "mae", "gce", "tgce", "tce", "poly")


def run(
    out: Path,
    data_dir: Path | None = None,
    scale: str = "short",
    *,
    losses: tuple[Method, ...] = (),
    on_progress: Progress | None = None,
) -> Path:
    """Write ``curves.csv``, ``peaks.csv``, ``figure1.svg`` and ``losses.svg`` into ``out``; returns ``out``.

    Args:
        out: a folder. The curves are exact and take a second, so they are written anew every time.
        data_dir: not needed; every study takes it.
        scale: how many points a curve has.
        losses: own losses (``Method`` with a g) beside the library's.

    Raises:
        UserError: unknown scale.
    """
    check_scale(scale)
    p = torch.linspace(0, 1, {"smoke": 51, "short": 201, "paper": 1001}[scale], dtype=torch.float64)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("curves.csv", "peaks.csv"):
        (out / name).unlink(missing_ok=True)
    curves, peaks = Table(out / "curves.csv"), Table(out / "peaks.csv")
    _mixtures(p, curves, peaks)
    chosen = [method for method in METHODS if method.name in _NAMED] + [m for m in losses if m.g is not None]
    for method in chosen:
        assert method.g is not None
        found = numeric_peak(method.g)
        curve = gradient_curve(method.g, p)
        peaks.add(method.name, [{"loss": method.title, "scale": "", "peak_p": found.p, "peak_height": found.height}])
        _write(curves, method.name, method.title, p, curve)
    _two_class(p, curves)
    _draw(curves, out, [method.name for method in chosen])
    write_provenance(out, "figure1", scale, {"points": len(p)}, ["crossfade", *sys.argv[1:]])
    return out


def _write(table: Table, unit: str, title: str, p: torch.Tensor, curve: torch.Tensor) -> None:
    pairs = zip(p.tolist(), curve.tolist(), strict=True)
    table.add(unit, [{"loss": title, "p": x, "gradient": y} for x, y in pairs])


def _mixtures(p: torch.Tensor, curves: Table, peaks: Table) -> None:
    named = {"ce": ("CE", Weights(1.0, 0.0))}
    for scale in ("paper", "unit"):
        for focus in FOCUSES:
            named[f"{scale}-{focus:g}"] = (f"F = {focus:g}, {scale} scale", weights(focus, scale))
    for unit, (title, (alpha, beta)) in named.items():
        found = peak(alpha, beta)
        row = {"loss": title, "alpha": alpha, "beta": beta, "peak_p": found.p, "peak_height": found.height}
        peaks.add(unit, [row])

        def mixture(ce: torch.Tensor, alpha: float = alpha, beta: float = beta) -> torch.Tensor:
            return alpha * ce - beta * torch.expm1(-ce)

        _write(curves, unit, title, p, gradient_curve(mixture, p))


def _two_class(p: torch.Tensor, curves: Table) -> None:
    """MPCE (eq. 7) isn't a function of ce: with two classes it is 0 once p_y > 1/2."""
    from crossfade.functional import mpce_loss

    inner = p[(p > 0) & (p < 1)]
    curve = criterion_curve(lambda logits, target: mpce_loss(logits, target, reduction="none"), inner)
    _write(curves, "mpce", "MPCE, 2 classes", inner, curve)


def _draw(curves: Table, out: Path, losses: list[str]) -> None:
    fig, axes = figure(2, sharex=True)
    for axis, scale in zip(axes, ("paper", "unit"), strict=True):
        for unit in ("ce", *(f"{scale}-{focus:g}" for focus in FOCUSES)):
            focus = unit.partition("-")[2]
            colour = COLOURS["ce" if unit == "ce" else "el" if focus == "0.5" else f"f{focus}"]
            x, y = _curve(curves, unit)
            label, style = (f"F = {focus}", "-") if focus else ("CE", "--")
            axis.plot(x, y, color=colour, lw=1.6, ls=style, label=label)
        axis.set(title=f"{scale} scale", xlabel="p, the probability of the right class")
    axes[0].set_ylabel("|dL/dq_y|")
    axes[1].legend(frameon=False, fontsize=8)
    save(fig, out / "figure1.svg")
    fig, axis = figure(height=3.2, width=5.2)
    for unit in ("ce", "unit-0", "unit-0.5", *losses, "mpce"):
        x, y = _curve(curves, unit)
        axis.plot(x, y, lw=1.5, label=next(row["loss"] for row in curves.rows if row["unit"] == unit))
    axis.set(xlabel="p, the probability of the right class", ylabel="|dL/dq_y|")
    axis.legend(frameon=False, fontsize=7, loc="upper right")
    save(fig, out / "losses.svg")


def _curve(curves: Table, unit: str) -> tuple[list[float], list[float]]:
    rows = [row for row in curves.rows if row["unit"] == unit]
    return [float(row["p"]) for row in rows], [float(row["gradient"]) for row in rows]
