r"""The gradient of a loss over the probability p_y of the right class (Fig. 1), and the difference of CE and EL.

For a loss g(ce) of the cross entropy ce = -log p_y the chain rule gives::

    |dL/dq_y| = |g'(ce)| (1 - p_y)        |dL/dq_j| = |g'(ce)| p_j   for j != y,

which is eq. (8) for g(ce) = ce, eq. (10) for g(ce) = 1 - p and eq. (13) for their mixture.

CE and EL agree at p = 1. For p in (0, 1] Taylor's theorem there says (eq. 11)::

    -log p = (1 - p) + R(p),      R(p) = (1 - p)^2 / (2 xi^2)   for some xi in [p, 1].

The paper prints the remainder R without the 2. The numbers it quotes (0.055, 4.5) follow from the form *with* the 2.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from crossfade._transforms import Transform, value_and_slope


class Peak(NamedTuple):
    """The probability at which ``|dL/dq_y|`` is largest, and how large it is there."""

    p: float
    height: float


def row_weight(g: Transform, ce: Tensor) -> Tensor:
    """Return g'(ce), detached: the factor by which a loss scales the gradient of CE, at each cross entropy of ``ce``.

    Args:
        g: an elementwise function of ce = -log p_y.
        ce: cross entropies in nats, any shape. ce = inf (p_y = 0) gives the limit where autograd has one.

    Raises:
        ValueError: g's result doesn't have the shape of its argument.

    >>> row_weight(lambda ce: ce - torch.expm1(-ce), torch.tensor([0.0, math.log(2)]))  # 1 + p
    tensor([2.0000, 1.5000])
    """
    return value_and_slope(g, ce.detach())[1]


def gradient_curve(g: Transform, p: Tensor, p_j: Tensor | None = None) -> Tensor:
    """Return ``|dL/dq_y|`` over p = p_y for the loss g(ce); with ``p_j``, ``|dL/dq_j|`` of another class instead.

    Args:
        g: an elementwise function of ce = -log p_y.
        p: probabilities p_y in [0, 1], any shape.
        p_j: probabilities of a class j != y, of p's shape, at most 1 - p. With two classes both curves are the same.

    Raises:
        ValueError: p or p_j isn't a probability, or p + p_j > 1.

    >>> gradient_curve(lambda ce: -torch.expm1(-ce), torch.tensor([0.0, 0.25, 0.5, 1.0]))  # EL: p (1 - p), eq. (10)
    tensor([0.0000, 0.1875, 0.2500, 0.0000])
    """
    _check_probabilities("p", p)
    if p_j is None:
        p_j = 1 - p
    _check_probabilities("p_j", p_j)
    if bool((p_j + p > 1 + 1e-6).any()):
        raise ValueError("p_j must be at most 1 - p: the probabilities of all classes add up to 1")
    size = row_weight(g, -p.log()).abs()
    # p_j = 0 stops the gradient whatever g' is, also where it is infinite: sqrt(ce) at p = 1.
    return torch.where(p_j == 0, torch.zeros_like(size), size * p_j)


def _check_probabilities(name: str, p: Tensor) -> None:
    if not p.is_floating_point() or not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(f"{name} must be a floating tensor of probabilities in [0, 1]")


def criterion_curve(criterion: Callable[[Tensor, Tensor], Tensor], p: Tensor, classes: int = 2) -> Tensor:
    """Return ``|dL/dq_y|`` over p = p_y for *any* criterion, also one that isn't a function of ce, by autograd.

    The other classes share 1 - p equally.

    Args:
        criterion: maps logits (N, C) and class indices (N,) to one loss an example (N,), as with ``reduction="none"``.
        p: probabilities p_y in (0, 1), a vector.
        classes: C.

    Raises:
        ValueError: p touches 0 or 1, where logits are infinite; the criterion doesn't return (N,); or classes < 2.
    """
    if p.ndim != 1 or not bool(((p > 0) & (p < 1)).all()):
        raise ValueError("p must be a vector of probabilities strictly between 0 and 1")
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    others = ((1 - p) / (classes - 1)).log().unsqueeze(1).expand(-1, classes - 1)
    logits = torch.cat([p.log().unsqueeze(1), others], dim=1).detach().requires_grad_()
    target = torch.zeros(len(p), dtype=torch.int64, device=p.device)
    with torch.enable_grad():
        losses = criterion(logits, target)
    if losses.shape != p.shape:
        raise ValueError(f"criterion must return one loss an example, {tuple(p.shape)}, got {tuple(losses.shape)}")
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    return slope[:, 0].abs().detach()


def peak(alpha: float, beta: float) -> Peak:
    """Return the maximum of eq. (13): (1 - p)(alpha + beta p) peaks at p = max(0, (1 - alpha/beta) / 2), eq. (14).

    Its height is (alpha + beta)^2 / (4 beta) for beta >= alpha, and alpha (at p = 0) below.

    Raises:
        ValueError: a negative or non-finite weight, or both zero.

    >>> peak(1.0, 2.0)  # F = 0.25 on the paper's scale
    Peak(p=0.25, height=1.125)
    >>> peak(0.0, 1.0)
    Peak(p=0.5, height=0.25)
    """
    if not (math.isfinite(alpha) and math.isfinite(beta) and alpha >= 0 and beta >= 0 and alpha + beta > 0):
        raise ValueError(f"alpha and beta must be finite, not negative and not both 0, got {alpha!r} and {beta!r}")
    if beta <= alpha:
        return Peak(0.0, alpha)
    return Peak((1 - alpha / beta) / 2, (alpha + beta) ** 2 / (4 * beta))


def numeric_peak(g: Transform, points: int = 200_001) -> Peak:
    """Return the maximum of ``|dL/dq_y|`` for any g on an even grid of p in [0, 1]; the first one where several tie.

    >>> numeric_peak(lambda ce: -torch.expm1(-ce)).p
    0.5
    """
    p = torch.arange(points, dtype=torch.float64) / (points - 1)  # linspace misses 0.5 by a rounding
    curve = gradient_curve(g, p)
    at = int(curve.argmax())
    return Peak(float(p[at]), float(curve[at]))


def remainder(p: Tensor) -> Tensor:
    """Return R(p) = -log p - (1 - p) = CE - EL, to full precision, for p in [0, 1] of any shape; inf at p = 0.

    Raises:
        ValueError: p isn't a floating tensor of probabilities.

    >>> remainder(torch.tensor([0.25, 1.0], dtype=torch.float64))
    tensor([0.6363, 0.0000], dtype=torch.float64)
    """
    _check_probabilities("p", p)
    x = 1 - p
    # Near p = 1 the difference cancels: there the series x^2/2 + x^3/3 + ... has all the digits.
    small = x < 1e-2
    y = torch.where(small, x, torch.zeros_like(x))
    series = torch.zeros_like(x)
    for k in range(9, 1, -1):
        series = series * y + 1.0 / k
    return torch.where(small, series * y * y, -p.log() - x)


def xi(p: Tensor, *, printed: bool = False) -> Tensor:
    """Return the xi that makes Taylor's formula exact: (1 - p) / sqrt(2 R(p)), which lies in [p, 1].

    Args:
        p: probabilities in (0, 1].
        printed: solve the printed formula (1 - p)^2 / xi^2 instead. Its xi is sqrt(2) times as large, and above 1,
            where no xi is allowed, for every p above 0.316.

    >>> bool(xi(torch.tensor(0.9), printed=True) <= 1)
    False
    """
    x = 1 - p
    exact = torch.where(x > 0, x / (2 * remainder(p)).sqrt(), torch.ones_like(p))
    return exact * math.sqrt(2) if printed else exact


def remainder_bounds(low: float, high: float) -> tuple[float, float]:
    """Return the smallest and the largest R over p in [low, high]: R falls as p grows, so they sit at high and low.

    Raises:
        ValueError: not 0 <= low <= high <= 1.

    >>> [round(bound, 4) for bound in remainder_bounds(0.75, 1.0)]
    [0.0, 0.0377]
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"expected 0 <= low <= high <= 1, got {low!r} and {high!r}")
    smallest, largest = remainder(torch.tensor([high, low], dtype=torch.float64)).tolist()
    return smallest, largest


