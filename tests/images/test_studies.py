"""Studies on images, the weights that they keep, and their files."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from crossfade.errors import UserError
from crossfade.lab import compare_folder, frames
from crossfade.lab.data import image_sets
from crossfade.lab.data.images import ImageSet, ImageTask
from crossfade.lab.hardware import Hardware
from crossfade.lab.nets import load_model, read_provenance
from crossfade.lab.paper.image_studies import IMAGE_STUDIES, MOTIVATING, escape_table, scaled
from crossfade.lab.paper.study import Request, plan
from crossfade.lab.run import Summary, run_request, unknown
from crossfade.lab.settings import Images
from crossfade.lab.store import Store
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.deep.run import estimate
from tests.images.image_cases import folder, noise

CPU = Hardware(accelerator="cpu")


@pytest.mark.parametrize("name", IMAGE_STUDIES)
def test_a_study_is_the_papers(name):
    study = IMAGE_STUDIES[name]
    assert study.name == name
    for cell in study.cells:
        assert cell.recipe.scale == "paper"
        assert (cell.recipe.momentum, cell.recipe.weight_decay, cell.recipe.learning_rate) == (0.9, 1e-4, 0.1)
        assert set(cell.paper) <= set(cell.methods)
        short, per_class, _, repeats = scaled(cell, "short")
        assert short.scale == "short"
        assert repeats <= 2
        assert per_class
        whole = [at / cell.recipe.epochs for at in cell.recipe.milestones]
        assert [at / short.epochs for at in short.milestones] == pytest.approx(whole, abs=1e-6)


def test_another_number_of_epochs_keeps_the_fractions_and_is_labelled():
    cell = next(
        cell for cell in IMAGE_STUDIES["table1"].cells if cell.recipe.net == "resnet20" and cell.data == "cifar100"
    )
    recipe, each, test, repeats = scaled(cell, "paper", epochs=12)
    assert (recipe.epochs, recipe.milestones, recipe.watch, recipe.batch_size) == (12, (6, 8, 10), 9, 128)
    assert (recipe.scale, recipe.granularity, each, test, repeats) == ("own", "step", None, None, cell.repeats)
    short, each, _, _ = scaled(cell, "short", epochs=18)
    assert (short.epochs, short.milestones, short.scale, each) == (18, (9, 12, 15), "short", 48)
    assert scaled(cell, "paper")[0] == cell.recipe


def test_protocols_as_printed():
    protocols = {
        (cell.data, cell.recipe.epochs, cell.recipe.milestones, cell.repeats)
        for name in ("table1", "table2", "table5")
        for cell in IMAGE_STUDIES[name].cells
    }
    assert protocols == {
        ("cifar100", 240, (120, 160, 200), 4), ("cinic10", 90, (30, 60), 3), ("imagenet", 90, (30, 60), 2),
        ("cifar100", 200, (100, 150), 1), ("tinyimagenet", 200, (100, 150), 1), ("imagenet", 200, (100, 150), 1),
    }  # fmt: skip
    printed = IMAGE_STUDIES["table5"]
    other = {cell.data: (cell.recipe.epochs, cell.recipe.milestones) for cell in printed.by("cot").cells}
    assert other == {"cifar100": (200, (100, 150)), "tinyimagenet": (200, (100, 150)), "imagenet": (90, (30, 60))}
    assert printed.by(None) is printed
    for name, protocol in (("table5", "coat"), ("table1", "cot")):
        with pytest.raises(UserError, match=f"--protocol: {name} has .*, got '{protocol}'"):
            IMAGE_STUDIES[name].by(protocol)


def test_rotation_on_cinic_above_a_million_parameters():
    from crossfade.lab.nets import build

    for cell in IMAGE_STUDIES["table1"].cells:
        turned = cell.recipe.augment.rotation > 0
        with torch.device("meta"):  # a network's size needs no numbers
            large = sum(p.numel() for p in build(cell.recipe.net, 10).parameters()) > 1e6
        assert turned == (cell.data == "cinic10" and large)


def test_the_motivating_counts_are_the_papers():
    counts = MOTIVATING.counted
    assert sum(counts[f"watch_{group}"] for group in ("right", "near", "far")) == 10_000
    for group, share in (("right", 95.58), ("near", 38.46), ("far", 3.35)):
        # 6,482 of 6,766 is 95.80 %, not the 95.58 % that is printed
        printed = 95.80 if group == "right" else share
        assert 100 * counts[f"end_{group}"] / counts[f"watch_{group}"] == pytest.approx(printed, abs=0.006)


def with_first_cell(name, **changes):
    """The study with its first cell alone, whose recipe is changed."""
    study = IMAGE_STUDIES[name]
    return replace(study, cells=(replace(study.cells[0], recipe=replace(study.cells[0].recipe, **changes)),))


def trained(planned, store, **options) -> Summary:
    return run_request(planned.runs, planned.trials, store, options.pop("hardware", CPU), progress=False, **options)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A small stand-in with the layout of CIFAR-100, and the watching study cut down to a tiny network."""
    known = image_sets.IMAGE_SETS["cifar100"]
    monkeypatch.setitem(image_sets.IMAGE_SETS, "cifar100", replace(known, train=60, test=20, classes=4))
    train, test = noise(60, side=32), noise(20, side=32, seed=1)
    arrays = {
        f"{kind}_{part}": value
        for part, one in (("train", train), ("test", test))
        for kind, value in (("x", one.images.permute(0, 2, 3, 1).numpy()), ("y", one.labels.numpy()))
    }
    np.savez(tmp_path / "cifar100.npz", **arrays)
    return tmp_path, with_first_cell("motivating", net="tiny")


