"""Started by torchrun, and called by the test itself: trains the same trials into a store."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from crossfade.lab.data.images import ImageSet, ImageTask
from crossfade.lab.nets import SMALL_NETS
from crossfade.lab.run import run_request
from crossfade.lab.store import Run
from crossfade.lab.train.deep.augment import Augment
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.trial import Trial
from tests.images.image_cases import method, noise, tiny


def work(folder: Path, devices: int) -> None:
    torch.set_num_threads(1)
    SMALL_NETS["tiny_plain"] = tiny(norm=False)
    data = ImageSet("toy", tuple("abcd"), noise(203), noise(51, seed=1))
    recipe = ImageRecipe(
        net="tiny_plain", epochs=2, batch_size=20, milestones=(1,), learning_rate=0.05,
        augment=Augment(crop=1, rotation=5, erasing=0.5), watch=1,
    )  # fmt: skip
    trials = [Trial("ddp", ImageTask(data), method(name), recipe, 0) for name in ("gradual", "cot")]
    run = Run("ddp", {}, tuple(trial.key for trial in trials))
    hardware = Hardware(accelerator="cpu", devices=devices)
    run_request([run], trials, folder / "s.db", hardware, keep_weights=folder / "weights", progress=False)


if __name__ == "__main__":
    work(Path(sys.argv[1]), devices=2)
