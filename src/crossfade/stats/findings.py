"""Findings on how a comparison was run that decide what its differences mean: a sentence for each kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from crossfade.stats.evidence import AcrossComparison, PairedComparison, compare_datasets, compare_repeats
from crossfade.stats.means import corrected_resampled_t, paired_t
from crossfade.stats.shape import Hits
from crossfade.stats.words import count, listed, percent, points

# What tells networks apart: two with the same scores to the last digit, at the same epoch and rate, are one.
_MARKS = ("accuracy", "nll", "ece", "brier", "epoch", "learning_rate")
_OFTEN = 0.25  # of a method's repeats with the best rate at the grid's end, beyond which it is said
_SAME = 0.005  # by which the majority's share may differ from chance and still be called that
_FAR = 10.0  # times the median, beyond which a mean NLL is that of a few networks
_LIMIT = 5  # data sets that a sentence names


def findings(
    results: pd.DataFrame,
    paired: Sequence[PairedComparison],
    across: Sequence[AcrossComparison],
    *,
    metric: str,
    size_control: str | None,
    hits: Hits,
    moves: Mapping[str, int],
) -> Iterator[str]:
    """Yield what the results say about the run: step size, one network under several names, nothing learned, and so on.

    Args:
        results: the rows that count, as `compare_methods` takes them. Further columns are read where they are there:
            ``majority`` (the metric of always answering the most frequent class), ``classes``, ``epoch``,
            ``learning_rate``, ``lowest_rate`` and ``highest_rate`` that were tried, and ``at_edge``.
        paired, across: the evidence on each data set and over all.
        metric: the judged column.
        size_control: a method with the gradient's size of others, but the control's shape.
        hits: what happened to each row, by data set and method.
        moves: the epoch after which a method's schedule first moves.
    """
    if size_control is not None:
        yield from _step_size(results, paired, across, metric, size_control, hits)
    yield from _one_network(results, moves)
    yield from _nothing_learned(results, paired, metric)
    yield from _rates(results)
    yield from _large_nll(results)


def same_networks(results: pd.DataFrame) -> dict[str, str]:
    """Return the methods that are the same network as an earlier one in every repeat, with that one's name."""
    whole = results.copy()
    whole["repeat"] = list(zip(results["dataset"], results["repeat"], strict=True))
    return {name: first for first, name, share in _alike(whole) if share == 1.0}


def _alike(part: pd.DataFrame) -> Iterator[tuple[str, str, float]]:
    """Yield each method but the first of its kind with the first one that it most often equals, and how often."""
    if any(mark not in part for mark in _MARKS):
        return
    marks = part.set_index(["repeat", "method"])[list(_MARKS)].apply(tuple, axis=1).unstack("method")
    marks = marks[pd.unique(part["method"])]
    first: list[str] = []
    for name in map(str, marks.columns):
        shares = [float((marks[one] == marks[name]).mean()) for one in first]
        if shares and max(shares) > 0.5:
            yield first[int(np.argmax(shares))], name, max(shares)
        else:
            first.append(name)


def _one_network(results: pd.DataFrame, moves: Mapping[str, int]) -> Iterator[str]:
    found = []
    for dataset, part in results.groupby("dataset", sort=False):
        repeats = part["repeat"].nunique()
        pairs = pd.DataFrame(_alike(part), columns=["first", "name", "share"])
        for first, others in pairs.groupby("first", sort=False):
            alike, least = [str(first), *others["name"]], others["share"].min()
            epoch = part.loc[part["method"].isin(alike), "epoch"].median()
            starts = [moves[name] for name in alike if moves.get(name, -1) >= epoch]
            when = f"epoch {epoch:g}" + (f", the first schedule moves after {min(starts)}" if starts else "")
            found.append(f"{dataset}: {' = '.join(alike)} ({round(least * repeats)} of {repeats} repeats, {when})")
    if found:
        yield (
            "One network, not several findings, where the chosen epoch comes before schedules part: "
            f"{listed(found, _LIMIT)}."
        )


