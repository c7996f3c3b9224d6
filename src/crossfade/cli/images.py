"""``crossfade run table1`` and the other image studies, and ``crossfade compare`` on a folder of images."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.paper.image_study import ImagePlan
    from crossfade.lab.train.hardware import Hardware

__all__ = ["compare_images", "motivating", "normmatched", "table1", "table2", "table5", "table6"]


def _study(
    name: str,
    *,
    data_dir: Path | None = None,
    scale: Literal["smoke", "short", "paper"] = "paper",
    datasets: list[str] | None = None,
    nets: list[str] | None = None,
    methods: list[str] | None = None,
    repeats: int | None = None,
    epochs: int | None = None,
    store: Path | None = None,
    report: Path | None = None,
    keep_weights: Path | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true",
    compile: bool = False,
    workers: int = 4,
    logger: str = "",
    plan: bool = False,
    retry_failed: bool = False,
) -> int:
    """An image study of the paper, ours beside the paper's numbers.

    The plan comes first: runs, epochs, the time they take on this device, and
    what data is missing. After an interruption the same command goes on from
    the last epoch. Lists are separated by commas.

    Args:
        data_dir: Where the data is; `crossfade data` gets it. [default: the user's cache folder]
        scale: smoke and short are shortened, and labelled so.
        datasets: Only these: cifar100, cinic10, tinyimagenet, imagenet. motivating takes folders of class folders, too.
        nets: Only these networks, see `crossfade list`. motivating takes any.
        methods: Only these of the study's methods.
        repeats: Seeds. [default: the paper's]
        epochs: So many, with every fall and phase at the same fraction of them. [default: the scale's]
        store: Keeps every result. [default: STUDY.db]
        report: The page to write, Markdown. [default: STUDY.md]
        keep_weights: A folder for each trial's weights as safetensors, with their provenance.
        accelerator: auto, cpu, gpu, ...
        devices: How many of them on each machine; more than one is DDP.
        nodes: Machines; start the same command on each with torchrun.
        precision: 32-true, or mixed: 16-mixed, bf16-mixed.
        compile: Compile the networks first.
        workers: Processes that decode ImageNet's files.
        logger: tensorboard or csv, into STORE.work/logs, another of Lightning's (MLFlowLogger), or module:Class.
        plan: Print the plan and stop.
        retry_failed: Run failed trials again.
    """
    from crossfade.cli.compare import check_output
    from crossfade.lab.data.catalogue import default_data_dir
    from crossfade.lab.paper.image_run import image_study, run_study
    from crossfade.lab.paper.image_study import ImageRequest, plan_images

    hardware = _hardware(accelerator, devices, nodes, compile, workers, logger)
    store, report = store or Path(f"{name}.db"), report or Path(f"{name}.md")
    check_output(report, "--report")
    request = ImageRequest(
        image_study(name), data_dir or default_data_dir(), scale, tuple(_words(datasets)), tuple(_words(nets)),
        tuple(_words(methods)), repeats, epochs, precision, hardware,
    )  # fmt: skip
    planned = plan_images(request, ["crossfade", *sys.argv[1:]])
    _announce(planned, hardware, store, retry_failed)
    if plan:
        return 0
    summary = run_study(planned, store, keep_weights=keep_weights, retry_failed=retry_failed)
    if _first():
        print(_write(planned, store, report))
        print(
            f"{summary.done} runs in {summary.seconds:.0f} s, {summary.known} known before, {summary.failed} failed\n"
            f"Page: {report}   Results: {store}",
            file=sys.stderr,
        )
    return 1 if summary.failed else 0


def _command(name: str) -> Callable[..., int]:
    """The same command under a study's name: cyclopts reads its options from the signature."""

    def command(**options: Any) -> int:
        return _study(name, **options)

    signature = inspect.signature(_study, eval_str=False)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[one for key, one in signature.parameters.items() if key != "name"]
    )
    command.__annotations__ = {key: hint for key, hint in _study.__annotations__.items() if key != "name"}
    command.__doc__, command.__name__, command.__module__ = _study.__doc__, name, __name__
    return command


table1, table2, table5, table6 = (_command(f"table{number}") for number in (1, 2, 5, 6))
motivating, normmatched = _command("motivating"), _command("normmatched")


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


def _announce(planned: ImagePlan, hardware: Hardware, store: Path, retry_failed: bool) -> None:
    from crossfade.lab.paper.image_estimate import estimate
    from crossfade.lab.run import unknown

    if not _first():
        return
    print("\n".join(planned.lines()), file=sys.stderr, flush=True)
    left = unknown(planned.trials, store, retry_failed)
    if not left:
        print(f"nothing left to run: all of it is in {store}", file=sys.stderr, flush=True)
        return
    seconds = estimate(left, hardware)
    known = f" for the {len(left)} runs that {store} doesn't have" if len(left) < len(planned.trials) else ""
    how = "by some steps of each network" + (", before what --compile gains" if hardware.compile else "")
    print(f"about {_span(seconds)} on this device{known}, {how}", file=sys.stderr, flush=True)


def _write(planned: ImagePlan, store: Path, report: Path) -> str:
    from crossfade.lab import frames
    from crossfade.lab.files import write_text
    from crossfade.lab.paper.image_tables import markdown
    from crossfade.lab.store import Store

    with Store(store, mode="read") as opened:
        page = markdown(planned.request.study, frames.results(opened, planned.run.keys), planned.request.label)
    write_text(report, page, "--report")
    return page


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


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