def test_a_study_runs_resumes_and_is_set_beside_the_paper(cifar, tmp_path):
    folder, study = cifar
    planned = plan(study, Request(folder, "smoke", methods=("ce", "gradual")), "test")
    assert "smoke, not the paper's protocol" in planned.lines[0]
    assert len(planned.trials) == 2
    one, both = estimate(planned.trials[:1], CPU), estimate(planned.trials, CPU)
    assert 0 < one < 2 * both  # timed anew each time: no more than the order is sure
    path = tmp_path / "s.db"
    assert unknown(planned.trials, path) == list(planned.trials)
    summary = trained(planned, path, keep_weights=tmp_path / "weights")
    assert (summary.done, summary.failed) == (2, 0)
    assert unknown(planned.trials, path) == []  # what the announced time is of
    assert trained(planned, path).known == 2
    assert not (tmp_path / "s.db.work").exists()
    with Store(path, mode="read") as store:
        results, curves = frames.results(store, planned.keys), frames.curves(store, planned.keys)
    assert set(results["scale"]) == {"smoke"}
    assert curves["epoch"].tolist() == [1, 2, 1, 2]
    last = curves[curves["epoch"] == 2].set_index("method")["test_accuracy"]
    assert results.set_index("method")["accuracy"].to_dict() == last.to_dict()
    groups = results[[f"watch_{group}" for group in ("right", "near", "far")]].sum(axis=1)
    assert groups.tolist() == [8, 8]  # two images of each of four classes
    page = study.page(results, "smoke")
    assert "Scale **smoke**" in page
    assert "68.05" in page
    first = results.iloc[0]
    model = load_model(tmp_path / "weights" / f"{first['key']}.safetensors")
    about = read_provenance(tmp_path / "weights" / f"{first['key']}.safetensors")
    task = planned.trials[0].task.split(0)
    pixels = (task.test.images / 255 - torch.tensor(about["mean"]).view(3, 1, 1)) / torch.tensor(about["std"]).view(
        3, 1, 1
    )
    with torch.no_grad():
        right = (model(pixels.float()).argmax(1) == task.test.labels).float().mean().item()
    assert right == pytest.approx(first["accuracy"])
    assert about["trial"]["method"] == {"name": first["method"]}
    assert {"versions", "seed", "commit", "epoch"} <= about.keys()


def test_a_part_set_aside_gives_a_temperature_that_kept_weights_carry(cifar, tmp_path):
    folder, study = cifar
    usual = plan(study, Request(folder, methods=("ce", "gradual"), epochs=2), "test")
    planned = plan(study, Request(folder, methods=("ce", "gradual"), epochs=2, validation=0.2), "test")
    assert {trial.key for trial in usual.trials}.isdisjoint(trial.key for trial in planned.trials)
    assert any("20 % of the training examples fit a temperature, and no weights" in note for note in planned.notes)
    trained(planned, tmp_path / "s.db", keep_weights=tmp_path / "weights")
    with Store(tmp_path / "s.db", mode="read") as store:
        results = frames.results(store, planned.keys)
    assert set(results["n_val"]) == {12}
    assert "| method | Temperature | NLL | after |" in study.page(results, planned.scale)
    test = planned.trials[0].task.split(0).test
    for row in results.itertuples():
        file = tmp_path / "weights" / f"{row.key}.safetensors"
        plain, calibrated = load_model(file), load_model(file, calibrated=True)
        assert plain.provenance["temperature"] == pytest.approx(row.temperature, rel=1e-6)
        about = plain.provenance
        pixels = test.images / 255 - torch.tensor(about["mean"]).view(3, 1, 1)
        pixels = (pixels / torch.tensor(about["std"]).view(3, 1, 1)).float()
        with torch.no_grad():
            before, after = plain(pixels), copy.deepcopy(pickle.loads(pickle.dumps(calibrated)))(pixels)
        torch.testing.assert_close(after, before / row.temperature)
        nll = torch.nn.functional.cross_entropy(after, test.labels).item()
        assert nll == pytest.approx(row.nll_calibrated, rel=1e-4)


