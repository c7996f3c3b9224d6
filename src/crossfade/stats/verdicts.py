"""Verdicts, notes and cautions in plain words, never saying more than the numbers carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import TYPE_CHECKING

from crossfade.stats.evidence import AcrossComparison, Outcome, PairedComparison
from crossfade.stats.significance import adjust_p
from crossfade.stats.words import count, level, listed, p_value, percent, points, points_range, region_points

if TYPE_CHECKING:
    from crossfade.stats.compare import Comparison, Row

# A method whose mean calibration error is this much above the control's is named, whatever its accuracy.
_WORSE_CALIBRATION = 0.01
_OPEN = ("no reliable difference", "one repeat", "no spread")  # outcomes that more results might decide
# What an outcome says of some methods, the most telling first.
_HEADLINES: dict[Outcome, str] = {
    "better": "Reliably higher {metric} than {control}{place}: {names}.",
    "worse": "Reliably lower {metric} than {control}{place}: {names}.",
    "no reliable difference": "No reliable difference from {control} in {metric}: {names}.",
    "practically equivalent": "Practically equivalent to {control}, within {region} points: {names}.",
    "identical": "Identical to {control}: {names}.",
    "one repeat": "One repeat carries no interval, so nothing follows: {names}.",
    "no spread": "The same difference from {control} in every repeat, so no interval: {names}.",
    "too few data sets": "{datasets} are too few to conclude anything beyond them.",
    "mixed": "Mixed evidence against {control}: {names}.",
}
# What intervals within a data set cover, by ``by_rows`` and ``fixed_test`` of a comparison.
_COVERED = {
    (True, False): "Intervals within a data set ({names}): t with a variance for rows and one for fits, from what "
    "happened to every row that was tested. They cover another draw of rows, training parts and weights.",
    (True, True): "Intervals on fixed test rows ({names}): t with a variance for rows and one for fits. They cover "
    "other test rows like these, taken as independent, and training randomness.",
    (False, False): "Intervals within a data set ({names}): corrected resampled t (Nadeau and Bengio 2003). They "
    "cover another draw of training and test rows of these sizes, and allow (approximately) for shared rows.",
    (False, True): "Intervals on fixed test rows ({names}): Student t over repeats. They cover training randomness "
    "only, on exactly these test rows; another test set could give another answer.",
}


@dataclass(frozen=True)
class Verdict:
    """One sentence about one method; ``dataset`` is ``None`` where it speaks of all data sets together."""

    dataset: str | None
    method: str
    outcome: Outcome
    text: str


def verdict(comparison: PairedComparison | AcrossComparison, metric: str = "accuracy") -> Verdict:
    """Say in one sentence what a comparison shows, and what it does not.

    Args:
        comparison: from `compare_repeats`, `compare_datasets` or `compare_methods`.
        metric: the name of the score.

    Example:
        >>> from crossfade.stats import compare_repeats
        >>> comparison = compare_repeats(
        ...     [0.91, 0.93, 0.92, 0.94], [0.91, 0.92, 0.93, 0.92],
        ...     dataset="iris", method="gradual", control="ce", n_train=90, n_test=30)
        >>> print(verdict(comparison).text)
        On iris, gradual changes accuracy by +0.5 points against ce (95 % −2.6 to +3.6): no reliable difference at 4 repeats.
    """  # noqa: E501
    if isinstance(comparison, AcrossComparison):
        return Verdict(None, comparison.method, comparison.outcome, _across(comparison, metric))
    return Verdict(comparison.dataset, comparison.method, comparison.outcome, _within(comparison, metric))


def headline(comparison: Comparison) -> str:
    """Return what was found about all methods together, no stronger than the verdicts that it sums up."""
    control, metric, verdicts = comparison.control, comparison.metric, comparison.headlines
    first, several = comparison.paired[0], len(comparison.datasets) > 1
    outcomes = {one.outcome for one in verdicts}
    names = {kind: listed((one.method for one in verdicts if one.outcome == kind), 12) for kind in outcomes}
    words = {
        "control": control,
        "metric": metric,
        "datasets": count(len(comparison.datasets), "data set"),
        "region": region_points(comparison.equivalent or 0.0),
        "place": f" on these {first.n_test:g} test rows" if first.training_only and not several else "",
    }
    parts = [line.format(names=names[kind], **words) for kind, line in _HEADLINES.items() if kind in outcomes]
    if len(verdicts) > 1 and outcomes == {"no reliable difference"}:
        parts = [f"None of the {len(verdicts)} other losses differs reliably from {control} in {metric}."]
    if several:
        single = [c.outcome for c in comparison.paired]
        kinds = {"better": "reliable gain", "worse": "reliable loss", "practically equivalent": "practical equivalence"}
        counts = ", ".join(count(single.count(kind), noun) for kind, noun in kinds.items() if kind in single)
        none = f"On no data set by itself does a loss differ reliably from {control}."
        parts.append(f"Data set by data set: {counts} in {count(len(single), 'comparison')}." if counts else none)
    return " ".join(parts)


def advice(comparison: Comparison) -> str:
    """Return what to do next: the repeats or data sets that would decide what is open, or what the answer allows."""
    names = {verdict.method for verdict in comparison.headlines}  # the others are no findings of their own
    paired = [c for c in comparison.paired if c.method in names]
    across = [c for c in comparison.across if c.method in names]
    overall = across or paired
    best = max((c for c in overall if c.outcome == "better"), key=lambda c: c.mean, default=None)
    parts = []
    if isinstance(best, PairedComparison) and best.training_only:
        parts.append(f"Try {best.method} on other test rows: the interval covers training randomness only.")
    elif best:
        parts.append(f"{best.method} may replace {best.control} here.")
    if across and across[0].outcome == "too few data sets":
        least = 1 + ceil(log2(across[0].comparisons / (1 - across[0].confidence)))
        parts.append(f"At least {least} data sets are needed for a conclusion beyond them.")
    if found := [c.detectable_with(2 * c.datasets) for c in across if c.outcome in _OPEN]:
        size = max(filter(None, found), default=1.0)
        parts += [f"{2 * across[0].datasets} data sets would find a mean difference of {percent(size, 1)} points."]
    elif undecided := [c for c in paired if c.outcome in _OPEN]:
        parts.append(_repeats(undecided))
    if not parts:
        parts = [f"Stay with {overall[0].control}: nothing here is better."]
    return " ".join(parts)


def _repeats(undecided: Sequence[PairedComparison]) -> str:
    """Return which differences more repeats, or twice the rows, would find."""
    repeats = max(c.repeats for c in undecided)
    more = max(10, 2 * repeats)
    now, then = _detectable(undecided, repeats), _detectable(undecided, more)
    if not then:
        return f"{more} repeats would give intervals to judge by."
    if not now:
        return f"{more} repeats would find a difference of {_sizes(then)} points."
    rows = "" if undecided[0].training_only else f"twice the rows would find {_sizes([size / 2**0.5 for size in now])}"
    if rows and sum(then) / len(then) > 0.95 * sum(now) / len(now):
        return f"More repeats would change little: {repeats} find a difference of {_sizes(now)} points, {rows}."
    text = f"{more} repeats would find a difference of {_sizes(then)} points (these {repeats} one of {_sizes(now)})"
    return f"{text}, {rows}." if rows else f"{text}."


def _detectable(comparisons: Sequence[PairedComparison], repeats: int) -> list[float]:
    """Return the true differences below 100 points that so many repeats would find, where there is a spread."""
    return [size for c in comparisons if (size := c.detectable_with(repeats)) and size < 1]


def _sizes(sizes: Sequence[float]) -> str:
    ends = dict.fromkeys(percent(end, 1) for end in (min(sizes), max(sizes)))
    return " to ".join(ends)


def dataset_line(comparisons: Sequence[PairedComparison]) -> str:
    """Say in one line about one data set what is reliable there, or what difference could have been seen."""
    first = comparisons[0]
    rows = f", on the same {first.n_test:g} test rows" if first.fixed_test else ""
    head = f"{first.dataset} ({count(first.repeats, 'repeat')}{rows}): "
    if first.repeats == 1:
        shown = listed(f"{c.method} {points(c.mean, 1)}" for c in comparisons)
        return f"{head}{shown} points; one repeat carries no interval."
    firm = [c for c in comparisons if c.outcome in ("better", "worse")]
    if not firm:
        return f"{head}no reliable difference for any method{_power(comparisons)}."
    found = listed(f"{c.method} {points(c.mean, _digits(c))} points{_span(c)}" for c in firm)
    rest = listed(c.method for c in comparisons if c not in firm)
    return f"{head}reliable: {found}" + (f"; not: {rest}." if rest else ".")


def notes(paired: tuple[PairedComparison, ...], across: tuple[AcrossComparison, ...]) -> Iterator[str]:
    """Yield what the intervals and p-values of a comparison cover."""
    for case, text in _COVERED.items():
        names = dict.fromkeys(c.dataset for c in paired if c.interval and (c.by_rows, c.fixed_test) == case)
        if names:
            yield text.format(names=listed(names))
    if region := next((c.equivalence.region for c in paired if c.equivalence), None):
        yield (
            f"Within {region_points(region)} points: the probability that the true difference is, by the Bayesian "
            "t-test with the interval's variance (Corani and Benavoli 2015), over data sets by the Bayesian "
            f"signed-rank test (Benavoli et al. 2014). From {level(paired[0].confidence)} on the two are called "
            "practically equivalent."
        )
    if paired[0].comparisons > 1:
        yield (
            f"Each interval is for one comparison by itself; a difference within a data set is called reliable where "
            f"Holm's p over all {paired[0].comparisons} comparisons is at most {level(1 - paired[0].confidence)}."
        )
    if across:
        kinds = dict.fromkeys(c.interval.kind for c in across if c.interval and any(c.differences))
        yield (
            f"Over data sets: {' or '.join(kinds) or 'Student t'} interval for the mean of {across[0].datasets} mean "
            f"differences; Wilcoxon signed-rank test, Holm over {across[0].comparisons}. They speak of data sets like "
            "these, if these are a fair sample."
        )


def cautions(paired: Sequence[PairedComparison], rows: Sequence[Row], control: str) -> Iterator[str]:
    """Yield reasons for care: test sets so small that a row outweighs the difference, and worse calibration."""
    small = {
        c.dataset: f"{percent(1 / c.n_test)} points on {c.dataset}"
        for c in paired
        if 0 < abs(c.mean) < 1 / c.n_test and not c.by_rows
    }
    if small:
        yield f"Some differences are smaller than one test row, which is worth {listed(small.values(), 4)}."
    base = next(row for row in rows if row.method == control)
    if base.ece is None:
        return
    worse = [row for row in rows if row.ece is not None and row.ece - base.ece >= _WORSE_CALIBRATION]
    if worse:
        mended = listed(f"{row.method} {percent(row.ece_calibrated, 1)}" for row in (base, *worse))
        known = base.ece_calibrated is not None
        after = f"; after one temperature on the validation part {mended}" if known else ""
        above = listed(f"{row.method} {percent(row.ece, 1)}" for row in worse)
        yield (
            f"Calibration error is at least a point above the {percent(base.ece, 1)} points of {control}: {above} "
            f"(means, not tested){after}."
        )


def rows_line(paired: Sequence[PairedComparison]) -> Iterator[str]:
    """Yield what McNemar's exact test says of fixed test rows, if it is known what happened to each."""
    tested = [(c, c.by_row) for c in paired if c.by_row]
    if tested:
        adjusted = adjust_p([test.p for _, test in tested], "holm").tolist()
        several = len({c.dataset for c in paired}) > 1
        said = (
            f"{c.method}{f' on {c.dataset}' if several else ''} {test.wins} to {test.losses} ({p_value(p)})"
            for (c, test), p in zip(tested, adjusted, strict=True)
        )
        holm = ", Holm over all" if len(tested) > 1 else ""
        yield f"Fixed test rows won and lost against {paired[0].control} (McNemar's exact test{holm}): {listed(said)}."


