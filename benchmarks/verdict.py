"""False positives and power of the verdict on one data set: python benchmarks/verdict.py --data-dir DIR

DIR holds the UCI sets. From twelve of them samples of 100 to 10,000 rows are drawn, each a data set of its own, and the
methods are trained on each as ``crossfade compare`` trains them, with cross-validation folds, with random splits and
with fixed test rows, and compared with CE. Known are the differences of

copy   CE once more, with weights and batches of its own: 0, exactly, so that whatever is found is a false positive
mild   CE on training rows of which a fifth have a label drawn at random
strong CE on training rows of which half have a label drawn at random
el     the expectation loss

The truth of the last three is taken to be the mean over all other samples of this size from the same set. verdict.csv
says for each estimator and number of repeats how often a difference is found, how often the interval doesn't hold the
truth, and half its mean width; shared.csv how much of the fits' variance is common to the fits of one sample, the
constant of ``out_of_fold_t``: the variance of the mean between samples that is left after rows and fits; foreseen.csv
what ten repeats say that twenty would detect, over what twenty say.

``--cache`` keeps in a folder what was trained, so that the script goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.comparison import plan
from crossfade.lab.data.split import Split
from crossfade.lab.data.table import TableTask, from_arrays
from crossfade.lab.data.uci import uci_tasks
from crossfade.lab.methods import method
from crossfade.lab.scores import unpack_hits
from crossfade.lab.settings import Settings
from crossfade.lab.train.tables.run import compute
from crossfade.lab.trial import Shape, Trial
from crossfade.stats import compare_repeats, corrected_resampled_t, out_of_fold_t, paired_t
from crossfade.stats.means import MeanTest
from saved import save

ROOT = Path(__file__).parent.parent
SETS = (
    *("adult", "connect-4", "magic", "nursery", "page-blocks", "pendigits", "ringnorm", "spambase", "statlog-landsat"),
    *("thyroid", "waveform", "wine-quality-white"),
)
# Rows of a sample: samples of each set, repeats with folds, the sets that are large enough.
PLAN = {
    100: (12, 20, SETS),
    300: (15, 20, SETS),
    1000: (10, 10, SETS),
    3000: (8, 10, ("adult", "connect-4", "magic", "nursery", "pendigits")),
    10000: (3, 10, ("adult", "connect-4")),
}
RANDOM = 10  # repeats with random splits and on fixed test rows, of which also fewer are looked at
USED = {"folds": (), "random": (3, 5), "fixed": ()}
LARGEST_FIXED = 100
ARMS = ("copy", "mild", "strong", "el")


@dataclass(frozen=True, eq=False)
class Variant:
    """A task with the same splits as another, but with other seeds of training or with noise in the training labels."""

    task: TableTask
    copy: bool = False
    noise: float = 0.0

    @property
    def name(self) -> str:
        return self.task.name

    @cached_property
    def content(self) -> Mapping[str, object]:
        return {**self.task.content, **({"copy": 1} if self.copy else {})}

    @property
    def shape(self) -> Shape:
        return self.task.shape

    def split(self, repeat: int) -> Split:
        split = self.task.split(repeat)
        if not self.noise:
            return split
        rng = np.random.default_rng(repeat)
        drawn = rng.integers(0, split.classes, len(split.y_train))
        labels = np.where(rng.random(len(drawn)) < self.noise, drawn, split.y_train)
        return Split(
            split.x_train, labels, *(one for part in split.parts[1:] for one in part), split.classes, split.test_rows
        )

    def describe(self) -> dict[str, str | int]:
        return self.task.describe()


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a sample's repeats gave: (arms with CE first, repeats) accuracies, (arms, repeats, rows) hits, and sizes."""

    accuracy: NDArray[np.float64]
    hits: NDArray[np.int8]
    n_train: float
    n_test: float


