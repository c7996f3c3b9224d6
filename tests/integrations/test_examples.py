"""Every example runs at its smallest size, in this process: a new one would spend its time on imports."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "accelerate_loop": ["accelerate"],
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


@pytest.mark.parametrize("name", sorted(NEEDS))
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
