"""``crossfade run STUDY``: the studies that train networks, from options to a page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from crossfade.cli import STUDIES
from crossfade.cli.options import Devices, Gpus, Names, Numbers, Overwrite, Quiet, Ray
from crossfade.errors import UserError
from crossfade.lab.checks import Precision, check_count
from crossfade.lab.hardware import Hardware, process_rank
from crossfade.lab.paper.study import Request, Scale, Study, check_known, plan

if TYPE_CHECKING:
    from crossfade.lab.trial import Trial

_Machine: TypeAlias = Annotated[Devices, Parameter("*")]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every study takes.

    Args:
        data_dir: Where the data is; `crossfade data` says how to get it. [default: $CROSSFADE_DATA, or a cache folder]
        scale: smoke and short are shortened, and labelled so.
        store: Keeps every result. [default: STUDY.db]
        report: The page to write, Markdown or, for table4, HTML. [default: STUDY.md, table4.html]
        plan: Print the plan and stop, also where data is missing.
        retry_failed: Run failed trials again.
    """

    data_dir: Path | None = None
    scale: Scale = "paper"
    store: Path | None = None
    report: Path | None = None
    plan: bool = False
    retry_failed: bool = False
    overwrite: Overwrite = False
    quiet: Quiet = False

    def request(self, *, recipe: Mapping[str, object], **wanted: Any) -> Request:
        """Return the request with what a study's own options say; None is not given."""
        from crossfade.lab.data.sources import default_data_dir

        given = {name: value for name, value in wanted.items() if value is not None}
        fields = {name: value for name, value in recipe.items() if value is not None}
        return Request(self.data_dir or default_data_dir(), self.scale, recipe=fields, **given)


@Parameter(name="*")
@dataclass(frozen=True)
class ImageOptions:
    """What the studies on images take.

    Args:
        datasets: Only these: cifar100, cinic10, tinyimagenet, imagenet. motivating takes cifar10 and folders, too.
        nets: Only these networks, see `crossfade list`. motivating takes any.
        methods: Losses to compare with CE. [default: all of the study]
        repeats: Seeds. [default: the paper's]
        epochs: Length of the training; every fall and phase stays at its fraction of it. [default: the scale's]
        validation: Share of the training images to fit a temperature on, which the paper has no part for.
        protocol: table5: cot is COT's own, 90 epochs on ImageNet. [default: the text's 200]
        precision: 32-true, or mixed: 16-mixed, bf16-mixed.
        keep_weights: A folder for each trial's weights as safetensors, with their provenance.
        workers: Processes that decode ImageNet's files.
    """

    datasets: Names = None
    nets: Names = None
    methods: Names = None
    repeats: int | None = None
    epochs: int | None = None
    validation: float | None = None
    protocol: str | None = None
    precision: Precision = "32-true"
    keep_weights: Path | None = None
    workers: int = 4


def _image_study(name: str) -> Callable[..., int]:
    """Return the command of a study on images."""

    def command(
        *,
        common: Common = Common(),
        images: ImageOptions = ImageOptions(),
        machine: _Machine = Devices(),  # noqa: B008
    ) -> int:
        from crossfade.lab.paper.image_studies import IMAGE_STUDIES

        names = ("datasets", "nets", "methods", "repeats", "epochs", "validation")
        wanted = {name: getattr(images, name) for name in names}
        request = common.request(**wanted, recipe={"precision": images.precision})
        hardware = replace(machine.hardware(), workers=images.workers)
        study = IMAGE_STUDIES[name].by(images.protocol)
        return _run(study, request, common, hardware, keep_weights=images.keep_weights, timed=True)

    command.__name__ = name
    command.__doc__ = f"""{STUDIES[name].help}

    Ours beside the paper's numbers. The plan comes first: runs, epochs, the
    time they take on this device, and what data is missing. After an
    interruption the same command goes on from the last epoch. Lists are
    separated by commas.
    """
    return command