def test_last_weights_beside_chosen_ones_have_no_temperature(tmp_path):
    folder(tmp_path / "mine")
    settings = {"methods": ["gradual"], "net": "tiny", "repeats": 1, "epochs": 3, "images": Images(image_size=16)}
    places = {"store": tmp_path / "s.db", "keep_weights": tmp_path / "weights"}
    answer = compare_folder(tmp_path / "mine", hardware=CPU, progress=False, **places, **settings)
    for row in answer.results.itertuples():
        best = load_model(tmp_path / "weights" / f"{row.key}.best.safetensors", calibrated=True)
        assert best.provenance["temperature"] == pytest.approx(row.temperature, rel=1e-6)
        with pytest.raises(UserError, match="has no temperature; expected the weights of the chosen epoch"):
            load_model(tmp_path / "weights" / f"{row.key}.safetensors", calibrated=True)


def test_escapes_are_counted_by_group(tmp_path):
    from crossfade.diagnostics import ProbabilityRecorder
    from crossfade.lab.train.deep.record import escapes

    recorder = ProbabilityRecorder(tmp_path, 5, 4)
    target = torch.zeros(5, dtype=torch.long)
    # two classes more than the target's: p_y of a wrong prediction can be above and below 0.2
    then = torch.tensor([[5.0, 0, 0], [0.9, 1, 1], [-9, 0, 0], [-9, 1, 0], [0.9, 1, 0]])
    end = torch.tensor([[5.0, 0, 0], [1.1, 1, 1], [-9, 0, 0], [9, 1, 0], [0.9, 1, 0]])
    recorder.record(1, torch.arange(5), then, target)
    recorder.record(3, torch.arange(5), end, target)
    recorder.flush()
    counts = escapes(tmp_path, ImageRecipe(epochs=4, milestones=(), watch=2))
    assert counts == {
        "watch_right": 1, "watch_near": 2, "watch_far": 2, "end_right": 1, "end_near": 1, "end_far": 1,
    }  # fmt: skip
    row = {"dataset": "x", "method": "ce", **counts}
    assert escape_table(pd.DataFrame([row])).loc[0, "share_far"] == 50


