"""The commands that are killed: every study that the command line knows, as small as it gets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests.images.image_cases import noise
from tests.kept.cases import INPUTS
from tests.kill.child import TEST, TRAIN

_SMOKE = ["--data-dir", "{data}", "--scale", "smoke", "--accelerator", "cpu", "--report", "page.md"]
_COMPARE = ["--report", "page.html", "--json", "answer.json"]
_DEEP = ("row", "commit", "checkpoint", "page")

# By name: the command, and the points at which it is struck.
CASES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "table": (
        ["compare", "{data}/plants.csv", "--target", "kind", "--methods", "ce,f0", "--repeats", "2", "--epochs", "2",
         "--workers", "1", *_COMPARE],
        ("row", "commit", "page", "answer"),
    ),
    "lstm": (
        ["compare", "{data}/remarks.csv", "--text", "remark", "--target", "about", "--methods", "f0", "--repeats", "2",
         "--epochs", "2", "--width", "8", "--accelerator", "cpu", *_COMPARE],
        ("row", "commit", "page", "answer"),
    ),
    "bert": (
        ["compare", "{data}/remarks.csv", "--text", "remark", "--target", "about", "--methods", "f0-late",
         "--repeats", "1", "--net", "bert:{data}/tiny-bert", "--epochs", "2", "--max-length", "8",
         "--accelerator", "cpu", *_COMPARE],
        (*_DEEP, "answer"),
    ),
    "images": (
        ["compare", "{data}/shapes", "--methods", "f0,f0-late", "--repeats", "1", "--epochs", "2", "--accelerator",
         "cpu", "--keep-weights", "weights", *_COMPARE],
        (*_DEEP, "answer", "weights"),
    ),
    "table1": (["run", "table1", "--datasets", "cifar100", "--nets", "resnet20", "--methods", "ce,f0", *_SMOKE], _DEEP),
    "table2": (
        ["run", "table2", "--nets", "shufflenet_v2_x1_0", "--methods", "ce,f0", "--workers", "0", *_SMOKE], _DEEP,
    ),
    "table3": (["run", "table3", "--nets", "arch1", "--methods", "f0", *_SMOKE], ("row", "commit", "page")),
    "figure2": (
        ["run", "figure2", "--model", "{data}/tiny-bert", "--tasks", "RTE,WNLI", "--methods", "gradual", "--epochs",
         "2", *_SMOKE],
        _DEEP,
    ),
    "table4": (
        ["run", "table4", "--data-dir", "{data}", "--scale", "smoke", "--sets", "balloons,lenses", "--methods",
         "ce,gradual", "--workers", "1", "--report", "page.html"],
        ("row", "commit", "page"),
    ),
    "table5": (["run", "table5", "--datasets", "cifar100", "--nets", "resnet110", *_SMOKE], _DEEP),
    "table6": (["run", "table6", *_SMOKE], _DEEP),
    "motivating": (["run", "motivating", "--methods", "ce,f0", *_SMOKE], (*_DEEP, "recording")),
    "normmatched": (["run", "normmatched", "--nets", "resnet20", *_SMOKE], _DEEP),
    "dynamics": (
        ["run", "dynamics", "--data-dir", "{data}", "--scale", "smoke", "--methods", "ce,el", "--workers", "1", "--out",
         "."],
        (*_DEEP, "recording", "figure", "provenance"),
    ),
    "workers": (
        ["run", "dynamics", "--scale", "smoke", "--methods", "ce,el", "--workers", "2", "--out", "."],
        ("row", "commit"),
    ),
    "escape": (
        ["run", "escape", "--data-dir", "{data}", "--scale", "smoke", "--sets", "wine,cifar100", "--workers", "1",
         "--out", "."],
        (*_DEEP, "measurements", "figure", "provenance"),
    ),
    "map": (
        ["run", "map", "--data-dir", "{data}", "--noise", "0,0.4", "--sizes", "1", "--nets",
         "linear", "--methods", "gce", "--repeats", "1", "--epochs", "2", "--workers", "1", "--report", "page.md"],
        ("row", "commit", "page"),
    ),
    "finetune": (
        ["run", "finetune", "--data-dir", ".", "--scale", "smoke", "--cases", "unknown", "--methods", "el", "--repeats",
         "1", "--workers", "1", "--report", "page.md"],
        ("row", "commit", "page"),
    ),
    "figure1": (["run", "figure1", "--scale", "smoke", "--out", "."], ("page", "figure", "provenance")),
    "taylor": (["run", "taylor", "--scale", "smoke", "--out", "."], ("page", "figure", "provenance")),
}  # fmt: skip


def data(folder: Path) -> Path:
    """Return the folder, with all that the commands read."""
    shutil.copytree(INPUTS, folder, ignore=shutil.ignore_patterns("cifar100.npz"))
    for name, seed in (("cifar100", 0), ("cinic10", 5)):
        parts = {"train": noise(TRAIN, side=32, seed=seed), "test": noise(TEST, side=32, seed=seed + 1)}
        arrays = {f"x_{part}": one.images.permute(0, 2, 3, 1).numpy() for part, one in parts.items()}
        np.savez(folder / f"{name}.npz", **arrays, **{f"y_{part}": one.labels.numpy() for part, one in parts.items()})
    from PIL import Image

    for part in ("train", "val"):
        images = noise(28, side=32, seed=7)
        for at, (pixels, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
            place = folder / "imagenet" / part / f"n{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / f"{at}.png")
    return folder


def command(case: str, inputs: Path) -> list[str]:
    """Return the command of a case, with the folder of its inputs and its store."""
    words = [word.replace("{data}", str(inputs)) for word in CASES[case][0]]
    return words if case in ("figure1", "taylor") else [*words, "--store", "store.db"]
