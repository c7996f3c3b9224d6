"""How often intervals for a mean difference over data sets cover the true mean: python benchmarks/intervals.py

Samples of 5 to 120 differences are drawn from known distributions, among them this project's own differences on the UCI
sets (Table 4, momentum 0.9, repeats averaged), drawn with replacement. For each interval at 95 %: the share of samples
whose interval covers the true mean, the shares that lie above and below it, and the median width over Student's.

``wilcoxon`` is the interval that inverts the signed-rank test. It estimates the pseudo-median, which is another number
where the differences are skewed, and is scored by how often it covers that. The bootstraps draw 999 resamples, the same
ones for 200 samples at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from saved import save

Floats = NDArray[np.float64]
ROOT = Path(__file__).parent.parent
SIZES = (5, 6, 8, 10, 15, 20, 40, 80, 120)
LEVEL, RESAMPLES, BLOCK = 0.95, 999, 200
ENDS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


class Population(NamedTuple):
    """What draws samples, its true mean, and its pseudo-median: the median of the mean of two draws."""

    draw: Callable[[np.random.Generator, tuple[int, int]], Floats]
    mean: float
    middle: float


def populations() -> dict[str, Population]:
    """Return the distributions by their names."""
    found = {}
    for name, law in {
        "normal": stats.norm(),
        "Student t, 3 degrees of freedom": stats.t(3),
        "exponential": stats.expon(),
        "log-normal": stats.lognorm(1),
    }.items():
        pairs = law.rvs((2, 4_000_000), random_state=0).mean(0)
        found[name] = Population(
            lambda rng, shape, law=law: law.rvs(shape, random_state=rng), law.mean(), np.median(pairs)
        )
    frame = pd.read_parquet(ROOT / "results" / "table4" / "results.parquet")
    mean = frame[frame["momentum"] == 0.9].groupby(["net", "method", "dataset"])["accuracy"].mean()
    for net in ("linear", "mlp"):
        for method in ("gradual", "f0", "focal", "el"):
            own = (mean[net, method] - mean[net, "ce"]).to_numpy()
            middle = np.median(np.add.outer(own, own) / 2)
            found[f"{method} − CE, {net}"] = Population(
                lambda rng, shape, own=own: rng.choice(own, shape), own.mean(), middle
            )
    return found


def walsh(x: Floats) -> Floats:
    """Return the sorted means of all pairs in each row, a value with itself included."""
    first, second = np.triu_indices(x.shape[1])
    return np.sort((x[:, first] + x[:, second]) / 2, axis=1)


def intervals(x: Floats, rng: np.random.Generator) -> dict[str, Floats]:
    """Return (samples, 2) for each kind of interval."""
    n, mean, s = x.shape[1], x.mean(1, keepdims=True), x.std(1, ddof=1, keepdims=True)
    centred, error = x - mean, s / np.sqrt(n)
    times = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)  # how often each value is drawn
    off = centred @ times.T / n
    errors = np.sqrt(np.maximum(centred**2 @ times.T / n - off**2, 0) / (n - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(errors > 1e-9 * error, off / errors, np.where(off == 0, 0, np.copysign(np.inf, off)))
        z0 = stats.norm.ppf((off < 0).mean(1) + (off == 0).mean(1) / 2)[:, None]
        a = (centred**3).sum(1, keepdims=True) / (6 * (centred**2).sum(1, keepdims=True) ** 1.5)
        z = stats.norm.ppf(ENDS)
        places = np.nan_to_num(stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))) * (RESAMPLES - 1)
    ordered = np.sort(off, axis=1)
    bca = mean + np.take_along_axis(ordered, np.rint(places).astype(int), 1)
    low, high = (
        np.quantile(t, end, axis=1, method=way)[:, None] for end, way in zip(ENDS, ("lower", "higher"), strict=True)
    )
    size = np.quantile(np.abs(t), LEVEL, axis=1, method="higher")[:, None]
    student = stats.t.ppf(ENDS[1], n - 1)
    pairs = walsh(x)
    depth = n * (n + 1) / 4 + stats.norm.ppf(ENDS[0]) * np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    inner = max(0, int(np.rint(depth)) - 1)
    return {
        "Student": np.hstack([mean - student * error, mean + student * error]),
        "percentile": mean + np.quantile(off, ENDS, axis=1).T,
        "BCa": bca,
        "bootstrap-t": np.hstack([mean - high * error, mean - low * error]),
        "symmetric bootstrap-t": np.hstack([mean - size * error, mean + size * error]),
        "wilcoxon": np.stack([pairs[:, inner], pairs[:, -1 - inner]], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks" / "intervals")
    options = parser.parse_args()
    rows = []
    for number, (name, population) in enumerate(populations().items()):
        for n in SIZES:
            rng = np.random.default_rng([number, n])
            parts = [intervals(population.draw(rng, (BLOCK, n)), rng) for _ in range(options.samples // BLOCK)]
            found = {kind: np.vstack([part[kind] for part in parts]) for kind in parts[0]}
            usual = np.median(np.ptp(found["Student"], axis=1))
            for kind, ends in found.items():
                sought = population.middle if kind == "wilcoxon" else population.mean
                above, below = (ends[:, 0] > sought).mean(), (ends[:, 1] < sought).mean()
                width = np.median(np.ptp(ends, axis=1)) / usual
                rows.append([name, n, kind, round(1 - above - below, 4), above, below, round(width, 3)])
    head = "distribution,n,interval,covered,above,below,width"
    save(options.output, {"coverage": (head, rows)}, samples=options.samples)


if __name__ == "__main__":
    main()