_NAMES = ("table1", "table2", "table5", "table6", "motivating", "normmatched")
table1, table2, table5, table6, motivating, normmatched = map(_image_study, _NAMES)


def table3(
    *,
    common: Common = Common(),
    nets: Names = None,
    methods: Names = None,
    repeats: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    accelerator: str = "auto",
    workers: int | None = None,
    ray: Ray = None,
    gpus: Gpus = None,
) -> int:
    """Table 3: the rating of clothing reviews, five LSTMs, ours beside the paper's.

    After an interruption the same command goes on where it stopped. Lists are
    separated by commas.

    Args:
        nets: Only these of arch1 to arch5.
        methods: Losses to compare with CE. [default: ce,f0,f0-late,gradual]
        repeats: Seeds. [default: the paper's eight]
        epochs: Passes over the reviews; not printed in the paper. [default: 10]
        learning_rate: Of Adam; not printed in the paper. [default: 0.001]
        batch_size: Reviews in a step; not printed in the paper. [default: 64]
        max_length: Words that are kept of a review. [default: 128]
        accelerator: auto, cpu or gpu.
        workers: Threads. [default: all cores]
    """
    from crossfade.lab.paper.table3 import STUDY

    recipe = {"learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length}
    request = common.request(nets=nets, methods=methods, repeats=repeats, epochs=epochs, recipe=recipe)
    return _run(STUDY, request, common, Hardware(accelerator, ray=ray, gpus=gpus, threads=workers))


def figure2(
    *,
    common: Common = Common(),
    model: str = "bert-base-uncased",
    tasks: Names = None,
    methods: Names = None,
    repeats: int | None = None,
    epochs: int | None = None,
    limit: int | None = None,
    validation: float | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    accumulate: int = 1,
    precision: Precision = "32-true",
    machine: _Machine = Devices(),  # noqa: B008
) -> int:
    """Figure 2: BERT fine-tuned on GLUE, and the profile of the methods.

    Data comes from DATA_DIR/glue/TASK/{train,dev}.tsv, or from the hub; the
    profile is drawn beside the page. After an interruption the same command
    goes on from the last epoch. Lists are separated by commas.

    Args:
        model: A name on the Hugging Face hub, or a folder.
        tasks: Only these of CoLA, SST-2, MRPC, QQP, MNLI, QNLI, RTE, WNLI.
        methods: Losses to compare with CE. [default: ce,f0,f0-late,gradual]
        repeats: Seeds. [default: the paper's four]
        epochs: Passes over the training examples. [default: the paper's six]
        limit: Learn from so many examples of each task at most.
        validation: Share of the training examples to fit a temperature on, which the paper has no part for.
        learning_rate: Of AdamW, falling to zero. [default: the paper's 2e-5]
        batch_size: Examples in a step. [default: 32]
        accumulate: A step's batch comes in so many parts.
        precision: 32-true, or mixed: 16-mixed, bf16-mixed.
    """
    from crossfade.lab.paper.figure2 import study, task_names

    if limit is not None:
        check_count("--limit", limit)
    rates = {"learning_rate": learning_rate, "batch_size": batch_size}
    recipe = {**rates, "accumulate": accumulate, "precision": precision}
    wanted = {"datasets": task_names(tasks or ()), "methods": methods, "repeats": repeats, "epochs": epochs}
    request = common.request(**wanted, validation=validation, recipe=recipe)
    return _run(study(model, limit), request, common, machine.hardware(), drawn=True)


def finetune(
    *,
    common: Common = Common(),
    cases: Names = None,
    methods: Names = None,
    repeats: int | None = None,
    epochs: int | None = None,
    learning_rates: Numbers = None,
    workers: int | None = None,
    ray: Ray = None,
) -> int:
    """Objectives for fine-tuning, where the model knows the text and where not.

    A small model of bytes learns documentation, and then more of it (known) or
    C++ headers (unknown): text that is on every machine. After an interruption
    the same command goes on where it stopped. Lists are separated by commas.

    Args:
        cases: known, unknown or both.
        methods: Only these objectives, beside ce. [default: all thirteen]
        repeats: Divisions of the text, each with its own order of batches. [default: 5]
        epochs: Passes over the text to fine-tune on. [default: 1]
        learning_rates: Tried for each objective; validation text decides. [default: 0.0001,0.0003,0.001,0.003,0.01]
        workers: Trials at the same time, each on one core. [default: all cores]
    """
    from crossfade.lab.paper.finetune import CASES, STUDY

    recipe = {"epochs": epochs, "learning_rates": learning_rates}
    wanted = _without_both("--cases", cases or (), CASES, "finetune")
    request = common.request(datasets=wanted, methods=methods, repeats=repeats, recipe=recipe)
    return _run(STUDY, request, common, Hardware(ray=ray, threads=workers))


def table4(
    *,
    common: Common = Common(),
    methods: Names = None,
    loss: list[str] | None = None,
    net: Names = None,
    seeds: int = 2,
    splits: int = 1,
    sets: Names = None,
    momentum: float = 0.9,
    learning_rates: Numbers = None,
    workers: int | None = None,
    ray: Ray = None,
) -> int:
    """Table 4 and Figure 3: losses on the 121 UCI sets, ours beside the paper's.

    After an interruption the same command goes on where it stopped. Lists are
    separated by commas.

    Args:
        methods: Losses to compare. [default: ce,f0,f0-late,gradual,el,focal]
        loss: Your own loss g(ce) beside them, as module:function or file.py:function.
        net: linear, mlp or both.
        seeds: Repeats with their own initial weights and batches.
        splits: How many of the four published splits.
        sets: Only these data sets.
        momentum: Of SGD. The paper doesn't say which; 0 is the other reading.
        learning_rates: Tried for each method. [default: the paper's 0.01,0.005,0.001]
        workers: Threads. [default: all cores]
    """
    from crossfade.lab.data.uci import SPLITS
    from crossfade.lab.own_loss import load_loss
    from crossfade.lab.paper.table4 import STUDY

    check_count("--seeds", seeds)
    if not 1 <= splits <= SPLITS:
        raise UserError(f"--splits must be a whole number from 1 to {SPLITS}, got {splits}")
    request = common.request(
        datasets=sets,
        nets=_without_both("--net", net or (), ("linear", "mlp"), "table4"),
        methods=methods,
        losses=tuple(load_loss(spec) for spec in loss or ()),
        repeats=seeds,
        recipe={"momentum": momentum, "learning_rates": learning_rates},
    )
    return _run(
        replace(STUDY, splits=splits),
        request,
        common,
        Hardware(ray=ray, threads=workers),
        suffix=".html",
        reads=[Path(spec.rpartition(":")[0]) for spec in loss or ()],
    )


def noise_map(
    *,
    common: Common = Common(),
    datasets: Names = None,
    nets: Names = None,
    methods: Names = None,
    noise: Numbers = None,
    sizes: Numbers = None,
    max_rows: int | None = None,
    repeats: int | None = None,
    epochs: int | None = None,
    workers: int | None = None,
    ray: Ray = None,
) -> int:
    """Where which loss pays: wrong labels, few rows, a linear classifier or a hidden layer.

    Wrong labels are symmetric or class-dependent, in training rows alone or in
    validation rows too; see `--label-noise` of `crossfade compare`. After an
    interruption the same command goes on where it stopped. Lists are separated
    by commas.

    Args:
        datasets: uci121, reviews, cifar100. [default: uci121]
        nets: Only these of linear, mlp; arch3 on the reviews, resnet20 on CIFAR-100.
        methods: Losses to compare with CE. [default: ce-cosine,ce-matched,gradual,gce,tgce,log-ce,gce-rising]
        noise: Only these shares of wrong labels. [default: 0,0.1,0.2,0.4]
        sizes: Only these shares of the training rows. [default: 0.1,0.3,1]
        max_rows: Leave UCI sets with more rows out.
        repeats: Seeds, on UCI sets with their own split. [default: 2]
        epochs: Passes over the training rows. [default: 50]
        workers: Threads. [default: all cores]
    """
    from crossfade.lab.paper.noise_map import NOISE, SIZES, STUDY

    for option, shares, known in (("--noise", noise, NOISE), ("--sizes", sizes, SIZES)):
        check_known(option, [f"{share:g}" for share in shares or ()], [f"{share:g}" for share in known], "map")
    if max_rows is not None:
        check_count("--max-rows", max_rows)
    request = common.request(datasets=datasets, nets=nets, methods=methods, repeats=repeats, epochs=epochs, recipe={})
    study = replace(STUDY, noise=tuple(noise or NOISE), sizes=tuple(sizes or SIZES), max_rows=max_rows)
    return _run(study, request, common, Hardware(ray=ray, threads=workers), drawn=True)


def _without_both(option: str, names: tuple[str, ...], known: Iterable[str], study: str) -> tuple[str, ...]:
    """Return the names, none where one of them is ``both``; UserError for one that isn't known."""
    check_known(option, names, (*known, "both"), study)
    return () if "both" in names else names


def _run(
    study: Study[Any, Any],
    request: Request,
    common: Common,
    hardware: Hardware,
    *,
    keep_weights: Path | None = None,
    suffix: str = ".md",
    timed: bool = False,
    drawn: bool = False,
    reads: Sequence[Path] = (),
) -> int:
    """Print the plan, train what the store doesn't know yet, and write the page; return the exit status."""
    from crossfade.lab import frames
    from crossfade.lab.files import check_folder, check_outputs
    from crossfade.lab.run import run_request, unknown
    from crossfade.lab.store import Store
    from crossfade.stats.words import count

    store, report = common.store or Path(f"{study.name}.db"), common.report or Path(f"{study.name}{suffix}")
    outputs = [("--report", page) for page in (report, *([report.with_suffix(".svg")] if drawn else []))]
    check_outputs(outputs, [request.data_dir, *reads], store=store, overwrite=common.overwrite)
    check_folder(keep_weights, "--keep-weights")
    planned = plan(study, request, ["crossfade", *sys.argv[1:]], to_run=not common.plan)
    first = process_rank() == 0
    if first and (common.plan or not common.quiet):
        _tell("\n".join(planned.lines))
        if timed and planned.trials and hardware.ray is None:
            left = unknown(planned.trials, store, common.retry_failed)
            _tell(_time_left(left, len(planned.trials), store, hardware))
    if common.plan:
        return 0
    train = partial(
        run_request,
        planned.runs,
        planned.trials,
        hardware=hardware,
        family=study.family,
        keep_weights=keep_weights,
        retry_failed=common.retry_failed,
        progress=not common.quiet,
        label=study.name,
    )
    if not first:
        return 1 if train(store).failed else 0
    with Store(store) as opened:
        summary = train(opened)
        page = f"Page: {report}   " if summary.failed < len(planned.trials) else ""
        for line in frames.failure_lines(frames.failures(opened, planned.keys)):
            _tell(f"crossfade: failed: {line}")
        if page:
            print(study.write(opened, planned, report))
    counts = f"{summary.known} known before, {summary.failed} failed"
    if not common.quiet:
        done = count(summary.done, "trial")
        _tell(f"{done} computed in {summary.seconds:.0f} s, {counts}\n{page}Results: {store}")
    return 1 if summary.failed else 0


def _time_left(left: Sequence[Trial], whole: int, store: Path, hardware: Hardware) -> str:
    """Return how long the rest of a plan will take, in words."""
    from crossfade.lab.run import duration
    from crossfade.lab.train.deep.run import estimate

    if not left:
        return f"nothing left to run: all of it is in {store}"
    known = f" for the {len(left)} runs that {store} doesn't have" if len(left) < whole else ""
    how = "by some steps of each network" + (", before what --compile gains" if hardware.compile else "")
    return f"about {duration(estimate(left, hardware))} on this device{known}, {how}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
