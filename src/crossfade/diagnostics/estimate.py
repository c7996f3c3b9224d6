"""A number with its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Estimate", "mean"]


class Estimate(NamedTuple):
    """The mean of independent unbiased probes, and the standard error of that mean.

    The error is the sample standard deviation over sqrt(probes): NaN for one probe, 0 for a quantity without chance.
    """

    value: float
    se: float
    probes: int

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.se:.2g}"


def mean(samples: Sequence[float]) -> Estimate:
    """The estimate of independent probes."""
    n = len(samples)
    value = math.fsum(samples) / n
    if n == 1:
        return Estimate(value, math.nan, 1)
    variance = math.fsum((x - value) ** 2 for x in samples) / (n - 1)
    return Estimate(value, math.sqrt(variance / n), n)