def _within(c: PairedComparison, metric: str) -> str:
    where = f"On {c.dataset}, {c.method}"
    if c.outcome == "one repeat":
        change = f"differs from {c.control} by {points(c.mean, 2)} points" if c.mean else f"equals {c.control}"
        return f"{where} {change} in the only repeat; one repeat carries no interval, so nothing follows from it."
    if c.outcome == "identical":
        return f"{where} and {c.control} have identical {metric} in all {c.repeats} repeats."
    if c.outcome == "no spread":
        return (
            f"{where} differs from {c.control} by the same {points(c.mean, 2)} points in all {c.repeats} repeats: "
            "there is no spread to make an interval from."
        )
    change = _change(c, metric, scope=", training randomness only" if c.training_only else "")
    if c.outcome in ("no reliable difference", "practically equivalent"):
        family = "the interval by itself excludes zero, but not after allowing for the number of comparisons"
        mind = f" ({family}: {_holm(c)})" if c.interval and c.interval.excludes_zero() else ""
        end = f"{c.outcome} at {c.repeats} repeats{mind}"
    else:
        end = f"a reliable {'gain' if c.outcome == 'better' else 'loss'} at {c.repeats} repeats ({_holm(c)})"
        if c.training_only:
            end += f" on these {c.n_test:g} test rows; other rows were not tried"
    return f"{where} {change}: {end}{_region(c)}."


