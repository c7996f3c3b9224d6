"""The figures of a comparison show the numbers of its frames: names and paths are read back from the page."""

from __future__ import annotations

import html as markup
import re

import numpy as np
import pandas as pd
import pytest

from crossfade.report import comparison_page
from tests.report.report_cases import make
from tests.report.test_report_drawings import axis_of, dot_places, read_path


def drawings(page: str, beginning: str) -> list[str]:
    """The drawings whose name begins so."""
    found = re.findall(r'<svg class="chart" viewBox="[^"]*" role="img".*?</svg>(?=</?div)', page, re.DOTALL)
    named = [(markup.unescape(re.findall(r'aria-label="([^"]*)"', drawing)[0]), drawing) for drawing in found]
    return [drawing for name, drawing in named if name.startswith(beginning)]


def name_of(drawing: str) -> str:
    return markup.unescape(re.findall(r'aria-label="([^"]*)"', drawing)[0])


def said(drawing: str) -> dict[str, float]:
    """The numbers in the name of a drawing, by method."""
    listed = name_of(drawing).rpartition(": ")[2].split(", ")
    return {item.rpartition(" ")[0]: float(item.rpartition(" ")[2].replace("−", "-")) for item in listed}


def test_paired_differences_of_one_data_set() -> None:
    results, curves, meta = make(1, ["ce", "el"], 7, epochs=3)
    (drawing,) = drawings(comparison_page(results, curves, meta), "Δ accuracy")
    wide = results.pivot(index="repeat", columns="method", values="accuracy")
    differences = 100 * (wide["el"] - wide["ce"])
    zero, scale = axis_of(drawing)
    assert sorted(x for x, _ in dot_places(drawing)) == pytest.approx(sorted(zero + scale * differences), abs=0.3)
    assert said(drawing) == {"el": pytest.approx(differences.mean(), abs=0.00501)}
    assert "one dot a repeat" in name_of(drawing)


def test_paired_differences_over_data_sets_are_of_means() -> None:
    results, curves, meta = make(3, ["ce", "el"], 4, epochs=3)
    overall, *single = drawings(comparison_page(results, curves, meta), "Δ accuracy")
    assert len(single) == 3
    wide = results.groupby(["dataset", "method"])["accuracy"].mean().unstack()
    zero, scale = axis_of(overall)
    places = sorted(zero + scale * 100 * (wide["el"] - wide["ce"]))
    assert sorted(x for x, _ in dot_places(overall)) == pytest.approx(places, abs=0.3)
    assert "one dot a data set" in name_of(overall)


def test_curves_are_mean_accuracy_and_median_nll_over_the_repeats() -> None:
    results, curves, meta = make(1, ["ce", "el"], 5, epochs=10)
    curves["test_nll"] *= 1 + curves["repeat"] ** 2  # mean and median far apart
    curves["test_accuracy"] *= 1 - 0.05 * curves["repeat"] ** 2
    page = comparison_page(results, curves, meta)
    last = curves[curves["epoch"] == 10].groupby("method")
    for title, column, unit, how in (
        ("Validation accuracy", "val_accuracy", 100, "mean"),
        ("Test accuracy", "test_accuracy", 100, "mean"),
        ("Test NLL", "test_nll", 1, "median"),
    ):
        (drawing,) = drawings(page, title)
        expected = unit * last[column].agg(how)
        assert said(drawing) == {
            "ce": pytest.approx(expected["ce"], abs=0.00501), "el": pytest.approx(expected["el"], abs=0.00501)
        }  # fmt: skip


def test_overall_curves_are_means_over_data_sets_of_their_curves() -> None:
    results, curves, meta = make(3, ["ce", "el"], 3, epochs=6)
    overall = drawings(comparison_page(results, curves, meta), "Test NLL")[0]
    last = curves[curves["epoch"] == 6].groupby(["dataset", "method"])["test_nll"].median().groupby("method").mean()
    assert said(overall) == {name: pytest.approx(last[key], abs=0.00501) for name, key in (("ce", "ce"), ("el", "el"))}


def test_lines_have_a_point_an_epoch_at_its_height() -> None:
    results, curves, meta = make(1, ["ce", "el"], 1, epochs=20)
    rising = np.linspace(0.5, 0.9, 20)
    curves.loc[curves["method"] == "el", "val_accuracy"] = rising
    (drawing,) = drawings(comparison_page(results, curves, meta), "Validation accuracy")
    (line,) = read_path(re.findall(r'class="line s1" d="([^"]*)"', drawing)[0])
    x, y = np.array(line).T
    assert len(line) == 20
    assert np.ptp(np.diff(x)) < 0.21
    assert np.ptp(np.diff(y)) < 0.21
    assert y[-1] < y[0]
    labels = re.findall(r'y="([\d.]+)" class="end">([\d.]+)<', drawing)
    heights, values = (np.array([float(pair[k]) for pair in labels]) for k in (0, 1))
    slope, offset = np.polyfit(values, heights - 4, 1)  # labels stand 4 pixels below their grid line
    assert y == pytest.approx(slope * 100 * rising + offset, abs=0.3)


def test_curves_of_one_epoch_and_of_unequal_lengths() -> None:
    results, curves, meta = make(1, 3, 2, epochs=1)
    assert drawings(comparison_page(results, curves, meta), "Test accuracy")
    longer = make(1, 3, 2, epochs=9)[1]
    mixed = pd.concat([curves[curves["method"] != "f0"], longer[longer["method"] == "f0"]])
    (drawing,) = drawings(comparison_page(results, mixed, meta), "Test accuracy")
    assert len(read_path(re.findall(r'class="line s1" d="([^"]*)"', drawing)[0])[0]) == 9