@pytest.mark.parametrize("study", ["table1", "table5", "normmatched"])
def test_any_method_can_be_asked_for_and_old_names_are_known(cifar, study):
    folder, _ = cifar
    asked = ("mmc", "ce-volume-own", "cot", "ce", "mpce", "ce-matched")
    planned = plan(IMAGE_STUDIES[study], Request(folder, "smoke", datasets=("cifar100",), methods=asked), "test")
    found = dict.fromkeys(trial.method.name for trial in planned.trials)
    assert set(found) == {"mmc", "ce-rate-matched", "cot", "ce", "mpce", "ce-matched"}
    assert next(iter(found)) == "ce"  # a study's own methods keep their order


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nets": ("resnet21",)}, "net 'resnet21' is unknown"),
        ({"datasets": ("mnist",)}, "--datasets: 'mnist' isn't in motivating .*, and any folder of class folders"),
        ({"methods": ("focl",)}, "no method 'focl': did you mean 'focal'"),
        ({"repeats": 0}, "--repeats"),
        ({"scale": "long"}, "--scale"),
        ({"validation": 0.5}, "--validation must be a share between 0 and 0.5, got 0.5"),
    ],
)  # fmt: skip
def test_requests_that_make_no_sense(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        plan(IMAGE_STUDIES["motivating"], Request(tmp_path, **changes), "x")


def test_only_the_papers_networks_elsewhere(tmp_path):
    for changes, says in (
        ({"nets": ("resnet50",)}, "--nets: 'resnet50' isn't in table1"),
        ({"datasets": ("x",)}, "'x'"),
    ):
        with pytest.raises(UserError, match=says):
            plan(IMAGE_STUDIES["table1"], Request(tmp_path, **changes), "x")


def test_the_motivating_example_of_any_network_on_a_folder(tmp_path):
    folder(tmp_path / "mine")
    study, mine = IMAGE_STUDIES["motivating"], (str(tmp_path / "mine"),)
    request = Request(tmp_path, datasets=mine, nets=("tiny", "tiny_plain"), epochs=2, methods=("ce", "gradual"))
    planned = plan(study, request, "test")
    assert [line.split(":")[0].strip() for line in planned.lines[2:]] == ["mine · tiny", "mine · tiny_plain"]
    assert {trial.recipe.batch_size for trial in planned.trials} == {6}  # of 24 images
    trained(planned, tmp_path / "s.db")
    with Store(tmp_path / "s.db", mode="read") as store:
        results = frames.results(store, planned.keys)
    assert set(results[["watch_right", "watch_near", "watch_far"]].sum(axis=1)) == {6}
    page = study.page(results, planned.scale)
    assert "| mine · tiny | gradual |" in page
    assert "| CIFAR-100 · ResNet32, the paper | ce | 6,766: 95.80 % |" in page


def test_folders_of_one_name_are_refused(tmp_path):
    for parent in ("old", "new"):
        folder(tmp_path / parent / "photos", each=4)
    asked = tuple(str(tmp_path / parent / "photos") for parent in ("old", "new"))
    with pytest.raises(UserError, match="--datasets: two folders are called 'photos'"):
        plan(IMAGE_STUDIES["motivating"], Request(tmp_path, datasets=asked, nets=("tiny",)), "test")


def test_data_that_is_not_here_is_named(tmp_path):
    with pytest.raises(UserError, match="CINIC-10: not in"):
        plan(IMAGE_STUDIES["table6"], Request(tmp_path), "x")


def test_kept_weights_that_are_not_ours(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="no crossfade provenance"):
        load_model(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="can't be read as safetensors"):
        load_model(tmp_path / "y.safetensors")


def test_pairing_of_seeds_over_methods_and_networks(tmp_path):
    from crossfade.lab.trial import Trial, seed

    task = ImageTask(ImageSet("toy", tuple("abcd"), noise(40), noise(20, seed=1)))
    from tests.images.image_cases import method

    trials = [
        Trial("s", task, method(name), ImageRecipe(net=net), repeat)
        for name in ("ce", "el") for net in ("resnet20", "resnet32") for repeat in (0, 1)
    ]  # fmt: skip
    assert len({trial.key for trial in trials}) == 8
    assert len({seed(trial, "train") for trial in trials}) == 2


def test_files_are_decoded_by_workers_and_meet_every_process_count_alike(tmp_path):
    from crossfade.lab.data.images import stream_task
    from crossfade.lab.train.deep.feeds import FileFeed, Place

    for part in ("train", "val"):
        folder(tmp_path / "imagenet" / part, each=7)
    split = stream_task(tmp_path / "imagenet", 6, 2, "ImageNet · tiny").split(0)
    recipe = ImageRecipe(net="tiny", epochs=2, batch_size=6, milestones=(), size=24)

    def epoch(workers: int, rank: int = 0, world: int = 1) -> dict[int, torch.Tensor]:
        torch.manual_seed(5)
        batches = FileFeed(split.train, split, recipe, 3, Place(torch.device("cpu"), rank, world), workers=workers)
        batches.set_epoch(1)
        return {int(i): x for images, _, index, _ in batches for i, x in zip(index, images, strict=True)}

    here, dropout_here = epoch(0), torch.rand(1)
    there, dropout_there = epoch(2), torch.rand(1)
    assert torch.equal(dropout_here, dropout_there)
    shared = {**epoch(0, 0, 2), **epoch(0, 1, 2)}
    assert sorted(here) == list(range(18))
    assert all(torch.equal(here[i], there[i]) and torch.equal(here[i], shared[i]) for i in here)


def test_a_file_that_a_worker_cannot_read_is_named_in_one_line(tmp_path):
    from crossfade.lab.data.images import stream_task
    from crossfade.lab.train.deep.feeds import FileFeed, Place

    for part in ("train", "val"):
        folder(tmp_path / part)
    split = stream_task(tmp_path, 6, 2, "ImageNet · tiny").split(0)
    broken, _ = split.test[3]
    Path(broken).write_bytes(b"no image")
    recipe = ImageRecipe(net="tiny", batch_size=6, size=24)
    batches = FileFeed(split.test, split, recipe, None, Place(torch.device("cpu")), workers=1)
    with pytest.raises(UserError) as error:
        list(batches)
    line = str(error.value)
    assert line.startswith(f"{broken}: can't be read (")
    assert line.endswith("); repair or remove it")
    assert "\n" not in line


def test_imagenets_study_trains_and_resumes_from_files(tmp_path):
    for part in ("train", "val"):
        folder(tmp_path / "imagenet" / part, each=7)
    study = with_first_cell("table2", net="tiny", size=24)
    with pytest.raises(UserError, match="--validation: ImageNet's files aren't divided"):
        plan(study, Request(tmp_path, "smoke", validation=0.1), "x")
    planned = plan(study, Request(tmp_path, "smoke", methods=("ce", "f0")), "x")
    assert trained(planned, tmp_path / "s.db", hardware=replace(CPU, workers=0)).failed == 0
    with Store(tmp_path / "s.db", mode="read") as store:
        results = frames.results(store, planned.keys)
    assert set(results["n_test"]) == {6}
    assert results["accuracy"].between(0, 1).all()
