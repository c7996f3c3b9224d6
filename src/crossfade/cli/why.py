"""``crossfade run figure1 | taylor | dynamics | escape``: the paper's arguments, measured."""

from __future__ import annotations

import sys
from pathlib import Path

from crossfade.cli.options import Names
from crossfade.lab.paper.study import Scale


def figure1(*, loss: Names = None, out: Path = Path("figure1"), scale: Scale = "short") -> int:
    """Figure 1: how hard a loss pulls on an example, over p; the mixtures on both scales, and the other losses.

    Args:
        loss: Your own loss g(ce) beside them, as module:function or file.py:function.
        out: Folder for the tables and figures.
        scale: How many points a curve has.
    """
    from crossfade.lab.own_loss import load_loss
    from crossfade.lab.paper.why import figure1 as study

    study.run(out, scale, losses=[load_loss(one) for one in loss or ()])
    return _written(out)


def taylor(*, out: Path = Path("taylor"), scale: Scale = "short") -> int:
    """Eq. 11: Taylor's remainder of CE around EL, and the text's statements about it, checked.

    Args:
        out: Folder for the tables and the figure.
        scale: How many points are looked at.
    """
    from crossfade.lab.paper.why import taylor as study

    study.run(out, scale)
    return _written(out)


def dynamics(
    *,
    data_dir: Path | None = None,
    methods: Names = None,
    sets: Names = None,
    scale: Scale = "short",
    out: Path = Path("dynamics"),
    store: Path = Path("crossfade.db"),
    workers: int | None = None,
    retry_failed: bool = False,
) -> int:
    """Follow p of every example through training: who moves from wrong to right, gradient mass, calibration.

    After an interruption the same command goes on where it stopped. Lists are separated by commas.

    Args:
        data_dir: Has the UCI sets and CIFAR-100; without it scikit-learn's sets alone are used.
        methods: Mixtures to train with. [default: ce,f0,f0-late,gradual,gradual-unit,el]
        sets: Only these data sets.
        scale: smoke takes seconds; short cuts CIFAR-100 down; paper is ResNet-32 for 90 epochs.
        out: Folder for the tables and figures.
        store: Keeps every result.
        workers: Trainings side by side, each on one core. [default: all cores]
        retry_failed: Run failed trials again.
    """
    from crossfade.lab.paper.why import dynamics as study
    from crossfade.lab.paper.why.study import run_study

    trials = study.plan(data_dir, scale, methods or study.METHODS, sets or ())
    failed = run_study(study.STUDY, trials, scale, store=store, out=out, workers=workers, retry_failed=retry_failed)
    return _written(out, failed)


def escape(
    *,
    data_dir: Path | None = None,
    sets: Names = None,
    scale: Scale = "short",
    out: Path = Path("escape"),
    store: Path = Path("crossfade.db"),
    workers: int | None = None,
    retry_failed: bool = False,
) -> int:
    """Eq. 15-18: escaping efficiency along real training runs, at minima, and counted on a known landscape.

    After an interruption the same command goes on where it stopped. Lists are separated by commas.

    Args:
        data_dir: Has the UCI sets and CIFAR-100; without it scikit-learn's sets alone are used.
        sets: Only these data sets, or simulation.
        scale: smoke takes seconds; short about an hour on one core; paper uses all of CIFAR-100.
        out: Folder for the tables and figures.
        store: Keeps every result.
        workers: Measurements side by side, each on one core. [default: all cores]
        retry_failed: Run failed trials again.
    """
    from crossfade.lab.paper.why import escape as study
    from crossfade.lab.paper.why.study import run_study

    trials = study.plan(data_dir, scale, sets or ())
    failed = run_study(study.STUDY, trials, scale, store=store, out=out, workers=workers, retry_failed=retry_failed)
    return _written(out, failed)


def _written(out: Path, failed: int = 0) -> int:
    print(f"Written to {out}: {', '.join(sorted(p.name for p in out.iterdir() if p.suffix in ('.csv', '.svg')))}")
    if failed:
        print(f"crossfade: {failed} trials failed; see `crossfade status`", file=sys.stderr)
    return 1 if failed else 0
