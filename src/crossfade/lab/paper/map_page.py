"""The map of where which loss pays, as words, tables and one figure, from results alone.

On data sets that may choose, a method is chosen for each place; those that judge tell what it gains there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crossfade.lab import frames
from crossfade.lab.files import SIGNATURE, write_text
from crossfade.lab.paper.page import half_width, row, signed
from crossfade.lab.paper.table4_page import NETS
from crossfade.lab.store import Run, Store
from crossfade.stats.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from crossfade.stats.means import MeanTest

COLUMNS = ["data", "net", "size", "noise", "kind", "validation"]  # of a place
METHODS = ("ce", "ce-cosine", "ce-matched", "gradual", "gce", "tgce", "log-ce", "gce-rising")
_STEPS, _SHAPES = ("ce", "ce-cosine"), METHODS[3:]  # CE at its best, and losses of another shape
_SURE = 0.05
_SIDE = 3.0  # points at which the figure's colours end


def judges(name: str) -> bool:
    """Return whether a data set judges methods, rather than being one of those that may choose them."""
    return blake2b(name.encode(), digest_size=1).digest()[0] % 2 == 1


@dataclass(frozen=True)
class Duel:
    """What a method that was chosen gains over another one on the judging sets, in points."""

    method: str
    rival: str
    test: MeanTest
    p: float

    @property
    def sure(self) -> bool:
        """Whether the gain is reliable."""
        return self.p < _SURE and self.test.mean > 0

    def __str__(self) -> str:
        return f"{_gap(self.test)}{'*' if self.sure else ''}"


@dataclass(frozen=True)
class Place:
    """One place of the map.

    Args:
        at: Its coordinates by the names in ``COLUMNS``.
        scores: Accuracy in percent, data set × method: the mean over seeds. Sets with a hole are left out.
        judged: The scores on the sets that judge.
        left_out: The number of such sets.
        first: The chosen method against CE.
        second: The chosen one of the losses of another shape against the better of CE and ``ce-cosine``.
    """

    at: dict[str, Any]
    scores: pd.DataFrame
    judged: pd.DataFrame
    left_out: int
    first: Duel
    second: Duel

    def gap(self, method: str) -> MeanTest:
        """Return the mean difference to CE on the judging sets with its interval."""
        return _t(self.judged[method] - self.judged["ce"])

    @property
    def noise(self) -> str:
        """The wrong labels in words."""
        if not self.at["noise"]:
            return "right labels"
        rows = ", validation too" if self.at["validation"] else ""
        return f"{100 * self.at['noise']:g} % {self.at['kind']}{rows}"

    @property
    def panel(self) -> str:
        """Network and size in words: what stands in one table."""
        net = NETS.get(self.at["net"], self.at["net"])
        return f"{net}, {100 * self.at['size']:g} % of the training rows"


def collect(store: Store, runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each finished trial of the runs of one map, with the coordinates of its place."""
    kept = ["dataset", "method", "repeat", "accuracy", "nll", "learning_rate", "n_train"]
    parts = [
        frames.results(store, run.keys).reindex(columns=kept).assign(**run.request["meta"]["place"]) for run in runs
    ]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def places(results: pd.DataFrame) -> list[Place]:
    """Return the places of a map that have results on sets of both kinds, with p-values adjusted over all of them."""
    from crossfade.stats.significance import adjust_p, wilcoxon

    found: list[Place] = []
    for values, part in results.groupby(COLUMNS):
        whole = part.groupby(["dataset", "method"])["accuracy"].mean().unstack() * 100
        known = part.groupby(["dataset", "method"]).size().unstack()
        names = [name for name in METHODS if name in whole]
        complete = whole[names][(known[names] == known.max().max()).all(axis=1)]
        judging = np.array([judges(name) for name in complete.index], dtype=bool)
        may_choose, judged = complete[~judging].mean(), complete[judging]
        shapes, steps = ([name for name in some if name in names] for some in (_SHAPES, _STEPS))
        if len(judged) < 2 or len(judged) == len(complete) or not shapes:
            continue
        chosen, shape = may_choose.drop("ce").idxmax(), may_choose[shapes].idxmax()
        duels = []
        for method, rival in ((chosen, "ce"), (shape, may_choose[steps].idxmax())):
            _, p = wilcoxon(judged[method], judged[rival])
            duels.append(Duel(str(method), str(rival), _t(judged[method] - judged[rival]), p))
        at = dict(zip(COLUMNS, values, strict=True))
        found.append(Place(at, complete, judged, len(whole) - len(complete), *duels))
    for name in ("first", "second"):
        adjusted = adjust_p([getattr(place, name).p for place in found], "fdr_bh")
        changed = [replace(getattr(place, name), p=float(p)) for place, p in zip(found, adjusted, strict=True)]
        found = [replace(place, **{name: duel}) for place, duel in zip(found, changed, strict=True)]
    return found


