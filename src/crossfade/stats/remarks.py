"""What a reader must know before believing a comparison: what the intervals cover, and reasons for care."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crossfade.stats.evidence import AcrossComparison, PairedComparison
from crossfade.stats.shape import listed
from crossfade.stats.wording import percent, points

# A method whose mean calibration error is this much above the control's is named, whatever its accuracy.
WORSE_CALIBRATION = 0.01


def notes(paired: tuple[PairedComparison, ...], across: tuple[AcrossComparison, ...]) -> tuple[str, ...]:
    """What the intervals and p-values of a comparison cover."""
    fresh = list(dict.fromkeys(c.dataset for c in paired if c.interval and not c.fixed_test))
    fixed = list(dict.fromkeys(c.dataset for c in paired if c.interval and c.fixed_test))
    level = percent(1 - paired[0].confidence)
    found: list[str] = []
    if fresh:
        found.append(
            f"Intervals within a data set ({listed(fresh)}): corrected resampled t (Nadeau and Bengio 2003). They "
            "cover another draw of training and test rows of these sizes, and allow (approximately) for shared rows."
        )
    if fixed:
        found.append(
            f"Intervals on fixed test rows ({listed(fixed)}): Student t over repeats. They cover training randomness "
            "only, on exactly these test rows; another test set could give another answer."
        )
    if paired[0].comparisons > 1:
        found.append(
            f"Each interval is for one comparison by itself; a difference within a data set is called reliable where "
            f"Holm's p over all {paired[0].comparisons} comparisons is at most {level}."
        )
    if across:
        first = across[0]
        kind = next((c.interval.kind for c in across if c.interval and any(c.differences)), "Student t")
        found.append(
            f"Over data sets: {kind} interval for the mean of {first.datasets} mean differences; Wilcoxon signed-rank "
            f"test, Holm over {first.comparisons}. They speak of data sets like these, if these are a fair sample."
        )
    return tuple(found)


def remarks(paired: tuple[PairedComparison, ...], ece: Mapping[str, float | None], control: str) -> Iterator[str]:
    """Reasons for care: test sets so small that a row outweighs the difference, and worse calibration."""
    small: dict[str, list[PairedComparison]] = {}
    for c in paired:
        if 0 < abs(c.mean) < 1 / c.n_test:
            small.setdefault(c.dataset, []).append(c)
    if len(small) > 4:
        yield (
            f"On {len(small)} of {len({c.dataset for c in paired})} data sets ({listed(small)}) some difference is "
            "smaller than what one test row is worth."
        )
    else:
        for dataset, found in small.items():
            shown = listed(f"{c.method} {points(c.mean, 2)}" for c in found)
            worth = points(1 / found[0].n_test, 2, signed=False)
            yield (
                f"{dataset}: one of its {found[0].n_test:g} test rows is worth {worth} points, more than the "
                f"difference found for {shown}."
            )
    base = ece.get(control)
    for name, value in ece.items():
        if value is not None and base is not None and value - base >= WORSE_CALIBRATION:
            yield (
                f"{name}: calibration error {points(value, signed=False)} points against {points(base, signed=False)} "
                f"of {control}: its probabilities say less about how often it is right (means, not tested)."
            )
