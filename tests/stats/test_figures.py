import re
import xml.etree.ElementTree as ElementTree
from functools import cache

import numpy as np
import pandas as pd
import pytest

from crossfade.errors import UserError
from crossfade.stats import (
    Interval,
    conover,
    contiguous_groups,
    critical_difference_diagram,
    new_figure,
    paired_difference_plot,
    performance_plot,
    performance_profile,
    rank_matrix,
    save_svg,
    sign_plot,
    to_svg,
)

LONG = "crossfade loss $2 with label_smoothing=0.1, schedule=staircase([0, .1, .2]) & a <long> tail"


@cache
def table(k, long=False, n=30):
    rng = np.random.default_rng(k)
    names = [f"{LONG} {j}" if long else f"m{j}" for j in range(k)]
    values = 0.7 + 0.004 * np.arange(k) + rng.normal(0, 0.02, (n, k)) + rng.normal(0, 0.1, (n, 1))
    return pd.DataFrame(np.clip(values, 0, 1), columns=names)


def drawn(matrix, names=(), title="Over data sets"):
    ranks, p = rank_matrix(matrix).mean(), conover(matrix)
    differences = matrix.iloc[:, 1:].sub(matrix.iloc[:, 0], axis=0)
    spans = {name: Interval(-0.01, 0.02, 0.95, "t") for name in differences}
    makers = {
        "ranks": lambda: critical_difference_diagram(ranks, p, critical=1.0, title=title),
        "signs": lambda: sign_plot(p, ranks, title=title),
        "profile": lambda: performance_plot(performance_profile(matrix), title=title),
        "errors": lambda: performance_plot(performance_profile(1 - matrix, lower_is_better=True), title=title),
        "differences": lambda: paired_difference_plot(differences, spans, title=title),
    }
    return {name: makers[name]() for name in names or makers}


def texts(figure):
    """Every text that is drawn, with its box in pixels."""
    figure.draw_without_rendering()
    found = list(figure.texts)
    for axes in figure.axes:
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        found += axes.get_legend().get_texts() if axes.get_legend() else []
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if axes.axison and low <= tick.get_loc() <= high]
    return [(text.get_text(), text.get_window_extent()) for text in found if text.get_text().strip()]


@pytest.mark.parametrize(("k", "long"), [(2, False), (2, True), (11, False), (11, True)])
def test_labels_are_there_in_full_fit_and_do_not_overlap(k, long):
    for name, figure in drawn(table(k, long)).items():
        width, height = figure.bbox.size
        boxes = texts(figure)
        if name in ("ranks", "signs", "profile"):
            shown = " ".join(text.replace("\n", " ") for text, _ in boxes)
            assert all(method in shown for method in table(k, long))
        for text, box in boxes:
            assert box.x0 > -1, (name, text)
            assert box.y0 > -1, (name, text)
            assert box.x1 < width + 1, (name, text)
            assert box.y1 < height + 1, (name, text)
        for i, (text, box) in enumerate(boxes):
            for other, beside in boxes[:i]:
                apart = (
                    box.x1 <= beside.x0 + 1.5 or beside.x1 <= box.x0 + 1.5
                    or box.y1 <= beside.y0 + 1.5 or beside.y1 <= box.y0 + 1.5
                )  # fmt: skip
                assert apart, (name, text, other)


@pytest.mark.parametrize("name", ["ranks", "signs", "profile", "errors", "differences"])
def test_svg_stands_alone(name):
    figure = drawn(table(5, long=True), [name])[name]
    svg = to_svg(figure, prefix="a-")
    ElementTree.fromstring(svg)
    assert svg.startswith("<svg")
    addresses = set(re.findall(r"https?://[^\"\s<]+", svg))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<image" not in svg or "data:image" in svg
    assert "font-family" not in svg
    identifiers = re.findall(r'\bid="([^"]*)"', svg)
    assert all(identifier.startswith("a-") for identifier in identifiers)
    used = re.findall(r'href="#([^"]*)"', svg) + re.findall(r"url\(#([^)]*)\)", svg)
    assert set(used) <= set(identifiers)
    assert len(svg) < 300_000
    assert svg == to_svg(drawn(table(5, long=True), [name])[name], prefix="a-")


