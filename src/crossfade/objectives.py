r"""Objectives: the loss of an example, or token, as a function of its cross entropy ce = -log p and of its row.

Each function here returns a g for :func:`crossfade.probability_loss`, ``linear_crossfade_loss(g=...)``,
:class:`crossfade.lab.methods.Method` and trainers. The gradient with respect to the logits is that of the cross entropy
times one number a row, the *row weight* g'(ce):

>>> import crossfade
>>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
>>> round(crossfade.probability_loss(deft(), logits, target).item(), 4)
0.1208

A g of your own is a function of ce, or of ce and a :class:`Row`, which offers the entropy, the sum of squares and the
maximum of the softmax; :func:`weighted` makes one of its row weight. Parameters are numbers, or tensors with one
element. Values and derivatives are right at p = 0, too, where ce is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor

from crossfade._row import Row as Row
from crossfade._transforms import (
    P_IS_ZERO,
    Focal,
    Function,
    Mixture,
    Transform,
    check_number,
    check_parameter,
    evaluate,
    finite,
    one_minus_exp,
    power_of,
    takes_row,
)

__all__ = [
    "Row",
    "cayley",
    "deft",
    "dft",
    "entropy_gated",
    "expectation",
    "floored",
    "focal",
    "inverse_focal",
    "logarithmic",
    "mae",
    "mixture",
    "poly",
    "power",
    "shifted",
    "tamed",
    "thresholded",
    "truncated",
    "weighted",
]

Number = float | Tensor


@overload
def weighted(w: Function) -> Function: ...
@overload
def weighted(w: Callable[[Tensor, Row], Tensor]) -> Transform: ...


def weighted(w: Transform) -> Transform:
    """Return the loss whose row weight is w(ce) or w(ce, row): its value is w ce, with w as a constant.

    So DFT, EAFT and others define theirs. Such a value isn't the one that its gradient descends: for p ce that is
    1 - p, which ``expectation_loss`` reports.

    Args:
        w: an elementwise function of ce >= 0, or of ce and the row's statistics, a :class:`Row`.

    >>> from crossfade import probability_loss
    >>> dft = weighted(lambda ce: torch.exp(-ce))
    >>> round(probability_loss(dft, torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
    0.1118
    """

    def g(ce: Tensor, *row: Row) -> Tensor:
        weight = evaluate(w, ce.detach(), *row).detach()
        return weight * ce.masked_fill(weight == 0, 0.0)  # also where ce is inf

    return (lambda ce, row: g(ce, row)) if takes_row(w) else g


def mixture(alpha: Number = 1.0, beta: Number = 1.0) -> Function:
    """Return alpha ce + beta (1 - p), eq. (12): CE fading into EL. Row weight alpha + beta p."""
    return Mixture(alpha, beta)


def expectation() -> Function:
    """Return 1 - p, the expected zero-one loss, eq. (9). Row weight p: DFT (arXiv 2508.05629) with its true value."""
    return Mixture(0.0, 1.0)


def dft() -> Function:
    """Return p ce with p as a constant: dynamic fine-tuning (arXiv 2508.05629) as it is reported. Row weight p."""
    return weighted(_p)


def mae() -> Function:
    """Return 2 (1 - p) = ||onehot - p||_1, eq. (3). Row weight 2 p."""
    return Mixture(0.0, 2.0)


def poly(epsilon: Number = 1.0) -> Function:
    """Return ce + epsilon (1 - p), Poly-1 (Leng et al. 2022). Row weight 1 + epsilon p."""
    return Mixture(1.0, epsilon)


def power(q: Number = 0.5) -> Function:
    """Return (1 - p^q) / q (Zhang and Sabuncu 2018; arXiv 2510.00526): ce at q = 0, EL at q = 1. Row weight p^q.

    q = 1/2 is 2 (1 - sqrt p).
    """
    check_parameter(
        "q", q, "a finite number >= 0 (0 is the cross entropy, 1 the expectation loss)", lambda x: 0 <= x < math.inf
    )
    if isinstance(q, Tensor):
        return lambda ce: torch.where(q == 0, ce, _deformed(ce, q.masked_fill(q == 0, 1.0)))
    return (lambda ce: _deformed(ce, q)) if q else Mixture(1.0, 0.0)


def truncated(q: Number = 0.7, k: Number = 0.5) -> Function:
    """Return (1 - p^q) / q where p > k and the constant (1 - k^q) / q elsewhere (Zhang and Sabuncu 2018)."""
    untruncated = power(q)
    check_parameter("k", k, "in (0, 1), a probability", lambda x: 0.0 < x < 1.0)

    def g(ce: Tensor) -> Tensor:
        threshold: float | Tensor
        cap: float | Tensor
        if torch.compiler.is_compiling() or isinstance(q, Tensor) or isinstance(k, Tensor):  # as in power_of
            threshold = -(ce.new_zeros(()) + k).log()
            cap = untruncated(threshold)
        else:
            threshold = -math.log(k)
            cap = (1.0 - k**q) / q if q else threshold
        return torch.where(ce >= threshold, cap, untruncated(ce))  # in this order a NaN stays one

    return g


def thresholded(k: Number = 0.1) -> Function:
    """Return 1 - p where p >= k and 0 elsewhere (arXiv 2510.00526). Row weight p where p >= k.

    The authors take a quantile of the training tokens' p under the untrained model for k, such as
    ``stats.p[stats.valid].quantile(0.1)`` of the losses' statistics, and average over the tokens with p >= k alone.
    """
    check_parameter("k", k, "in [0, 1], a probability", lambda x: 0.0 <= x <= 1.0)
    return lambda ce: torch.where(torch.exp(-ce) >= k, one_minus_exp(-ce), 0.0 * one_minus_exp(-ce))


def floored(least: Number = 0.1) -> Function:
    """Return max(p, least) ce with p as a constant: DFT that learns where p is small, too. Row weight max(p, least)."""
    check_parameter("least", least, "in [0, 1], a probability", lambda x: 0.0 <= x <= 1.0)
    return weighted(lambda ce: _p(ce).clamp(min=least))


def logarithmic(c: Number = 1.0) -> Function:
    """Return log(1 + c ce) / c, which grows slower than ce but without bound. Row weight 1 / (1 + c ce)."""
    check_parameter("c", c, "a positive number (c -> 0 is the cross entropy)", lambda x: 0 < x < math.inf)
    return lambda ce: torch.log1p(c * ce) / c


def tamed(alpha: Number = 0.5) -> Function:
    """Return ((1 + ce)^(1 - alpha) - 1 / (1 - alpha)) / (1 - alpha), eq. (4) as printed. Row weight (1 + ce)^-alpha."""
    finite("alpha", alpha)
    if not isinstance(alpha, Tensor) and alpha == 1.0:
        raise ValueError("alpha must not be 1: eq. (4) divides by 1 - alpha; take a value such as 0.99")
    exponent = 1.0 - alpha
    return lambda ce: (power_of(1.0 + ce, exponent) - 1.0 / exponent) / exponent


def shifted(focus: Number = 0.25) -> Function:
    """Return (1 - p) / (1 + (kappa - 1) p), kappa = (1 - F) / F: EL with the logit of p moved by log kappa.

    Row weight kappa p / (1 + (kappa - 1) p)^2. Its gradient has EL's height, 1/4, at p = F. F = 1/2 is EL.
    """
    check_parameter("focus", focus, "in (0, 1), the p of the largest gradient", lambda x: 0.0 < x < 1.0)
    kappa = (1.0 - focus) / focus
    return lambda ce: one_minus_exp(-ce) / (1.0 + (kappa - 1.0) * torch.exp(-ce))


def deft() -> Transform:
    """Return (1 - p^a) / a with the constant a = sum_c p_c^2 (arXiv 2602.11424): CE where unsure. Row weight p^a."""
    return lambda ce, row: _deformed(ce, row.collision)


def cayley(floor: Number = 0.0) -> Function:
    """Return (1 - p^a) / a, a = floor + (1 - floor) p / (2 - p), as a constant (arXiv 2602.11424). Row weight p^a.

    a = (1 - r) / (1 + r) is the Cayley transform of r = 1 - p. The authors' code takes half of the batch's mean p for
    the floor, and 0.001 as the least a.
    """
    check_parameter("floor", floor, "in [0, 1]", lambda x: 0.0 <= x <= 1.0)

    def g(ce: Tensor) -> Tensor:
        p = _p(ce.detach())
        return _deformed(ce, (floor + (1.0 - floor) * p / (2.0 - p)).clamp(min=1e-3))

    return g


def entropy_gated(exponent: Number = 1.0, classes: int = 20) -> Transform:
    """Return (H / log(classes))^exponent ce with the entropy H of p as a constant, at most ce (arXiv 2601.02151).

    EAFT: where the model is sure, right or wrong, it learns nothing. The authors take the entropy of the 20 likeliest
    classes for H, as an approximation that isn't needed here.
    """
    check_parameter("exponent", exponent, "a finite number >= 0", lambda x: 0 <= x < math.inf)
    check_number("classes", classes, "a number > 1", lambda x: 1 < x < math.inf)
    most = math.log(classes)
    return weighted(lambda ce, row: power_of((row.entropy / most).clamp(max=1.0), exponent))


def focal(gamma: Number = 2.0, alpha: Number = 0.25) -> Function:
    """Return alpha (1 - p)^gamma ce, eq. (2) with Lin et al.'s factor alpha."""
    return Focal(alpha, gamma)


def inverse_focal(gamma: Number = 1.0) -> Function:
    """Return (1 + p)^gamma ce, focal loss reversed (Wang et al. 2021). Row weight (1 + p)^(gamma-1) (1+p - gamma p ce).

    It is negative around p = 1/e for gamma > 3.7.
    """
    check_parameter("gamma", gamma, "a finite number >= 0", lambda x: 0 <= x < math.inf)
    return lambda ce: power_of(1.0 + torch.exp(-ce.clamp(max=P_IS_ZERO)), gamma) * ce


def _p(ce: Tensor) -> Tensor:
    return torch.exp(-ce)


def _deformed(ce: Tensor, q: Number) -> Tensor:
    """Return (1 - p^q) / q, minus Tsallis' logarithm of p, whose derivative by ce is p^q. q isn't 0."""
    return one_minus_exp(-q * ce) / q