def _across(c: AcrossComparison, metric: str) -> str:
    n, counts = c.datasets, c.counts
    where = f"Over {count(n, 'data set')}, {c.method}"
    if c.outcome == "identical":
        return f"{where} and {c.control} have identical mean {metric} on every one."
    change = _change(c, metric, average=" on average")
    tally = f"{count(counts.wins, 'win')}, {count(counts.ties, 'tie')}, {count(counts.losses, 'loss')}"
    if c.outcome == "too few data sets":
        least = f"a signed-rank test over {n} cannot give p below {c.smallest_p:g}"
        if c.comparisons > 1:
            least += f", or {min(1.0, c.smallest_p * c.comparisons):g} after allowing for {c.comparisons} comparisons"
        few, them = (f"{n} data sets are", "them") if n > 1 else ("one data set is", "it")
        return f"{where} {change}, {tally}: {few} too few to conclude anything beyond {them} ({least})."
    if c.outcome in ("no reliable difference", "practically equivalent"):
        end = f"{c.outcome} (signed-rank {_holm(c)})"
    elif c.outcome == "mixed":
        often = "better more often than worse" if c.usually_better else "worse more often than better"
        end = f"ranked {often} (signed-rank {_holm(c)}), but the mean difference does not reliably follow"
    else:
        end = f"a reliable {'gain' if c.outcome == 'better' else 'loss'} (signed-rank {_holm(c)})"
    return f"{where} {change}, {tally}: {end}{_region(c)}."


