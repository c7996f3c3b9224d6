"""`crossfade run figure1 | taylor` as a user runs them."""

from __future__ import annotations

import pandas as pd
import pytest


@pytest.mark.parametrize(("study", "table"), [("figure1", "peaks.csv"), ("taylor", "claims.csv")])
def test_writes_its_tables(study, table, tmp_path, call):
    status, out, err = call("run", study, "--out", tmp_path / "out", "--scale", "smoke")
    assert status == 0, err
    assert table in out
    assert len(pd.read_csv(tmp_path / "out" / table)) > 2
    assert call("run", study, "--out", tmp_path / "out", "--scale", "smoke", "-q") == (0, "", "")


def test_a_file_in_the_way_is_one_line(tmp_path, call):
    (tmp_path / "out").write_text("")
    status, _, err = call("run", "taylor", "--out", tmp_path / "out")
    assert status == 2
    assert "expected a folder" in err
    assert err.count("\n") == 1
