"""What the tests of deep networks share, for images and texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from crossfade.lab.hardware import Hardware
from crossfade.lab.train.deep import lightning
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.outcome import History

CPU = Hardware(accelerator="cpu")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def train(split, method, recipe, *, seed, hardware=CPU, folder=None, observe=None, **options) -> History:
    """Train one network with Lightning."""
    return lightning.train(Job(split, method, seed, folder, observe), recipe, hardware=hardware, **options)


def rows(history: History) -> list[dict[str, float]]:
    """Return the scores of each epoch by name."""
    columns = {name: values.tolist() for name, values in history.curves.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def without_dropout(model: str, folder: Path) -> str:
    """Copy a transformer's folder to another, where its dropout is zero."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