def _step_size(
    results: pd.DataFrame,
    paired: Sequence[PairedComparison],
    across: Sequence[AcrossComparison],
    metric: str,
    size_control: str,
    hits: Hits,
) -> Iterator[str]:
    """Yield the gains of which at least half is the size control's too, while the rest isn't reliable."""
    scores = results.set_index(["dataset", "repeat", "method"])[metric].unstack("method")
    every: list[PairedComparison | AcrossComparison] = [*across, *paired]
    sizes = {_place(c): c.mean for c in every if c.method == size_control}
    found = []
    for c in every:
        size = sizes[_place(c)]
        if c.method == size_control or c.outcome != "better" or size < c.mean / 2:
            continue
        rest: PairedComparison | AcrossComparison
        if isinstance(c, AcrossComparison):
            means = scores.groupby(level=0, sort=False).mean()
            rest = compare_datasets(means[c.method], means[size_control], method=c.method, control=size_control)
        else:
            own = scores.loc[c.dataset]
            rest = compare_repeats(
                own[c.method],
                own[size_control],
                dataset=c.dataset,
                method=c.method,
                control=size_control,
                n_train=c.n_train,
                n_test=c.n_test,
                fixed_test=c.fixed_test,
                hits=hits.get((c.dataset, c.method)),
                control_hits=hits.get((c.dataset, size_control)),
            )
        if rest.outcome != "better":
            found.append(f"{_place(c)}{c.method} {points(c.mean, 1)} (of which {points(size, 1)})")
    if found:
        yield (
            f"Gains of step size, not of the loss's shape, as {size_control} has most of them: "
            f"{listed(found, _LIMIT)} points."
        )


def _place(c: PairedComparison | AcrossComparison) -> str:
    return f"{c.dataset}, " if isinstance(c, PairedComparison) else ""


def _nothing_learned(results: pd.DataFrame, paired: Sequence[PairedComparison], metric: str) -> Iterator[str]:
    """Yield the methods whose score isn't above the majority class's, or is that of a blind guess."""
    if not {"majority", "classes"} <= set(results):
        return
    sizes = {c.dataset: c for c in paired}
    found = []
    for dataset, part in results.dropna(subset=["majority"]).groupby("dataset", sort=False):
        c, guess = sizes[str(dataset)], 1.0 / float(part["classes"].iloc[0])
        said: dict[str, list[str]] = {}
        for method, own in part.groupby("method", sort=False):
            score, majority = own[metric].to_numpy(float), own["majority"].to_numpy(float)
            test = paired_t(score) if c.fixed_test else corrected_resampled_t(score, c.n_train, c.n_test)
            luck = float(np.sqrt(majority.mean() * (1.0 - majority.mean()) / c.n_test))  # of so many guesses
            near = max(1.0 / c.n_test, 2.0 * min(test.standard_error or 0.0, luck) if len(score) > 2 else 0.0)
            if score.mean() - majority.mean() <= near:
                chance = abs(score.mean() - guess) <= abs(score.mean() - majority.mean()) + _SAME
                what = "chance" if chance else "the majority class"
                level = guess if chance else float(majority.mean())
                said.setdefault(f"{what} ({percent(level, 1)} %)", []).append(str(method))
        found += [f"{dataset}: {', '.join(who)} at {what}" for what, who in said.items()]
    if found:
        yield f"Nothing was learned: {listed(found, _LIMIT)}."


def _rates(results: pd.DataFrame) -> Iterator[str]:
    """Yield how far the grid of learning rates was widened, and where the best one still lies at its end."""
    if not {"at_edge", "lowest_rate", "highest_rate"} <= set(results) or results["at_edge"].isna().all():
        return
    tried = results.dropna(subset=["at_edge"])
    low, high = tried["lowest_rate"], tried["highest_rate"]
    wider = (low < low.max()) | (high > high.min())
    if wider.any():
        yield (
            f"The grid of learning rates was widened to {low.min():g} … {high.max():g} where the best lay on its edge: "
            f"in {wider.sum()} of {count(len(tried), 'trial')}."
        )
    still = []
    for dataset, part in tried.groupby("dataset", sort=False):
        share = part.groupby("method", sort=False)["at_edge"].mean()
        often = [f"{name} ({share[name]:.0%})" for name in share.index if share[name] > _OFTEN]
        still += [f"{dataset}: {', '.join(often)}"] if often else []
    if still:
        yield (
            "The best learning rate still lies at the grid's edge in many repeats, so other rates may change the "
            f"answer: {listed(still, _LIMIT)}."
        )


def _large_nll(results: pd.DataFrame) -> Iterator[str]:
    """Yield the methods whose mean NLL comes from a few networks, as NLL has no upper bound."""
    if "nll" not in results:
        return
    nll = results.dropna(subset=["nll"]).groupby("method", sort=False)["nll"]
    mean, median = nll.mean(), nll.median()
    found = [f"{name} (median {median[name]:.3f})" for name in mean.index if mean[name] > max(1.0, _FAR * median[name])]
    if found:
        yield f"A few networks with very large logits make the mean NLL what it is: {listed(found, _LIMIT)}."
