"""`crossfade run figure1 | taylor` as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crossfade.cli", "run", *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(("study", "table"), [("figure1", "peaks.csv"), ("taylor", "claims.csv")])
def test_writes_its_tables(study: str, table: str, tmp_path: Path) -> None:
    done = run(study, "--out", str(tmp_path / "out"), "--scale", "smoke")
    assert done.returncode == 0, done.stderr
    assert table in done.stdout
    assert len(pd.read_csv(tmp_path / "out" / table)) > 2


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    done = run("taylor", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "expected a folder" in done.stderr
    assert "Traceback" not in done.stderr
