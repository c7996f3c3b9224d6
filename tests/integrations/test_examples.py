"""Every example runs at its smallest size, in this process: a new one would spend its time on imports."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "accelerate_loop": ["accelerate"],
    "causal_lm": ["transformers", "accelerate"],
    "ddp": [],
    "hf_trainer": ["transformers", "accelerate"],
    "lightning_digits": ["lightning"],
    "plain_loop": [],
    "sklearn_grid_search": ["skorch"],
    "timm_mixup": ["timm"],
    "torchvision_references": ["torchvision"],
    "trl_sft": ["trl"],
}


def run(name, monkeypatch, capsys, *arguments):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [f"examples/{name}.py", "--smoke", *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_each_example_is_listed():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*NEEDS, "texts"}


@pytest.mark.parametrize("name", sorted(NEEDS.keys() - {"causal_lm"}))  # that one runs below
def test_example(name, monkeypatch, capsys):
    for package in NEEDS[name]:
        pytest.importorskip(package)
    if package_state := sys.modules.get("accelerate.state"):
        package_state.AcceleratorState._reset_state(reset_partial_state=True)
    assert "accuracy" in run(name, monkeypatch, capsys)


def test_plain_loop_resumes_where_its_checkpoint_ended(tmp_path, monkeypatch, capsys):
    file = tmp_path / "last.pt"
    first = run("plain_loop", monkeypatch, capsys, "--checkpoint", file)
    written = file.stat().st_mtime_ns
    assert run("plain_loop", monkeypatch, capsys, "--checkpoint", file) == first
    assert file.stat().st_mtime_ns == written  # all epochs are done: nothing was trained again


def test_causal_lm_prints_its_table_and_keeps_finished_runs(tmp_path, monkeypatch, capsys):
    for package in NEEDS["causal_lm"]:
        pytest.importorskip(package)
    printed = run("causal_lm", monkeypatch, capsys, "--output", tmp_path)
    assert "| unknown | mixture, F=0 | 0.0005 |" in printed
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 5
    (tmp_path / "results.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert run("causal_lm", monkeypatch, capsys, "--output", tmp_path).count("seed 0 rate") == 1
    assert (tmp_path / "results.csv").read_text().splitlines() == lines

    (tmp_path / "provenance.json").write_text('{"scale": {}}')
    with pytest.raises(SystemExit, match="another scale"):
        run("causal_lm", monkeypatch, capsys, "--output", tmp_path)
