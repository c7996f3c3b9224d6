"""The drawings say what the numbers say: paths are read back and compared with the values."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.report import charts

NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"


def read_path(path: str) -> list[list[tuple[float, float]]]:
    """Lines of a path of M and l commands, as absolute places."""
    lines: list[list[tuple[float, float]]] = []
    for command, arguments in re.findall(r"([Ml])([^Ml]*)", path):
        x, y = (float(number) for number in re.findall(NUMBER, arguments))
        if command == "M":
            lines.append([(x, y)])
        else:
            last = lines[-1][-1]
            lines[-1].append((last[0] + x, last[1] + y))
    return lines


def path_of(element: str) -> str:
    return re.findall(r' d="([^"]*)"', element)[0]


@given(st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=1, max_size=60))
def test_a_line_goes_through_its_points(points: list[tuple[float, float]]) -> None:
    (line,) = read_path(path_of(charts.path_through(points, "s1")))
    assert len(line) == len(points)
    for (x, y), (a, b) in zip(line, points, strict=True):
        assert abs(x - a) <= 0.0501  # a tenth of a pixel, rounded once and never adding up
        assert abs(y - b) <= 0.0501


def test_a_line_breaks_where_there_is_no_number() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 4.0), (4.0, math.inf), (5.0, 6.0)]
    assert [len(part) for part in read_path(path_of(charts.path_through(points, "s1")))] == [2, 1, 1]
    assert charts.path_through([(0.0, math.nan)], "s1") == ""


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 10))
def test_ticks_are_round_evenly_spaced_and_inside(low: float, width: float, count: int) -> None:
    axis = charts.Axis(low, low + width, 0.0, 100.0)
    ticks = axis.ticks(count)
    assert 1 <= len(ticks) <= count + 1
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.0
    for k, tick in enumerate(ticks):
        slack = 1e-6 * width + 1e-12 * abs(low)
        assert low - slack <= tick <= low + width + slack
        assert tick == pytest.approx(ticks[0] + k * step, rel=1e-12, abs=1e-6 * width)
    if step and width > 1e-6 * abs(low):
        leading = abs(step) / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(leading - round_) for round_ in (1, 2, 2.5, 5, 10)) < 1e-3


@given(st.floats(1e-5, 1e3), st.floats(31, 1e5))
def test_log_ticks_are_inside_and_not_too_many(low: float, ratio: float) -> None:
    axis = charts.log_axis([low, low * ratio], 100.0, 0.0)
    assert axis.log
    ticks = axis.ticks(5)
    assert 1 <= len(ticks) <= 7
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    middle = math.sqrt(axis.low * axis.high)
    assert axis(middle) == pytest.approx(50.0)


def test_the_axis_is_logarithmic_only_over_a_wide_range() -> None:
    assert not charts.log_axis([1.0, 29.0], 0.0, 1.0).log
    assert not charts.log_axis([0.0, 0.0], 0.0, 1.0).log
    assert not charts.log_axis([math.nan], 0.0, 1.0).log
    zero = charts.log_axis([0.0, 1e-9, 1.0], 0.0, 1.0)  # a zero stands at the bottom instead of at minus infinity
    assert zero.log
    assert math.isfinite(zero(0.0))


@pytest.mark.parametrize("values", [[], [math.nan], [0.5], [0.5, 0.5], [1e300, -1e300], [0.0, 1e-300]])
def test_spans_are_never_empty(values: list[float]) -> None:
    low, high = charts.span(values)
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert high > low
    charts.Axis(low, high, 0.0, 1.0).ticks()


def dot_places(drawing: str) -> list[tuple[float, float]]:
    path = re.findall(r'class="dots [^"]*" d="([^"]*)"', drawing)
    return [tuple(map(float, pair)) for d in path for pair in re.findall(rf"M({NUMBER}) ({NUMBER})h0", d)]  # type: ignore[misc]


def axis_of(drawing: str) -> tuple[float, float]:
    """Place of zero, and pixels a unit, from the labels below."""
    labels = re.findall(rf'<text x="({NUMBER})" y="[^"]*" class="mid">([−\d.]+)</text>', drawing)
    places = {float(words.replace("−", "-")): float(x) for x, words in labels}
    assert 0.0 in places
    other = max(places, key=abs)
    return places[0.0], (places[other] - places[0.0]) / other


def test_dots_diamond_and_bar_stand_at_their_values() -> None:
    values = [-1.0, 0.5, 0.5, 0.5, 2.0]
    row = charts.DotRow("EL", "s1", values, 0.5, (-0.75, 1.75))
    drawing = str(charts.dot_chart([row], title="points", name="n", least=0.5))
    zero, scale = axis_of(drawing)
    dots = dot_places(drawing)
    assert sorted(x for x, _ in dots) == pytest.approx([zero + scale * v for v in values], abs=0.3)
    assert len(set(dots)) == 5, "equal values must not hide each other"
    mean = re.findall(rf'class="mean s1" d="M({NUMBER}) ', drawing)
    assert float(mean[0]) == pytest.approx(zero + scale * 0.5, abs=0.3)
    low, high = re.findall(rf'class="bar s1" d="M({NUMBER}) {NUMBER}H({NUMBER})', drawing)[0]
    assert float(low) == pytest.approx(zero - scale * 0.75, abs=0.3)
    assert float(high) == pytest.approx(zero + scale * 1.75, abs=0.3)


def test_many_equal_dots_stay_in_their_row() -> None:
    rows = [charts.DotRow(name, "s1", [0.0] * 200, 0.0) for name in ("a", "b")]
    drawing = str(charts.dot_chart(rows, title="t", name="n", least=0.5))
    heights = [y for _, y in dot_places(drawing)]
    first, second = heights[:200], heights[200:]
    labels = [float(y) for y in re.findall(rf'y="({NUMBER})" class="name', drawing)]
    assert min(first) <= max(first) < labels[0] < min(second) <= max(second) < labels[1]


def test_rows_without_numbers_and_zero_differences_can_be_drawn() -> None:
    rows = [
        charts.DotRow("nan", "s1", [math.nan], math.nan, (math.nan, math.nan)),
        charts.DotRow("same", "s2", [0.0, 0.0], 0.0, (0.0, 0.0)),
        charts.DotRow("none", "s3", [], math.nan),
    ]
    drawing = str(charts.dot_chart(rows, title="t", name="n", least=0.5))
    assert "nan" not in re.sub(r"[^>]*</(text|title)>", "", drawing)
    assert len(dot_places(drawing)) == 2


def test_long_names_are_shortened_in_drawings_only() -> None:
    row = charts.DotRow("m" * 200, "s1", [1.0], 1.0)
    drawing = str(charts.dot_chart([row], title="t", name="m" * 200, least=0.5))
    assert "m" * 60 not in re.sub(r'aria-label="[^"]*"|<title>.*?</title>', "", drawing)
    assert f'aria-label="{"m" * 200}"' in drawing
    assert f"<title>{'m' * 200}: +1.00; dots: +1.00</title>" in drawing


def test_names_stand_left_of_all_that_is_drawn_and_rows_say_their_numbers() -> None:
    rows = [charts.DotRow("a method with a long name", "s1", [-1.0, 2.0], 0.5, (-0.75, 1.75))] * 2
    drawing = str(charts.dot_chart(rows, title="points", name="n", least=0.5))
    starts = [float(x) for x in re.findall(rf'class="grid" d="M({NUMBER})', drawing)]
    starts += [x for x, _ in dot_places(drawing)]
    names = re.findall(rf'<text x="({NUMBER})" y="{NUMBER}" class="name">([^<]*)<', drawing)
    assert names == [("0", "a method w…long name")] * 2
    assert min(starts) > 6.5 * len(names[0][1])
    assert drawing.count("<title>a method with a long name: +0.50 (−0.75 to +1.75); dots: −1.00, +2.00</title>") == 2


def test_a_steep_beginning_is_cut_off_and_does_not_flatten_the_rest() -> None:
    epochs = [float(k) for k in range(1, 21)]
    y = [5.0, 20.0] + [90.0 + 0.1 * k for k in range(18)]
    lines = [charts.Line("s1", epochs, y)]
    flat, cut = (
        str(charts.line_chart(lines, charts.y_axis(lines, settled=s), x_title="epoch", name="n", x_range=(1, 20)))
        for s in (0.0, 0.1)
    )
    rises = []
    for drawing in (flat, cut):
        (line,) = read_path(re.findall(r'class="line s1" d="([^"]*)"', drawing)[0])
        rises.append(line[2][1] - line[-1][1])
        assert line[0][1] > line[-1][1]
    assert rises[1] > 20 * rises[0]
    assert re.search(r"<svg [^>]*overflow=\"hidden\">", cut)
