"""``crossfade run figure1 | taylor | dynamics | escape``: the paper's arguments, measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from crossfade.cli.options import Gpus, Names, Overwrite, Quiet, Ray
from crossfade.errors import UserError
from crossfade.lab.checks import Precision
from crossfade.lab.files import check_folder, check_outputs
from crossfade.lab.hardware import Hardware
from crossfade.lab.paper.study import Scale
from crossfade.stats.words import count

if TYPE_CHECKING:
    from crossfade.lab.trial import Trial


_RECORD = "provenance.json"  # it tells a folder that one of these commands wrote


def figure1(
    *,
    loss: Names = None,
    out: Path = Path("figure1"),
    scale: Scale = "short",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> int:
    """Figure 1: how hard a loss pulls on an example, over p; the mixtures on both scales, and the other losses.

    Args:
        loss: Your own loss g(ce) beside them, as module:function or file.py:function.
        out: Folder for the tables and figures.
        scale: How many points a curve has.
    """
    from crossfade.lab.own_loss import load_loss
    from crossfade.lab.paper.why import figure1 as study

    check_folder(out, "--out", mark=_RECORD, overwrite=overwrite)
    study.run(out, scale, losses=[load_loss(one) for one in loss or ()])
    return _written(out, quiet)


def taylor(
    *, out: Path = Path("taylor"), scale: Scale = "short", overwrite: Overwrite = False, quiet: Quiet = False
) -> int:
    """Eq. 11: Taylor's remainder of CE around EL, and the text's statements about it, checked.

    Args:
        out: Folder for the tables and the figure.
        scale: How many points are looked at.
    """
    from crossfade.lab.paper.why import taylor as study

    check_folder(out, "--out", mark=_RECORD, overwrite=overwrite)
    study.run(out, scale)
    return _written(out, quiet)


@Parameter(name="*")
@dataclass(frozen=True)
class Measured:
    """What dynamics and escape take.

    Args:
        data_dir: Has the UCI sets and CIFAR-100; without it scikit-learn's sets alone. [default: $CROSSFADE_DATA]
        sets: Only these data sets; escape knows simulation as well.
        scale: smoke takes seconds; short cuts CIFAR-100 down; paper uses all of it.
        epochs: Passes over CIFAR-100; falls and measurements stay at their fraction of them. [default: the scale's]
        precision: On CIFAR-100: 32-true, or mixed: 16-mixed, bf16-mixed.
        out: Folder for the tables and figures. [default: the study's name]
        store: Keeps every result.
        workers: Trials side by side, each on one core. [default: all cores]
        retry_failed: Run failed trials again.
    """

    data_dir: Path | None = None
    sets: Names = None
    scale: Scale = "short"
    epochs: int | None = None
    precision: Precision = "32-true"
    out: Path | None = None
    store: Path = Path("crossfade.db")
    workers: int | None = None
    ray: Ray = None
    gpus: Gpus = None
    retry_failed: bool = False
    overwrite: Overwrite = False
    quiet: Quiet = False

    def run(self, study: str, plan: Callable[..., Sequence[Trial]]) -> int:
        """Run the study with this plan and say what was written."""
        from crossfade.lab.paper.why.study import run_study

        named = os.environ.get("CROSSFADE_DATA")
        data = self.data_dir or (Path(named) if named else None)
        on_images = data is not None and any(one.startswith("cifar100") for one in self.sets or ("cifar100",))
        if not on_images and (self.epochs is not None or self.precision != "32-true"):
            raise UserError(
                "--epochs and --precision are for CIFAR-100: --data-dir must hold it, and --sets name it if given"
            )
        trials = plan(data, self.scale, only=self.sets or (), epochs=self.epochs, precision=self.precision)
        out = self.out or Path(study)
        check_outputs([], [data], store=self.store)
        check_folder(out, "--out", mark=_RECORD, overwrite=self.overwrite)
        failed = run_study(
            study,
            trials,
            self.scale,
            store=self.store,
            out=out,
            hardware=Hardware("cpu", ray=self.ray, gpus=self.gpus, threads=self.workers),
            retry_failed=self.retry_failed,
            progress=not self.quiet,
        )
        return _written(out, self.quiet, failed)


def dynamics(*, methods: Names = None, common: Measured = Measured()) -> int:
    """Follow p of every example through training: who moves from wrong to right, gradient mass, calibration.

    After an interruption the same command goes on where it stopped. Lists are separated by commas.

    Args:
        methods: Mixtures to train with. [default: ce,f0,f0-late,gradual,gradual-unit,el]
    """
    from crossfade.lab.paper.why import dynamics as study

    return common.run(study.STUDY, partial(study.plan, methods=methods or study.METHODS))


def escape(*, common: Measured = Measured()) -> int:
    """Eq. 15-18: escaping efficiency along real training runs, at minima, and counted on a known landscape.

    After an interruption the same command goes on where it stopped. Lists are separated by commas.
    """
    from crossfade.lab.paper.why import escape as study

    return common.run(study.STUDY, study.plan)


def _written(out: Path, quiet: bool, failed: int = 0) -> int:
    if not quiet:
        print(f"Written to {out}: {', '.join(sorted(p.name for p in out.iterdir() if p.suffix in ('.csv', '.svg')))}")
    if failed:
        print(f"crossfade: {count(failed, 'trial')} failed; see `crossfade status`", file=sys.stderr)
    return 1 if failed else 0