def _t(differences: pd.Series) -> MeanTest:
    from crossfade.stats.means import paired_t

    return paired_t(differences)


def _gap(test: MeanTest) -> str:
    """Return a mean difference and half of its interval."""
    return signed(test.mean, half_width(test))


def words(found: Sequence[Place]) -> str:
    """Return what the map says, a line for each network and share of wrong labels."""
    lines = []
    for (net, noise), part in _grouped(found, "net", "noise"):
        sure, second = ([getattr(p, which) for p in part if getattr(p, which).sure] for which in ("first", "second"))
        gains = [place.first.test.mean for place in part]
        name = "right labels" if not noise else f"{100 * noise:g} % wrong labels"
        chosen = pd.Series([duel.method for duel in sure]).value_counts()
        which = ", ".join(f"{method} {number}" for method, number in chosen.items())
        better = f"{len(sure)} of {count(len(part), 'place')}" + (f" ({which})" if which else "")
        lines.append(
            f"* **{NETS.get(net, net)}, {name}.** The chosen method is reliably better than CE in {better}; its mean "
            f"differences are {signed(min(gains))} to {signed(max(gains))} points. A loss of another shape is reliably "
            f"better than CE with the better of a constant and a cosine-falling rate in {len(second)}."
        )
    return "\n".join(lines)


def averages(found: Sequence[Place]) -> str:
    """Return a table of each method's difference to CE over all places of a network and a share of wrong labels."""
    others = _others(found)
    lines = [row("network", "wrong labels", "places", *others), "|---|---|--:|" + "--:|" * len(others)]
    for (net, noise), part in _grouped(found, "net", "noise"):
        cells = [_mean_gap(part, name) for name in others]
        lines.append(row(NETS.get(net, net), f"{100 * noise:g} %", len(part), *cells))
    return "\n".join(lines)


def gains(found: Sequence[Place], method: str) -> str:
    """Return a method's line of the averages in words."""
    parts = []
    for (noise,), part in _grouped(found, "noise"):
        of_nets = " and ".join(_mean_gap(list(own), method) for _, own in _grouped(part, "net"))
        parts.append(f"{f'{100 * noise:g} % wrong' if noise else 'right'} labels {of_nets}")
    return f"`{method}` {', '.join(parts)} points"


def _mean_gap(part: Sequence[Place], method: str) -> str:
    """Return a method's difference to CE over places. A set's are averaged first: the interval is one over sets."""
    gaps = pd.concat([place.judged[method] - place.judged["ce"] for place in part])
    return _marked(_t(gaps.groupby(level=0).mean()))


def _marked(test: MeanTest) -> str:
    """Return a mean difference with half of its interval, bold where that excludes 0."""
    beyond = test.interval is not None and test.interval.excludes_zero()
    return f"**{_gap(test)}**" if beyond else _gap(test)


def tables(found: Sequence[Place]) -> str:
    """Return a table for each network and size: every method's difference to CE with its 95 % interval."""
    others = _others(found)
    parts = []
    for title, part in groupby(found, key=lambda place: place.panel):
        heading = ("wrong labels", "sets", "CE, %", *others, "chosen", "shape against CE's best")
        lines = [f"**{title}**", "", row(*heading), "|---|" + "--:|" * (len(others) + 2) + "---|---|"]
        for place in part:
            gaps = [_marked(place.gap(name)) for name in others]
            sets = f"{len(place.judged)}" + (f" (−{place.left_out})" if place.left_out else "")
            first, second = f"{place.first.method} {place.first}", f"{place.second.method} {place.second}"
            lines.append(row(place.noise, sets, f"{place.judged['ce'].mean():.1f}", *gaps, first, second))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _grouped(found: Sequence[Place], *names: str) -> Iterator[tuple[tuple[Any, ...], list[Place]]]:
    """Yield the places with the same coordinates of these names, sorted by them."""

    def key(place: Place) -> tuple[Any, ...]:
        return tuple(place.at[name] for name in names)

    for values, part in groupby(sorted(found, key=key), key=key):
        yield values, list(part)