class Claim(NamedTuple):
    """A statement of the paper: the number it quotes, the number measured, whether it holds, and why (not)."""

    text: str
    quoted: str
    measured: str
    holds: bool
    note: str


def check_claims(points: int = 100_001) -> list[Claim]:
    """Return the text's statements around eq. (11), each evaluated in float64 on a grid of ``points`` p in [0, 1]."""
    p = torch.arange(1, points, dtype=torch.float64) / (points - 1)
    r, ce, el = remainder(p), -p.log(), 1 - p
    wrong = p <= 0.25
    largest, smallest = float(r[p >= 0.75].max()), float(r[wrong].min())
    unsolved, reached = float(p[xi(p, printed=True) > 1].min()), float(p[r >= 4.5].max())
    ce_gap, el_gap = float((ce[wrong] - 1).abs().min()), float((el[wrong] - 1).abs().max())
    margins = [float(margin.min()) + 0.0 for margin in (ce - el, 8 * ce - el**2, ce - 2 * el**2)]  # -0.0 + 0.0 is 0.0
    below, weak, pinsker = ((f"smallest margin {margin:.2g}", margin >= 0) for margin in margins)
    found = {
        "form": (f"p < {unsolved:.3f} only", False),
        "right": (f"{largest:.4f}", largest <= 0.055),
        "wrong": (f"{smallest:.4f}", smallest >= 4.5),
        "ce": (f"{ce_gap:.4f}", ce_gap >= 3.5),
        "el": (f"{el_gap:.4f}", el_gap <= 1),
        "below": below,
        "weak": (weak[0], weak[1] and bool((el >= el**2 / 8).all())),
        "pinsker": pinsker,
    }
    stated = tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf-8"))
    return [
        Claim(one["text"], one["quoted"], *found[name], one["note"].format(reached=reached))
        for name, one in stated.items()
    ]
