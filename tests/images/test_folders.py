"""A comparison on a folder of images, from Python and by the command, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossfade.errors import UserError
from crossfade.lab import compare_folder
from crossfade.lab.comparison import plan as plan_comparison
from crossfade.lab.hardware import Hardware
from crossfade.lab.settings import Images, Settings
from crossfade.lab.store import Store
from tests.images.image_cases import folder

CPU = Hardware(accelerator="cpu")


def test_compare_a_folder(tmp_path):
    folder(tmp_path / "mine")
    settings = {"methods": ["gradual"], "net": "tiny", "repeats": 2, "epochs": 2, "images": Images(image_size=16)}
    logged = replace(CPU, logger="csv")
    answer = compare_folder(tmp_path / "mine", store=tmp_path / "s.db", hardware=logged, progress=False, **settings)
    assert len(list((tmp_path / "s.db.work" / "logs").rglob("metrics.csv"))) == 4  # kept when checkpoints are removed
    assert list(answer.table.index) == ["ce", "gradual"]
    assert set(answer.results["n_test"]) == {6}
    assert "mine" in answer.verdict or answer.verdict
    page = answer.report(tmp_path / "page.html").read_text()
    assert "mine" in page
    planned = plan_comparison(
        tmp_path / "mine", Settings.of({"methods": ["gradual"], "repeats": 2, "image_size": 16}), "x"
    )
    seeds = {(trial.repeat, trial.method.name) for trial in planned.trials}
    assert len(seeds) == 4
    for row in answer.results.itertuples():
        assert len(row.hits) == 30
        assert row.hits[row.hits >= 0].mean() == pytest.approx(row.accuracy)
    assert not np.array_equal(*(part["hits"].iloc[0] >= 0 for _, part in answer.results.groupby("repeat")))
    assert answer.comparison.paired[0].interval.kind == "out-of-fold t"


def test_a_folders_own_test_images_are_judged_one_by_one(tmp_path):
    for part in ("train", "test"):
        folder(tmp_path / "mine" / part)
    settings = {"methods": ["gradual"], "net": "tiny", "repeats": 2, "epochs": 2, "images": Images(image_size=16)}
    answer = compare_folder(tmp_path / "mine", store=tmp_path / "s.db", hardware=CPU, progress=False, **settings)
    assert all((row.hits >= 0).all() and len(row.hits) == row.n_test == 30 for row in answer.results.itertuples())
    assert "McNemar's exact test" in answer.verdict
    assert answer.comparison.paired[0].fixed_test
    assert any("other test rows like these" in line for line in answer.comparison.notes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"net": "resnet21"}, "did you mean"),
        ({"net": "resnet20", "pretrained": True}, "no pretrained"),
        ({"methods": ("ce",)}, "only the control"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, changes, says):
    folder(tmp_path, each=4)
    with pytest.raises(UserError, match=says):
        plan_comparison(tmp_path, Settings.of(changes), "x")


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read_or_trained(tmp_path, monkeypatch):
    folder(tmp_path / "mine")
    monkeypatch.setattr("crossfade.lab.comparison.device_memory", lambda hardware: 2.0**20)
    with pytest.raises(UserError, match=r"^resnet20 with \d+ examples at once need .* smaller --batch-size, --"):
        plan_comparison(tmp_path / "mine", Settings.of({}), "x")
    monkeypatch.setattr("crossfade.lab.hardware.available_memory", lambda: 2.0**20)
    with pytest.raises(UserError, match=r"30 images of 512 x 512 pixels need about .* use a smaller --image-size$"):
        plan_comparison(tmp_path / "mine", Settings.of({"image_size": 512}), "x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_here_is_one_line_and_on_a_cluster_it_may_be(tmp_path):
    folder(tmp_path / "mine")
    with pytest.raises(UserError, match=r"^device 'cuda' can't be used here"):
        plan_comparison(tmp_path / "mine", Settings.of({}), "x", hardware=Hardware("gpu"))
    assert plan_comparison(tmp_path / "mine", Settings.of({}), "x", hardware=Hardware("gpu", ray="auto")).trials


def test_the_command_compares_a_folder_and_names_what_is_broken(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "mine", each=5)
    options = ["--methods", "gradual", "--repeats", "2", "--epochs", "1", "--image-size", "16", "--accelerator", "cpu"]
    code, _, err = call("compare", "mine", *options, "--net", "tiny", "--json", "answer.json")
    assert code == 0, err
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert len(answer["results"]) == 4
    assert (tmp_path / "report.html").exists()
    for name, says in (("nonsense", "must be one of auto, gpu, "), ("tpu", "tpu, --devices: ")):
        code, _, err = call("compare", "mine", *options[:-1], name, "--net", "tiny", "-q", "--store", f"{name}.db")
        assert (code, err.count("\n")) == (2, 1)
        assert f"--accelerator {says}" in err
        with Store(f"{name}.db", "read") as store:
            assert not list(store.rows())
    (tmp_path / "mine" / "x" / "0.png").write_bytes(b"")
    code, _, err = call("compare", "mine")
    assert code == 2
    assert "0.png (empty file)" in err
    assert err.count("\n") == 1
