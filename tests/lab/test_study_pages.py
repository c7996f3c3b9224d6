"""Our results beside the paper's, as the pages of studies show them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from crossfade.lab.paper.image_studies import IMAGE_STUDIES
from crossfade.lab.paper.page import beside_paper


def test_differences_are_paired_over_seeds():
    study = IMAGE_STUDIES["table1"]
    label = study.cells[1].label
    rows = [
        {"dataset": label, "method": name, "repeat": at, "accuracy": value}
        for name, values in (("ce", (0.60, 0.70)), ("gradual", (0.63,)))
        for at, value in enumerate(values)
    ]
    table = beside_paper(study.cells, pd.DataFrame(rows)).set_index(["dataset", "method"])
    row = table.loc[(label, "gradual")]
    assert row["delta"] == pytest.approx(3.0)
    assert row["paper_delta"] == pytest.approx(0.23)
    assert table.loc[(label, "ce"), "ours"] == pytest.approx(65.0)
    assert table["delta_half"].isna().all()  # an interval needs three seeds


def test_differences_over_three_seeds_have_students_interval():
    study = IMAGE_STUDIES["table1"]
    scores = {"ce": np.array([0.60, 0.70, 0.65]), "f0": np.array([0.61, 0.73, 0.67])}
    rows = [
        {"dataset": study.cells[0].label, "method": name, "repeat": at, "accuracy": value}
        for name, values in scores.items()
        for at, value in enumerate(values)
    ]
    results = pd.DataFrame(rows)
    gaps = 100 * (scores["f0"] - scores["ce"])
    half = scipy_stats.t.ppf(0.975, 2) * scipy_stats.sem(gaps)
    shown = beside_paper(study.cells, results).set_index("method").dropna(subset="delta_half")
    assert shown.loc["f0", "delta_half"] == pytest.approx(half)
    assert f"| f0 | 67.00 ± 6.00 | 3 | +2.00 ± {half:.2f} |" in study.page(results, "paper")
