"""The temperature that calibrates a trained classifier without changing its answers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from crossfade._tensors import check_range

_FLAT, _SHARP = 1e-2, 1e4  # the largest gap between logits, divided by the temperature, at the ends of the search
# The temperature where no row is wrong. Measured on small tables: with smaller ones the few mistakes on test rows cost
# more than is won.
_NO_MISTAKE = 0.5


class Temperature(NamedTuple):
    """A temperature.

    Attributes:
        value: What logits are divided by: above 1 it lowers the confidence, below 1 it raises it.
        bounded: Whether NLL has no minimum. Where the right class has the largest logit in all rows, it falls to 0 as T
            does: the value is then 1/2, and no logit more than doubled. Where the logits are worse than a guess, NLL is
            least for equal probabilities: the value then makes them equal to within a percent.
    """

    value: float
    bounded: bool


def fit_temperature(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Temperature:
    """Return the T with the least mean NLL of softmax(logits / T) on validation examples (Guo et al. 2017).

    NLL is convex in 1/T: SciPy's ``brentq`` finds the zero of its derivative, E_p[z] - z_y, in float64.

    Args:
        logits: (N, C) of examples that the network wasn't trained on.
        target: (N,) class indices.
        weight: (N,) of the examples; None for equal ones.

    Raises:
        ValueError: shapes that don't fit, no example, a target that isn't a class, such as an ignored one, logits that
            aren't finite, or a weight that is negative or not finite, or no weight above 0.

    >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    >>> found = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))  # p = 3/4
    >>> round(found.value, 3), round(4 / math.log(3), 3)
    (3.641, 3.641)
    """
    from scipy.optimize import brentq

    if logits.ndim != 2 or target.shape != logits.shape[:1] or not len(target):
        raise ValueError(f"expected logits (N, C) and target (N,), got {tuple(logits.shape)} and {tuple(target.shape)}")
    check_range("target", target, logits.shape[1], ValueError)
    z, target = logits.detach().cpu().double(), target.cpu()
    share = torch.ones(len(z), dtype=torch.float64) if weight is None else weight.detach().cpu().double()
    if share.shape != target.shape or not bool((share >= 0).all()) or not 0 < float(share.sum()) < math.inf:
        raise ValueError("weight must be (N,) finite numbers, at least 0 and not all 0")
    gaps = z - z.gather(1, target.unsqueeze(1))
    widest = float(gaps.abs().max())
    if not math.isfinite(widest):
        raise ValueError("expected finite logits, got infinity or NaN")

    def slope(cold: float) -> float:
        """Return the derivative of the sum of NLL with respect to 1/T = exp(cold)."""
        return float(share @ ((gaps * math.exp(cold)).softmax(1) * gaps).sum(1))

    if widest == 0 or slope(math.log(_SHARP / widest)) <= 0:
        return Temperature(_NO_MISTAKE if widest else 1.0, True)
    if slope(math.log(_FLAT / widest)) >= 0:
        return Temperature(widest / _FLAT, True)
    return Temperature(math.exp(-brentq(slope, math.log(_FLAT / widest), math.log(_SHARP / widest))), False)
