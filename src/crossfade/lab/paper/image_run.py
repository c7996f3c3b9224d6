"""Run an image study: what the store doesn't know yet."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crossfade.errors import UserError
from crossfade.lab.store import Store

if TYPE_CHECKING:
    from crossfade.lab.paper.image_study import ImagePlan, ImageStudy
    from crossfade.lab.run import Summary
    from crossfade.lab.trial import Trial

__all__ = ["IMAGE_STUDIES", "image_study", "run_study", "run_trials", "unknown"]

IMAGE_STUDIES = {
    "table1": "CE and its mixtures: CIFAR-100 and CINIC-10, eight networks",
    "table2": "CE and its mixtures: ImageNet, seven networks",
    "table5": "complement objective training (COT), CE and F=0-0.5",
    "table6": "more regularisation: ResNet34 on CINIC-10",
    "motivating": "what becomes of wrong test images with p_y below and above 0.2",
    "normmatched": "CE at the learning rate that matches the mixture's gradient volume, eq. (20)-(22)",
}


def image_study(name: str) -> ImageStudy:
    """One of ``IMAGE_STUDIES``.

    Raises:
        UserError: unknown name.
    """
    if name not in IMAGE_STUDIES:
        raise UserError(f"study {name!r} is unknown (known: {', '.join(IMAGE_STUDIES)})")
    return cast("ImageStudy", importlib.import_module(f"crossfade.lab.paper.{name}").STUDY)


def run_study(
    plan: ImagePlan,
    store_path: Path,
    *,
    work: Path | None = None,
    keep_weights: Path | None = None,
    progress: bool = True,
    retry_failed: bool = False,
) -> Summary:
    """Train what the store doesn't know yet. A run that was stopped goes on from the last epoch.

    Args:
        plan: From ``plan_images``.
        store_path: The store; of several processes (DDP, torchrun) only the first writes it.
        work: Checkpoints. Default: a folder beside the store, named after it.
        keep_weights: Where weights are kept as safetensors; None: nowhere.
        progress: Show it on standard error.
        retry_failed: Run failed trials again.
    """
    return run_trials(
        plan.trials, plan.run, store_path, plan.request.hardware, work=work, keep_weights=keep_weights,
        progress=progress, retry_failed=retry_failed, label=plan.request.study.name,
    )  # fmt: skip


def run_trials(
    trials: Sequence[Trial],
    request: Any,
    store_path: Path,
    hardware: Any,
    *,
    work: Path | None = None,
    keep_weights: Path | None = None,
    progress: bool = True,
    retry_failed: bool = False,
    label: str = "Training",
) -> Summary:
    """As ``run_study``, for any trials of image networks; ``request`` is the ``Run`` to save."""
    from crossfade.lab.progress import shown
    from crossfade.lab.run import run
    from crossfade.lab.train.deep.run import deep, process_rank

    work = work or store_path.with_name(store_path.name + ".work")
    execute = deep(hardware, work, keep_weights)
    first = process_rank() == 0
    if not first:  # it trains what the first process trains, and leaves the writing to it
        trials = unknown(trials, store_path, retry_failed)
    with Store(store_path if first else ":memory:") as store:
        store.save(request)
        with shown(label, progress and first) as tick:
            summary = run(trials, store, execute=execute, retry_failed=retry_failed, on_progress=tick)
    if first and work.is_dir() and not any(work.iterdir()):
        work.rmdir()
    return summary


def unknown(trials: Sequence[Trial], path: Path, retry_failed: bool = False) -> list[Trial]:
    """Those that the store at ``path`` has no result of."""
    if not path.exists():
        return list(trials)
    with Store(path, mode="read") as store:
        statuses = store.statuses([trial.key for trial in trials])
    return [t for t in trials if t.key not in statuses or (retry_failed and statuses[t.key] == "failed")]