def trained(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    seed: int,
    repeats: int,
    split: str | None,
    test: tuple[NDArray[np.float32], NDArray[np.int64]] | None,
) -> Outcomes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = from_arrays(x, y, name=f"sample {seed}", categorical=["y"], test=test)
        planned = plan([table], Settings.of({"methods": ("ce", "el"), "split": split}), "")
    recipe, task = planned.trials[0].recipe, planned.trials[0].task
    assert isinstance(task, TableTask)
    arms = [
        (task, method("ce")),
        (Variant(task, copy=True), method("ce")),
        (Variant(task, noise=0.2), method("ce")),
        (Variant(task, noise=0.5), method("ce")),
        (task, method("el")),
    ]
    trials = [Trial("verdict", one, how, recipe, repeat) for one, how in arms for repeat in range(repeats)]
    found = [outcome.result for outcome in compute(trials, threads=1)]
    assert all(found)
    results = [result or {} for result in found]
    shape = (len(arms), repeats)
    return Outcomes(
        np.array([result["accuracy"] for result in results]).reshape(shape),
        np.array([unpack_hits(result["hits"]) for result in results]).reshape(*shape, -1),
        float(np.mean([result["n_train"] for result in results])),
        float(np.mean([result["n_test"] for result in results])),
    )


def rows_alone(differences: NDArray[np.float64], own: NDArray[np.int8], other: NDArray[np.int8]) -> MeanTest:
    """Return Student's t over the rows' mean differences, as if all of a row's chance were its own."""
    d = np.where(own >= 0, own.astype(float) - other, np.nan)
    return paired_t(np.nanmean(d[:, (own >= 0).any(0)], axis=0))


def estimates(found: Outcomes, repeats: int, arm: int, design: str) -> Iterator[tuple[str, MeanTest]]:
    """Yield every estimator's answer about an arm."""
    first = slice(0, repeats)
    d = found.accuracy[arm, first] - found.accuracy[0, first]
    own, other = found.hits[arm, first], found.hits[0, first]
    if design == "fixed":
        yield "fixed test rows: Student", paired_t(d)
        yield "fixed test rows: rows and fits", out_of_fold_t(d, own, other)
        return
    name = "corrected repeated k-fold" if design == "folds" else "Nadeau and Bengio"
    yield f"{design}: {name}", corrected_resampled_t(d, found.n_train, found.n_test)
    if design == "folds":
        yield "folds: rows alone", rows_alone(d, own, other)
    yield f"{design}: rows and fits", out_of_fold_t(d, own, other)


