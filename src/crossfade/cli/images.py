"""``crossfade compare`` on a folder of images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.train.hardware import Hardware

__all__ = ["compare_images"]


def compare_images(
    folder: Path,
    /,
    *,
    methods: list[str] | None = None,
    loss: list[str] | None = None,
    repeats: int | None = None,
    seed: int | None = None,
    test_size: float | None = None,
    net: str | None = None,
    pretrained: bool = False,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    augment: str | None = None,
    precision: str | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    compile: bool = False,
    logger: str = "",
    keep_weights: Path | None = None,
    store: Path = Path("crossfade.db"),
    report: Path = Path("report.html"),
    json: Path | None = None,
    retry_failed: bool = False,
) -> int:
    """Train a network under different losses, on your own images, and compare.

    FOLDER holds a folder of images for each class, or train, val and test with
    such folders inside; parts that aren't there are split off in every repeat.
    Every method gets the same split, initial weights, order and augmentation,
    and its own epoch, chosen on validation images. After an interruption the
    same command goes on from the last epoch. Lists are separated by commas.

    Args:
        folder: Class folders with PNG, JPEG, BMP, GIF, PPM, TIFF or WebP files.
        methods: Losses to compare, see `crossfade list`, or cot. [default: ce,f0,f0-late,gradual]
        loss: Your own loss g(ce), as module:function or file.py:function.
        repeats: Splits, with their own initial weights. [default: 3]
        seed: Another number gives other splits, weights and order. [default: 0]
        test_size: Share of each class in a part that is split off. [default: 0.2]
        net: resnet20, resnet32, resnet18_small, ... or a classifier of torchvision. [default: resnet20]
        pretrained: Start from torchvision's weights (at 224 pixels, rate 0.01).
        image_size: Pixels a side. [default: 32 for images up to 40 pixels, else 64]
        epochs: Passes over the training images. [default: 60]
        batch_size: Images in a step, over all devices. [default: 64]
        learning_rate: Falls tenfold at 1/2, 2/3 and 5/6 of the training. [default: 0.1]
        weight_decay: Of SGD with momentum 0.9. [default: 0.0001]
        augment: full (crop, flip, rotation up to 10 degrees), flip, or none. [default: full]
        precision: 32-true, 16-mixed or bf16-mixed. [default: 32-true]
        accelerator: auto, cpu, gpu, ...
        devices: More than one is DDP.
        nodes: Machines; start the same command on each with torchrun.
        compile: Compile the network first.
        logger: tensorboard or csv, into STORE.work/logs, another of Lightning's (MLFlowLogger), or module:Class.
        keep_weights: A folder for each trial's weights as safetensors.
        store: Keeps every result.
        report: The page to write.
        json: Write the same numbers for scripts; - is standard output.
        retry_failed: Run failed trials again.
    """
    from crossfade.cli.compare import _tell, check_output
    from crossfade.lab.image_compare import FolderSettings, execute_folder, plan_folder

    said = {
        "methods": tuple(_words(methods)) or None, "loss": tuple(loss or ()), "repeats": repeats, "seed": seed,
        "test_size": test_size, "net": net, "size": image_size, "epochs": epochs, "batch_size": batch_size,
        "learning_rate": learning_rate, "weight_decay": weight_decay, "augment": augment, "precision": precision,
    }  # fmt: skip
    given: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    settings = FolderSettings(pretrained=pretrained, **given)
    for path, what in ((report, "--report"), (json, "--json")):
        check_output(path, what)
    hardware = _hardware(accelerator, devices, nodes, compile, 4, logger)
    planned = plan_folder(folder, settings, ["crossfade", *sys.argv[1:]], hardware)
    quiet = str(json) == "-"
    if not quiet and _first():
        about, recipe = planned.task.describe(), planned.trials[0].recipe
        print(
            f"{about['name']} · {about['n_train']} + {about['n_val']} + {about['n_test']} images of {about['classes']} "
            f"classes · {settings.repeats} repeats · {recipe.net}, {recipe.epochs} epochs, batch {recipe.batch_size}",
            file=sys.stderr,
        )
    answer = execute_folder(planned, store, keep_weights=keep_weights, progress=True, retry_failed=retry_failed)
    return _tell(answer, store, report, json) if _first() else 0


def _hardware(accelerator: str, devices: int, nodes: int, compile: bool, workers: int, logger: str) -> Hardware:
    from crossfade.lab.train.hardware import Hardware

    for option, value in (("--devices", devices), ("--nodes", nodes)):
        if value < 1:
            raise UserError(f"{option}: expected a whole number of at least 1, got {value}")
    return Hardware(accelerator, devices, nodes, compile=compile, workers=workers, logger=logger)


def _first() -> bool:
    from crossfade.lab.train.hardware import process_rank

    return process_rank() == 0


def _words(items: list[str] | None) -> list[str]:
    return [part.strip() for item in items or [] for part in item.split(",") if part.strip()]
