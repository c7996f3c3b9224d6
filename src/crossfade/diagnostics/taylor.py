r"""Taylor's remainder of CE around EL (eq. 11), and the bounds that the paper quotes for it, checked.

For p in (0, 1] Taylor's theorem at p = 1 says

    -log p = (1 - p) + R(p),      R(p) = (1 - p)^2 / (2 xi^2)   for some xi in [p, 1].

The paper prints the remainder without the 2. The numbers it quotes (0.055, 4.5) are those of the form *with* the 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Claim", "check_claims", "remainder", "remainder_bounds", "xi"]


def remainder(p: Tensor) -> Tensor:
    """R(p) = -log p - (1 - p) = CE - EL, exactly; inf at p = 0. p in [0, 1], any shape.

    Raises:
        ValueError: p outside [0, 1].

    >>> remainder(torch.tensor([0.25, 1.0], dtype=torch.float64))
    tensor([0.6363, 0.0000], dtype=torch.float64)
    """
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError("p must be probabilities in [0, 1]")
    x = 1 - p
    # Near p = 1 the difference cancels: there the series x^2/2 + x^3/3 + ... has all the digits.
    small = x < 1e-2
    y = torch.where(small, x, torch.zeros_like(x))
    series = torch.zeros_like(x)
    for k in range(9, 1, -1):
        series = series * y + 1.0 / k
    return torch.where(small, series * y * y, -p.log() - x)


def xi(p: Tensor, *, printed: bool = False) -> Tensor:
    """The xi that makes Taylor's formula exact: (1 - p) / sqrt(2 R(p)), which lies in [p, 1].

    Args:
        p: probabilities in (0, 1].
        printed: solve the printed formula (1 - p)^2 / xi^2 instead: sqrt(2) times as large, which leaves [p, 1] where
            p is above 0.316. The printed form has no xi there.

    >>> bool(xi(torch.tensor(0.9), printed=True) <= 1)
    False
    """
    x = 1 - p
    exact = torch.where(x > 0, x / (2 * remainder(p)).sqrt(), torch.ones_like(p))
    return exact * math.sqrt(2) if printed else exact


def remainder_bounds(low: float, high: float) -> tuple[float, float]:
    """The smallest and the largest R over p in [low, high]: R falls as p grows, so they sit at high and low.

    >>> [round(bound, 4) for bound in remainder_bounds(0.75, 1.0)]
    [0.0, 0.0377]
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"expected 0 <= low <= high <= 1, got {low!r} and {high!r}")
    smallest, largest = remainder(torch.tensor([high, low], dtype=torch.float64)).tolist()
    return smallest, largest


class Claim(NamedTuple):
    """A sentence of the paper beside what holds."""

    text: str
    quoted: str
    measured: str
    holds: bool
    note: str


def check_claims(points: int = 100_001) -> list[Claim]:
    """The text's statements around eq. (11), each evaluated on a grid of p in float64."""
    p = torch.arange(1, points, dtype=torch.float64) / (points - 1)
    r, ce, el = remainder(p), -p.log(), 1 - p
    wrong = p <= 0.25
    largest, smallest = float(r[p >= 0.75].max()), float(r[wrong].min())
    beyond, reached = float(p[xi(p, printed=True) > 1].min()), float(p[r >= 4.5].max())
    ce_gap, el_gap = float((ce[wrong] - 1).abs().min()), float((el[wrong] - 1).abs().max())
    el_margin, weak, pinsker = (float(m.min()) for m in (ce - el, 8 * ce - el**2, ce - 2 * el**2))
    tighter = bool((el >= el**2 / 8).all())
    return [
        Claim(
            "eq. (11): the remainder is (1-p)^2 / xi^2 for some xi in [p, 1]", "all p", f"p < {beyond:.3f} only", False,
            "The exact form is (1-p)^2 / (2 xi^2). Without the 2 no xi in [p, 1] solves it above this p.",
        ),
        Claim(
            "3/4 <= p <= 1: the remainder is at most 0.055", "0.055", f"{largest:.4f}", largest <= 0.055,
            "0.0556 is the Lagrange bound with the 2, at xi = p = 3/4. As printed, without it, the bound is 0.111.",
        ),
        Claim(
            "0 <= p <= 1/4: the remainder is at least 4.5", "4.5", f"{smallest:.4f}", smallest >= 4.5,
            f"4.5 is the Lagrange upper bound at p = 1/4. The remainder is at least 4.5 only for p <= {reached:.4f}.",
        ),
        Claim(
            "0 <= p <= 1/4: CE is at least 3.5 from the zero-one loss", "3.5", f"{ce_gap:.4f}", ce_gap >= 3.5,
            "It was taken from the 4.5. At p = 1/4 CE is 1.386.",
        ),
        Claim(
            "0 <= p <= 1/4: EL is 1 - p, at most 1, from the zero-one loss", "1", f"{el_gap:.4f}", el_gap <= 1,
            "The zero-one loss is 1 there, so the distance is p, at most 1/4: the point is stronger than stated.",
        ),
        Claim("1 - p <= -log p", "all p", f"smallest margin {el_margin + 0.0:.2g}", el_margin >= 0, ""),
        Claim(
            "(1-p)^2 <= -8 log p, and 1 - p is the tighter bound", "all p", f"smallest margin {weak + 0.0:.2g}",
            weak >= 0 and tighter,
            "Pinsker's inequality for a one-hot target is 16 times as strong as this form; see the next line.",
        ),
        Claim(
            "Pinsker: 2 (1-p)^2 <= -log p", "not in the paper", f"smallest margin {pinsker + 0.0:.2g}", pinsker >= 0,
            "||onehot - p||_1 = 2 (1-p) and KL = -log p. Against it, 1 - p is the tighter bound only where p > 1/2.",
        ),
    ]  # fmt: skip
