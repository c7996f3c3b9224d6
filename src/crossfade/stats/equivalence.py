"""Practical equivalence: how probable it is that a true difference is too small to matter (Benavoli et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from crossfade.errors import UserError
from crossfade.stats.ranking import Floats

_SAMPLES, _SEED = 20_000, 0
_PRIOR = 0.5  # weight of the prior's one observation, a difference of zero; that of a data set is 1


@dataclass(frozen=True)
class Equivalence:
    """Probabilities that the true difference is below -region, within the region, and above it; they add up to 1."""

    region: float
    worse: float
    equivalent: float
    better: float


def equivalence_of_mean(mean: float, standard_error: float, df: float, region: float) -> Equivalence:
    """Return the Bayesian counterpart of a t-test with a region of practical equivalence (Corani and Benavoli 2015).

    With a flat prior the true mean difference is Student's t with ``df`` degrees of freedom about ``mean``, scaled by
    ``standard_error``. With the corrected variance of Nadeau and Bengio this is the correlated Bayesian t-test; the
    variance of any other interval serves as well.

    Raises:
        UserError: a region that isn't a positive number, or a standard error below zero.
    """
    _check(region)
    if standard_error < 0:
        raise UserError(f"standard_error must not be negative, got {standard_error}")
    if standard_error == 0:
        worse, better = float(mean < -region), float(mean > region)
    else:
        worse = float(stats.t.cdf((-region - mean) / standard_error, df))
        better = float(stats.t.sf((region - mean) / standard_error, df))
    return Equivalence(region, worse, max(0.0, 1.0 - worse - better), better)


def equivalence_over_datasets(differences: npt.ArrayLike, region: float) -> Equivalence:
    r"""Return the Bayesian signed-rank test with a region of practical equivalence (Benavoli et al. 2014).

    The distribution of differences is a Dirichlet process: data set i has the weight w_i, the prior's observation, 0,
    the weight w_0, and w ~ Dirichlet(1/2, 1, ..., 1). For one w the three regions hold::

        above: sum_ij w_i w_j [d_i + d_j > 2 region]     below: sum_ij w_i w_j [d_i + d_j < -2 region]     within: the rest

    The result is how often each of them is the largest among 20,000 draws with a fixed seed (equals share a draw).

    Raises:
        UserError: no difference, one that is not finite, or a region that isn't a positive number.
    """  # noqa: E501
    _check(region)
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or d.size == 0 or not np.isfinite(d).all():
        raise UserError("differences must be one or more finite numbers, one a data set")
    d = np.concatenate([[0.0], np.sort(d)])  # sorted: the answer doesn't depend on the order of the data sets
    sums = d[:, None] + d
    weights = np.random.default_rng(_SEED).dirichlet([_PRIOR, *np.ones(len(d) - 1)], _SAMPLES)
    below, above = (_mass(weights, part) for part in (sums < -2 * region, sums > 2 * region))
    shares = np.stack([below, 1.0 - below - above, above])
    largest = shares >= shares.max(0) - 1e-12
    worse, equivalent, better = (largest / largest.sum(0)).mean(1).tolist()
    return Equivalence(region, worse, equivalent, better)


def _mass(weights: Floats, pairs: npt.NDArray[np.bool_]) -> Floats:
    """Return sum_ij w_i w_j [pair i, j] of each draw."""
    return np.asarray(((weights @ pairs) * weights).sum(1), dtype=np.float64)


def _check(region: float) -> None:
    if not 0 < region < float("inf"):
        raise UserError(f"the region of practical equivalence must be a number above 0, got {region}")
