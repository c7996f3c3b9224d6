r"""Gradient curves: how hard a loss pulls on an example, over the probability p_y of its class (Fig. 1).

For a loss g(ce) of the cross entropy ce = -log p_y the chain rule gives

    |dL/dq_y| = |g'(ce)| (1 - p_y)        |dL/dq_j| = |g'(ce)| p_j   for j != y,

which is eq. (8) for g(ce) = ce, eq. (10) for g(ce) = 1 - p and eq. (13) for their mixture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Peak", "criterion_curve", "gradient_curve", "numeric_peak", "peak", "row_weight"]

Transform = Callable[[Tensor], Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]


class Peak(NamedTuple):
    """Where |dL/dq_y| is largest, and how large it is there."""

    p: float
    height: float


def row_weight(g: Transform, ce: Tensor) -> Tensor:
    """g'(ce), the factor by which a loss scales the gradient of CE, for each cross entropy of ``ce``.

    Args:
        g: an elementwise function of ce = -log p_y.
        ce: cross entropies in nats, any shape. ce = inf (p_y = 0) gives the limit where autograd has one.

    Returns:
        A tensor of ce's shape, detached.

    Raises:
        ValueError: g's result doesn't have the shape of its argument.

    >>> row_weight(lambda ce: ce - torch.expm1(-ce), torch.tensor([0.0, math.log(2)]))  # 1 + p
    tensor([2.0000, 1.5000])
    """
    # The largest finite number stands in for inf, where products such as p * ce would be 0 * inf.
    leaf = ce.detach().clamp(max=torch.finfo(ce.dtype).max / 4).requires_grad_()
    with torch.enable_grad():
        value = g(leaf)
    if value.shape != leaf.shape:
        raise ValueError(f"g must be elementwise: expected shape {tuple(leaf.shape)}, got {tuple(value.shape)}")
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return slope.detach()


def _probabilities(p: Tensor) -> Tensor:
    if not p.is_floating_point() or not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError("p must be a floating tensor of probabilities in [0, 1]")
    return p


def gradient_curve(g: Transform, p: Tensor, p_j: Tensor | None = None) -> Tensor:
    """|dL/dq_y| over p = p_y for the loss g(ce); with ``p_j``, |dL/dq_j| of another class instead.

    Args:
        g: an elementwise function of ce = -log p_y.
        p: probabilities p_y in [0, 1], any shape.
        p_j: probabilities of a class j != y, of p's shape, at most 1 - p. With two classes p_j = 1 - p, and both
            curves are the same.

    Raises:
        ValueError: p or p_j isn't a probability, or p + p_j > 1.

    >>> gradient_curve(lambda ce: -torch.expm1(-ce), torch.tensor([0.0, 0.25, 0.5, 1.0]))  # EL: p (1 - p), eq. (10)
    tensor([0.0000, 0.1875, 0.2500, 0.0000])
    """
    p = _probabilities(p)
    if p_j is None:
        p_j = 1 - p
    elif bool((_probabilities(p_j) + p > 1 + 1e-6).any()):
        raise ValueError("p_j must be at most 1 - p: the probabilities of all classes add up to 1")
    size = row_weight(g, -p.log()).abs()
    # p_j = 0 stops the gradient whatever g' is, also where it is infinite: sqrt(ce) at p = 1.
    return torch.where(p_j == 0, torch.zeros_like(size), size * p_j)


def criterion_curve(criterion: Criterion, p: Tensor, classes: int = 2) -> Tensor:
    """|dL/dq_y| over p = p_y for *any* criterion, by autograd through its logits.

    Serves losses that are not a function of ce alone (complement entropy, MPCE). The other classes share 1 - p equally.

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
    target = torch.zeros(len(p), dtype=torch.int64)
    with torch.enable_grad():
        losses = criterion(logits, target)
    if losses.shape != p.shape:
        raise ValueError(f"criterion must return one loss an example, {tuple(p.shape)}, got {tuple(losses.shape)}")
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    return slope[:, 0].abs().detach()


def peak(alpha: float, beta: float) -> Peak:
    """The maximum of eq. (13): (1 - p)(alpha + beta p) peaks at p = max(0, (1 - alpha/beta) / 2), eq. (14).

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
    """The maximum of |dL/dq_y| for any g, on an even grid of p in [0, 1]; the first one where several tie.

    >>> numeric_peak(lambda ce: -torch.expm1(-ce)).p
    0.5
    """
    p = torch.arange(points, dtype=torch.float64) / (points - 1)  # linspace misses 0.5 by a rounding
    curve = gradient_curve(g, p)
    at = int(curve.argmax())
    return Peak(float(p[at]), float(curve[at]))