def _region(c: PairedComparison | AcrossComparison) -> str:
    """Say how probable it is that the true difference doesn't matter."""
    if c.equivalence is None:
        return ""
    found = c.equivalence
    chances = f"{found.equivalent:.2f} (worse {found.worse:.2f}, better {found.better:.2f})"
    return f"; within {region_points(found.region)} points with probability {chances}"


def _change(c: PairedComparison | AcrossComparison, metric: str, *, average: str = "", scope: str = "") -> str:
    verb = {"better": "raises", "worse": "lowers"}.get(c.outcome, "changes")
    size = points(c.mean, _digits(c)) if verb == "changes" else percent(abs(c.mean), _digits(c))
    return f"{verb} {metric} by {size} points{average} against {c.control}{_span(c, scope)}"


def _span(c: PairedComparison | AcrossComparison, scope: str = "") -> str:
    if c.interval is None:
        return ""
    return f" ({level(c.interval.confidence)} {points_range(c.interval.low, c.interval.high, _digits(c))}{scope})"


def _digits(c: PairedComparison | AcrossComparison) -> int:
    """Return one decimal, or more where a bound that excludes zero, or the mean itself, would print as zero."""
    interval = c.interval
    bounds = [c.mean] if interval is None else [interval.low, interval.high] if interval.excludes_zero() else []
    digits = 2 if interval is not None and 100 * (interval.high - interval.low) < 0.4 else 1
    while digits < 4 and any(value and round(100 * value, digits) == 0 for value in bounds):
        digits += 1
    return digits


def _power(comparisons: Sequence[PairedComparison]) -> str:
    """Say which differences would have been found, and which with twice the repeats or rows."""
    repeats = comparisons[0].repeats
    found, more = _detectable(comparisons, repeats), _detectable(comparisons, 2 * repeats)
    if not found:
        return "; so few repeats could not have shown any difference" if any(c.detectable for c in comparisons) else ""
    text = f"; a true difference of {_sizes(found)} points would have been found in 4 runs of 5, one of {_sizes(more)}"
    rows = f", of about {_sizes([size / 2**0.5 for size in found])} with twice the rows"
    return f"{text} with {2 * repeats} repeats{'' if comparisons[0].training_only else rows}"


def _holm(c: PairedComparison | AcrossComparison) -> str:
    if c.p_adjusted is None:
        return "no p-value"
    text = p_value(c.p_adjusted, 3 if c.p_adjusted < 0.1 else 2)
    return f"Holm {text} over {c.comparisons} comparisons" if c.comparisons > 1 else text