def test_figures_with_panels_are_saved_with_the_same_bytes(tmp_path):
    for name in ("a.svg", "b.svg", "text.svg"):
        figure, axes = new_figure(2, 2, height=1.5, share_x=True)
        assert len(axes) == 4
        axes[2].plot([1, 2], [3, 4], label="a line")
        axes[2].legend()
        save_svg(figure, tmp_path / name, outlines=name != "text.svg")
    outlined, again, text = ((tmp_path / name).read_text() for name in ("a.svg", "b.svg", "text.svg"))
    assert outlined == again
    assert ">a line</text>" in text
    assert "<text" not in outlined
    ElementTree.fromstring(outlined)


def bars(figure):
    return [line for line in figure.axes[0].get_lines() if line.get_color() == "#D55E00" and line.get_linewidth() > 3]


def test_bars_are_the_contiguous_groups():
    matrix = table(12, n=60)
    ranks, p = rank_matrix(matrix).mean(), conover(matrix)
    figure = critical_difference_diagram(ranks, p)
    groups = contiguous_groups(ranks, p)
    assert len(groups) > 2
    ends = {(round(line.get_xdata()[0] + 0.04, 6), round(line.get_xdata()[1] - 0.04, 6)) for line in bars(figure)}
    expected = {tuple(round(5.0 * (ranks[name] - 1) / 11, 6) for name in (group[0], group[-1])) for group in groups}
    assert ends == expected


def test_groups_stop_at_a_difference_inside_a_run():
    ranks = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    p = pd.DataFrame(1.0, index=list("abcd"), columns=list("abcd"))
    p.loc["a", "c"] = p.loc["c", "a"] = 0.01  # but a and d do not differ: no bar may join them across c
    assert contiguous_groups(ranks, p) == [["a", "b"], ["b", "c", "d"]]
    assert contiguous_groups(ranks, p, alpha=0.001) == [["a", "b", "c", "d"]]
    assert contiguous_groups(ranks, p * 0) == []
    with pytest.raises(UserError, match="lacking: e"):
        contiguous_groups({**ranks, "e": 5.0}, p)


def test_degenerate_tables_can_be_drawn():
    tied = pd.DataFrame(np.full((3, 3), 0.5), columns=list("abc"))
    agree = pd.DataFrame([[0.1, 0.2, 0.3]] * 3, columns=list("abc"))
    zeros = pd.DataFrame(np.zeros((3, 3)), columns=list("abc"))
    for matrix, names in ((tied, ()), (agree, ()), (zeros, ("profile", "errors"))):  # ranks of zeros are those of ties
        for figure in drawn(matrix, names).values():
            to_svg(figure)


def test_a_critical_difference_wider_than_the_ruler_is_said():
    matrix = table(2, n=2)
    figure = critical_difference_diagram(rank_matrix(matrix).mean(), conover(matrix), critical=1.39)
    assert any("more than the whole ruler" in text for text, _ in texts(figure))


def test_a_collapsed_run_does_not_hide_the_rest():
    d = pd.DataFrame({"el": np.r_[np.linspace(-0.01, 0.01, 100), -0.8]})
    axes = paired_difference_plot(d).axes[0]
    assert axes.get_xlim()[0] > -5
    assert "1" in [text.get_text() for text in axes.texts]


def test_profile_of_zero_errors():
    errors = pd.DataFrame({"a": [0.0, 0.1, 0.0], "b": [0.1, 0.2, 0.0]})
    profile = performance_profile(errors, lower_is_better=True)
    assert profile.ratios["a"].tolist() == [1, 1, 1]
    assert profile.ratios["b"].tolist() == [np.inf, 2, 1]
    assert profile.share(5.0).to_dict() == pytest.approx({"a": 1, "b": 2 / 3})
    zeros = performance_profile(pd.DataFrame({"a": [0.0, 0.4], "b": [0.0, 0.0]}))
    assert zeros.ratios.to_numpy().tolist() == [[1, 1], [1, np.inf]]
    with pytest.raises(UserError, match="negative"):
        performance_profile(errors - 0.1)


def test_what_is_refused():
    matrix = table(3)
    ranks, p = rank_matrix(matrix).mean(), conover(matrix)
    for call in (
        lambda: critical_difference_diagram({"m0": 1.0}, p),
        lambda: critical_difference_diagram({"m0": 1.0, "x": 2.0}, p),
        lambda: sign_plot(p, {"m0": 1.0}),
        lambda: sign_plot(p * np.nan, ranks),
        lambda: performance_plot(performance_profile(matrix), largest=1.0),
        lambda: paired_difference_plot(pd.DataFrame({"a": []})),
        lambda: paired_difference_plot(pd.DataFrame({"a": [np.nan]})),
    ):
        with pytest.raises(UserError):
            call()
