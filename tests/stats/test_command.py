import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from crossfade.cli.stats import stats
from crossfade.errors import UserError
from crossfade.stats import analyze, compare_with_control, conover, friedman, score_matrix, summarize


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    rows = [
        (f"d{i}", method, seed, round(0.8 + 0.02 * j + rng.normal(0, 0.02), 3))
        for i in range(25)
        for j, method in enumerate(["ce", "none", "a [bold]name[/bold]"])
        for seed in (1, 2)
    ]
    return pd.DataFrame(rows, columns=["task", "loss", "seed", "f1"])


NAMES = {"block": "task", "method": "loss", "score": "f1", "repeat": "seed"}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_prints_the_tables_of_any_file(tmp_path, capsys, frame, suffix):
    path = tmp_path / f"results.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if suffix == "tsv" else ",", index=False)
    assert stats(path, **NAMES, control="ce") == 0
    said = capsys.readouterr().out
    matrix = score_matrix(frame, **NAMES)
    row = summarize(matrix, "ce")[1]
    line = next(line for line in said.splitlines() if line.strip().startswith("none"))
    expected = [f"{row.mean_score:.4f}", f"{row.wins:g}", f"{row.mean_delta:+.4f}", f"{row.mean_rank:.3f}"]
    assert line.split()[1:5] == expected
    assert f"chi2(2) = {friedman(matrix).chi2:.4g}" in said
    assert "a [bold]name[/bold]" in said
    assert "Against ce" in said
    assert "…" not in said


def test_writes_figures_and_numbers(tmp_path, frame):
    path, matrix = tmp_path / "results.csv", score_matrix(frame, **NAMES)
    frame.to_csv(path, index=False)
    assert stats(path, **NAMES, control="ce", out=tmp_path / "figures", json=tmp_path / "numbers.json") == 0
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "ranks.svg", "signs.svg", "profile.svg", "differences.svg",
    }  # fmt: skip
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["conover_bh"]["ce"]["none"] == pytest.approx(conover(matrix).loc["ce", "none"])
    assert numbers["against_control"][0]["p_adjusted"] == compare_with_control(matrix, "ce")[0].p_adjusted
    assert numbers["by_repeat"][0]["method"] == "ce"


def test_without_control_and_with_errors(tmp_path, capsys, frame):
    path = tmp_path / "results.csv"
    frame.assign(f1=1 - frame.f1).to_csv(path, index=False)
    stats(path, **NAMES, lower_is_better=True, out=tmp_path)
    said = capsys.readouterr().out
    assert "lower is better" in said
    assert "Against" not in said
    assert not (tmp_path / "differences.svg").exists()
    assert next(line for line in said.splitlines() if "bold" in line).split()[4] == summarized_rank(frame)


def summarized_rank(frame):
    return f"{summarize(score_matrix(frame, **NAMES))[2].mean_rank:.3f}"


def test_all_blocks_agree(tmp_path, capsys):
    path = tmp_path / "r.csv"
    pd.DataFrame(
        [(f"d{i}", m, i + j) for i in range(4) for j, m in enumerate("abc")], columns=["dataset", "method", "accuracy"]
    ).to_csv(path, index=False)
    stats(path, json=tmp_path / "r.json")
    said = capsys.readouterr().out
    assert "F(2, 6) = inf, p < 0.001" in said
    assert "All blocks agree on one order: by chance alone p = 0.005; F and" in said  # (3!)^-3 = 0.0046
    assert "nan" not in said
    assert json.loads((tmp_path / "r.json").read_text())["friedman"]["f"] is None


def test_two_blocks_that_agree_are_no_proof(tmp_path, capsys):
    path = tmp_path / "r.csv"
    path.write_text("dataset,method,accuracy\na,x,1\na,y,2\na,z,2\nb,x,0\nb,y,3\nb,z,3\n")
    stats(path)
    assert "by chance alone p = 0.333;" in capsys.readouterr().out  # three orders with the last two tied


def test_labels_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("dataset,method,accuracy\n01,x,1\n01,y,2\n1,x,4\n1,y,3\n")
    stats(path, json=tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["blocks"] == ["01", "1"]


@pytest.mark.parametrize(("scale", "shown"), [(1e200, "1.5e+200"), (1e-9, "1.5e-09"), (1.0, "1.500")])
def test_scores_of_any_size_are_short(tmp_path, capsys, scale, shown):
    path = tmp_path / "r.csv"
    cells = [(name, method, scale * (i + j)) for i, name in enumerate("ab") for j, method in enumerate("xy")]
    pd.DataFrame(cells, columns=["dataset", "method", "accuracy"]).to_csv(path, index=False)
    stats(path)
    assert next(line for line in capsys.readouterr().out.splitlines() if line.startswith("y ")).split()[1] == shown


def test_what_is_refused(tmp_path, frame):
    path = tmp_path / "results.csv"
    frame.to_csv(path, index=False)
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    for arguments, message in (
        ({"file": tmp_path / "no.csv"}, "no such file"),
        ({"file": empty}, "empty"),
        ({"file": path}, "'dataset' not found"),
        ({"file": path, **NAMES, "repeat": None}, "more than one score"),
        ({"file": path, **NAMES, "control": "cee"}, "did you mean 'ce'"),
        ({"file": path, **NAMES, "alpha": 5.0}, "alpha"),
        ({"file": path, "items": "task", "method": "loss", "score": "f1", "alpha": 5.0}, "alpha must .* got 5.0"),
        ({"file": path, **NAMES, "json": tmp_path / "no" / "x.json"}, "--json"),
        ({"file": path, **NAMES, "out": path}, "--out"),
    ):
        given = dict(arguments)
        with pytest.raises(UserError, match=message):
            stats(given.pop("file"), **given)


def test_repeats_numbered_block_by_block_have_no_summary_a_repeat(frame):
    own = frame.assign(seed=frame.task + "-" + frame.seed.astype(str))
    assert analyze(own, **NAMES).by_repeat is None
    assert analyze(frame, **NAMES).by_repeat is not None


def test_importing_the_statistics_is_light():
    code = (
        "import sys, crossfade.stats; heavy = {'torch', 'pandas', 'scipy', 'matplotlib', 'sklearn'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_typed_and_documented():
    import crossfade.stats as package

    assert len(package.__all__) > 40
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing  # noqa: B018


def test_examples_in_docstrings():
    import doctest
    import importlib
    import pkgutil

    import crossfade.stats as package

    tried = 0
    for module in pkgutil.walk_packages(package.__path__, "crossfade.stats."):
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0, module.name
        tried += result.attempted
    assert tried > 15
