"""Scores before and after a temperature: over methods, where some are missing, and what is said of them."""

import numpy as np
import pandas as pd
import pytest

from crossfade.stats import compare_methods
from crossfade.stats.calibration import calibration_cells, calibration_means, calibration_notes

AFTER = {"temperature": 1.5, "nll_calibrated": 0.3, "ece_calibrated": 0.02, "brier_calibrated": 0.1}


@pytest.fixture
def fitted(runs):
    """Results of two data sets with temperatures; f0's NLL is enormous in one repeat of five."""
    frame = runs(sets=("a", "b"), methods=("ce", "f0"), repeats=5)
    frame = frame.assign(nll=0.4, ece=0.05, brier=0.2, temperature_bounded=0.0, **AFTER)
    frame.loc[(frame["method"] == "f0") & (frame["repeat"] == 3), ["nll", "temperature"]] = 1e15
    frame.loc[(frame["method"] == "f0") & (frame["dataset"] == "b"), "ece_calibrated"] = 0.04
    return frame


def test_means_of_errors_and_medians_of_what_has_no_bound(fitted):
    found = calibration_means(fitted)
    assert list(found.index) == ["ce", "f0"]
    assert found.loc["f0", ["temperature", "nll", "ece"]].tolist() == [1.5, 0.4, 0.05]
    assert found.loc["f0", "ece_calibrated"] == pytest.approx(0.03)
    assert calibration_cells(fitted)["f0"] == ("1.50", "0.400", "0.300", "5.00", "3.00", "0.200", "0.100")


def test_the_kept_networks_scores_come_first(fitted):
    kept = fitted.assign(nll_kept=0.6, ece_kept=np.nan)
    found = calibration_means(kept)
    assert found["nll"].tolist() == [0.6, 0.6]
    assert found["ece"].tolist() == [0.05, 0.05]  # a row from before


def test_what_is_not_known_is_a_dash(fitted):
    old = fitted.drop(columns=[*AFTER, "temperature_bounded"])
    assert calibration_cells(old)["ce"] == ("—", "0.400", "—", "5.00", "—", "0.200", "—")
    assert list(calibration_notes(old)) == []
    mixed = fitted.copy()
    mixed.loc[mixed.index[mixed["method"] == "ce"][0], list(AFTER)] = np.nan
    assert calibration_cells(mixed)["ce"] == ("—", "0.400", "—", "5.00", "—", "0.200", "—")
    assert calibration_cells(mixed)["f0"][0] == "1.50"
    bare = fitted[["dataset", "method", "repeat"]]
    assert set(calibration_cells(bare)["ce"]) == {"—"}


def test_bounded_temperatures_are_counted(fitted):
    (how,) = calibration_notes(fitted)
    assert "no answer changes" in how
    fitted.loc[fitted.index[:3], "temperature_bounded"] = 1.0
    _, bounded = calibration_notes(fitted)
    assert bounded.startswith("In 3 of 20 trials NLL has no minimum: without a mistake")
    assert list(calibration_notes(fitted.drop(columns="temperature"))) == []  # nothing is known of any temperature


def test_a_comparison_has_the_figures_in_its_rows_and_notes(fitted):
    found = compare_methods(fitted)
    row = next(row for row in found.overall if row.method == "f0")
    assert (row.temperature, row.nll_calibrated, row.brier_calibrated) == (1.5, pytest.approx(0.3), pytest.approx(0.1))
    assert row.ece_calibrated == pytest.approx(0.03)
    assert any("One temperature a network" in note for note in found.notes)
    plain = found.to_dict()["overall"]
    assert plain[1]["temperature"] == 1.5
    old = compare_methods(fitted.drop(columns=list(AFTER)))
    assert {row.temperature for row in old.overall} == {None}
    assert not any("temperature" in note for note in old.notes)


def test_worse_calibration_is_told_with_what_a_temperature_leaves_of_it(fitted):
    fitted.loc[fitted["method"] == "f0", "ece"] = 0.09
    assert compare_methods(fitted).warnings[-1] == (
        "Calibration error is at least a point above the 5.0 points of ce: f0 9.0 (means, not tested); after one "
        "temperature on the validation part ce 2.0, f0 3.0."
    )
    fitted.loc[fitted.index[fitted["method"] == "f0"][0], "ece_calibrated"] = np.nan
    assert compare_methods(fitted).warnings[-1].endswith("ce 2.0, f0 —.")
    without = compare_methods(fitted.drop(columns="ece_calibrated"))
    assert without.warnings[-1].endswith("f0 9.0 (means, not tested).")


def test_repeats_may_have_names(fitted):
    named = fitted.assign(repeat="seed " + fitted["repeat"].astype(str))
    assert calibration_cells(named) == calibration_cells(fitted)


def test_of_integers_too():
    frame = pd.DataFrame({"dataset": "a", "method": ["ce", "f0"], "repeat": 0, "nll": [1, 2], "temperature": [1, 2]})
    assert calibration_cells(frame)["f0"][:2] == ("2.00", "2.000")