@lru_cache(maxsize=1)
def rows_of(name: str, data_dir: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return all rows of a set, and their labels."""
    parts = uci_tasks(data_dir, (name,))[0][0].split(0).parts
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def sample(name: str, size: int, at: int, data_dir: Path, repeats: int, design: str, cache: Path | None) -> Outcomes:
    """Train on one sample, or read what is kept of that; fixed test rows are a quarter as many rows beside it."""
    file = cache / f"{name}-{size}-{at}-{design}.npz" if cache else None
    if file is not None and file.exists():
        kept = np.load(file)
        return Outcomes(kept["accuracy"], kept["hits"], float(kept["n_train"]), float(kept["n_test"]))
    x, y = rows_of(name, data_dir)
    chosen = beside = np.array([], int)
    for again in itertools.count():  # until two classes have the five rows that a class needs
        seed = zlib.crc32(f"{name} {size} {at}{' again' * again}".encode())
        order = np.random.default_rng(seed).permutation(len(y))
        labels, count = np.unique(y[order[:size]], return_counts=True)
        chosen, beside = (
            part[np.isin(y[part], labels[count >= 5])] for part in (order[:size], order[size : size + size // 4])
        )
        if (count >= 5).sum() > 1:
            break
    test = (x[beside], y[beside]) if design == "fixed" else None
    found = trained(x[chosen], y[chosen], at, repeats, None if test else design, test)
    if file is not None:
        np.savez_compressed(file, **vars(found))
    return found


def common(drawn: Sequence[Outcomes], arm: int) -> tuple[float, float]:
    """Return the variance that the fits of a sample have in common, and that by which its fits differ, over samples."""
    rows, fits, means = [], [], []
    for found in drawn:
        own, other = found.hits[arm].astype(float), found.hits[0]
        d = np.where(other >= 0, own - other, np.nan)
        by_row, by_fit = np.nanmean(d, axis=0), np.nanmean(d, axis=1)
        rows.append(by_row.var(ddof=1) / len(by_row))
        fits.append(by_fit.var(ddof=1) - (np.nanvar(d, axis=1, ddof=1) / (other >= 0).sum(1)).mean())
        means.append(by_fit.mean())
    left = np.var(means, ddof=1) - np.mean(rows) - np.mean(fits) / len(d)
    return float(left), float(np.mean(fits))


def foreseen(found: Outcomes, arm: int, most: int) -> float:
    """Return what the first repeats say all would detect, over what all say."""
    first, whole = (
        compare_repeats(
            found.accuracy[arm, :used],
            found.accuracy[0, :used],
            hits=found.hits[arm, :used],
            control_hits=found.hits[0, :used],
            dataset="",
            method="",
            control="",
            n_train=found.n_train,
            n_test=found.n_test,
        )
        for used in (RANDOM, most)
    )
    return (first.detectable_with(most) or np.nan) / (whole.detectable or np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="*", default=list(PLAN))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no sample after so long")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks" / "verdict")
    options = parser.parse_args()
    if options.cache:
        options.cache.mkdir(exist_ok=True)
    started, rows, shared, ratios = time.monotonic(), [], [], []
    for size in options.rows:
        samples, most, names = PLAN[size]
        answers: dict[tuple[str, int, str], list[tuple[float, ...]]] = {}
        for name in names:
            designs = ["folds", "random", *(["fixed"] if size <= LARGEST_FIXED else [])]
            drawn: dict[str, list[Outcomes]] = {design: [] for design in designs}
            for at, design in itertools.product(range(samples), designs):
                if time.monotonic() - started > options.seconds:
                    sys.exit(f"stopped at {size} rows of {name}, sample {at}")
                repeats = most if design == "folds" else RANDOM
                drawn[design].append(sample(name, size, at, options.data_dir, repeats, design, options.cache))
            for (arm, what), design in itertools.product(enumerate(ARMS, 1), designs):
                for used in sorted({*USED[design], RANDOM, most if design == "folds" else RANDOM}):
                    means = [(one.accuracy[arm, :used] - one.accuracy[0, :used]).mean() for one in drawn[design]]
                    for at, one in enumerate(drawn[design]):
                        others = np.delete(means, at)
                        truth = 0.0 if what == "copy" else others.mean() if len(others) > 1 else np.nan
                        for kind, test in estimates(one, used, arm, design):
                            low, high = (test.interval.low, test.interval.high) if test.interval else (np.nan, np.nan)
                            found = float(low > 0 or high < 0)
                            missed = float(not low <= truth <= high) if len(means) > 5 or what == "copy" else np.nan
                            answers.setdefault((kind, used, what), []).append((found, missed, (high - low) / 2, truth))
            if most > RANDOM:
                ratios += [
                    [size, name, foreseen(one, arm, most)] for one in drawn["folds"] for arm in range(1, len(ARMS) + 1)
                ]
            if samples > 5:
                shared += [[size, name, what, *common(drawn["folds"], arm)] for arm, what in enumerate(ARMS, 1)]
            print(f"{size} rows, {name}: {time.monotonic() - started:.0f} s", flush=True)
        for (kind, used, what), found in answers.items():
            found_rate, missed_rate, half, truth = np.round(np.mean(found, axis=0), 4)
            rows.append([size, kind, used, what, len(found), len(names), found_rate, missed_rate, half, truth])
    head = "rows,estimator,repeats,arm,samples,sets,found,missed,half_width,truth"
    tables = {
        "verdict": (head, rows),
        "shared": ("rows,dataset,arm,common,fits", shared),
        "foreseen": ("rows,dataset,ratio", ratios),
    }
    save(options.output, tables)


if __name__ == "__main__":
    main()