def figure(found: Sequence[Place]) -> Figure:
    """Draw the map: methods × wrong labels for each network and size, coloured by the difference to CE in points."""
    from crossfade.stats.drawing import FONT_SIZE, new_figure

    panels = [(title, list(part)) for title, part in groupby(found, key=lambda place: place.panel)]
    drawn, axes = new_figure(1, len(panels), width=8.6, height=2.3)
    for one, (title, part) in zip(axes, panels, strict=True):
        one.grid(visible=False)
        one.set_title(title, fontsize=FONT_SIZE, loc="left")
        _panel(one, part, _others(found))
    for one in axes[:-1]:
        one.set_xticklabels([])
    return drawn


def _others(found: Sequence[Place]) -> list[str]:
    """Return the methods but CE that all places have."""
    return [name for name in METHODS[1:] if all(name in place.scores for place in found)]


def _panel(axes: Axes, part: Sequence[Place], others: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    from crossfade.stats.drawing import FONT_SIZE, INK

    gaps = [[place.gap(method) for place in part] for method in others]
    means = np.array([[gap.mean for gap in line] for line in gaps])
    axes.imshow(means, cmap="PuOr", vmin=-_SIDE, vmax=_SIDE, aspect="auto")
    for y, line in enumerate(gaps):
        for x, gap in enumerate(line):
            beyond = gap.interval is not None and gap.interval.excludes_zero()
            white = abs(gap.mean) > 0.75 * _SIDE
            weight, ink = "bold" if beyond else "normal", "white" if white else INK
            shown = f"{gap.mean:+.1f}".replace("-", "−")
            axes.text(x, y, shown, ha="center", va="center", fontsize=FONT_SIZE - 2.5, weight=weight, color=ink)
    for x, place in enumerate(part):
        y = others.index(place.first.method)
        width = 2.2 if place.first.sure else 0.8
        axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, ec=INK, lw=width))
    axes.set_yticks(range(len(others)), others)
    labels = [place.noise.replace(", validation too", "\n+ validation").replace(" %", " %\n", 1) for place in part]
    axes.set_xticks(range(len(part)), labels, rotation=90, fontsize=FONT_SIZE - 2)
    axes.tick_params(length=0)


def key_of_figure() -> str:
    """Return what the figure's marks mean."""
    return (
        "Points of accuracy against CE on the judging sets, orange below CE, purple above. Bold: the 95 % interval "
        "excludes 0. Framed: the method that the choosing sets chose there; thick, if it is reliably better than CE "
        "(adjusted p < 0.05)."
    )


def write_page(store: Store, runs: Sequence[Run], report: Path) -> str:
    """Write the page of a map's runs, and the figure beside it, and return the page as text."""
    from crossfade.stats import to_svg

    results = collect(store, runs)
    meta, failed = runs[0].request["meta"], sum(len(frames.failures(store, run.keys)) for run in runs)
    found = places(results)
    about = [count(results["dataset"].nunique(), "data set"), count(int(results["repeat"].nunique()), "seed")]
    lead = f"{', '.join(about)}; {count(failed, 'trial')} failed. Δ in points of accuracy against CE."
    parts = [f"### {meta['title']}", lead, *coarse(results)]
    if found:
        drawn = report.with_suffix(".svg")
        write_text(drawn, to_svg(figure(found)) + SIGNATURE, "--report")
        parts += [words(found), averages(found), f"![The map]({drawn.name})", key_of_figure(), tables(found)]
    page = "\n\n".join(parts) + "\n"
    write_text(report, f"{page}\n{SIGNATURE}", "--report")
    return page


def coarse(results: pd.DataFrame) -> list[str]:
    """Return a table for each single data set, such as the reviews: differences to CE over its seeds."""
    parts = []
    for data, own in results[results["data"] != "uci121"].groupby("data", sort=False):
        names = [name for name in METHODS if name in set(own["method"])]
        lines = [f"**{data}**", "", row("wrong labels", "seeds", *names), "|---|" + "--:|" * (len(names) + 1)]
        for values, part in own.groupby(COLUMNS):
            wide = part.pivot_table("accuracy", "repeat", "method") * 100
            at: dict[str, Any] = dict(zip(COLUMNS, values, strict=True))
            shown = [f"{wide['ce'].mean():.1f}", *(_gap(_t((wide[name] - wide["ce"]).dropna())) for name in names[1:])]
            noise = f"{100 * at['noise']:g} % {at['kind']}" if at["noise"] else "right labels"
            lines.append(row(noise, len(wide), *shown))
        parts.append("\n".join(lines))
    return parts
