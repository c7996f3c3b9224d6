"""Run an image study: what the store doesn't know yet."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from crossfade.errors import UserError
from crossfade.lab.run import run_request

if TYPE_CHECKING:
    from crossfade.lab.paper.image_study import ImagePlan, ImageStudy
    from crossfade.lab.run import Summary

__all__ = ["IMAGE_STUDIES", "image_study", "run_study"]

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
    keep_weights: Path | None = None,
    progress: bool = True,
    retry_failed: bool = False,
) -> Summary:
    """Train what the store doesn't know yet. A run that was stopped goes on from the last epoch.

    Args:
        plan: From ``plan_images``.
        store_path: The store; of several processes (DDP, torchrun) only the first writes it.
        keep_weights: Where weights are kept as safetensors; None: nowhere.
        progress: Show it on standard error.
        retry_failed: Run failed trials again.
    """
    return run_request(
        [plan.run],
        plan.trials,
        store_path,
        plan.request.hardware,
        keep_weights=keep_weights,
        progress=progress,
        retry_failed=retry_failed,
        label=plan.request.study.name,
    )
