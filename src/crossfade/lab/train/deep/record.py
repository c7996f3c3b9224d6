"""The record of a training: each epoch's scores, the chosen epoch, and which watched images became right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from crossfade.diagnostics import Recording, calibration, transitions
from crossfade.lab.scores import calibrated_scores, f1_and_mcc
from crossfade.lab.train.outcome import History, chosen_epoch

if TYPE_CHECKING:
    from crossfade.lab.train.deep.recipe import DeepRecipe

_MOST_CLASSES = 30  # for scores that count classes


class Outputs(NamedTuple):
    """A network's logits (N, C) for the examples of a part, and their labels (N,)."""

    logits: Tensor
    labels: Tensor

    def scores(self) -> dict[str, float]:
        """Return accuracy, nll, ece, brier and, with up to 30 classes, f1 and mcc."""
        found = calibration(self.logits, self.labels)._asdict()
        if self.logits.shape[1] <= _MOST_CLASSES:
            predicted = self.logits.argmax(1).cpu().numpy()
            found |= f1_and_mcc(self.labels.cpu().numpy(), predicted, self.logits.shape[1])
        return found


class Record:
    """The finished epochs of a training.

    Attributes:
        rows: The scores of each epoch that was scored.
        best: The weights of the best epoch, if the recipe selects by validation.
        right: Which test examples are classified rightly after the chosen epoch.
        calibrated: The temperature of that epoch's weights and the scores after it, if there is a validation part.
        finite: Whether weights and loss have stayed finite.
    """

    def __init__(self, recipe: DeepRecipe) -> None:
        self.recipe = recipe
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None
        self.right: Tensor | None = None
        self.calibrated: dict[str, float] = {}
        self.finite = True
        self.shared = 0  # epochs that were trained for another method

    def wants(self, epoch: int, loss: float, net: nn.Module) -> bool:
        """Return whether to score the epoch: if weights and loss are finite and the recipe wants it."""
        with torch.no_grad():  # the host waits for one number alone
            weights = torch.stack([weight.isfinite().all() for weight in net.parameters()]).all()
        self.finite = math.isfinite(loss) and bool(weights)
        return self.finite and self.recipe.scored(epoch)

    def add(self, epoch: int, loss: float, parts: Mapping[str, Outputs], net: nn.Module) -> None:
        """Add the scores of an epoch, by part."""
        scores = {f"{part}_{name}": value for part, found in parts.items() for name, value in found.scores().items()}
        self.rows.append({"epoch": epoch + 1, "train_loss": loss, **scores})
        if self._chosen() < len(self.rows) - 1:
            return
        self.right = (parts["test"].logits.argmax(1) == parts["test"].labels).cpu()
        if "val" in parts and (self.recipe.select == "validation" or epoch == self.recipe.epochs - 1):
            self.calibrated = calibrated_scores(parts["val"], parts["test"])
        if self.recipe.select == "validation":
            self.best = {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}

    def history(self, net: nn.Module, device: torch.device, seconds: float) -> History:
        """Return the history of a finished training with this network."""
        names = [name for name in (self.rows or [{}])[0] if name.startswith(("val_", "test_"))]
        chosen, last = self._chosen(), net.state_dict()
        tested = [name for name in names if name.startswith("test_") and name != "test_accuracy"]
        return History(
            curves={name: np.array([row[name] for row in self.rows]) for name in ("epoch", *names, "train_loss")},
            chosen=chosen,
            scores={name.removeprefix("test_"): self.rows[chosen][name] for name in tested} | self.calibrated,
            weights=last if self.best is None else self.best,
            last=last,
            right=None if self.right is None else self.right.numpy(),
            finite=self.finite,
            shared=self.shared,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            seconds=seconds,
        )

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        names = ("best", "right", "calibrated", "finite", "shared")
        return {"rows": list(self.rows), **{name: getattr(self, name) for name in names}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.rows, self.best, self.finite = list(state["rows"]), state["best"], state["finite"]
        self.shared, self.right = state.get("shared", 0), state.get("right")  # older checkpoints lack some
        self.calibrated = state.get("calibrated", {})

    def _chosen(self) -> int:
        if self.recipe.select == "last":
            return len(self.rows) - 1
        return chosen_epoch(np.array([row["val_accuracy"] for row in self.rows]))


def escapes(folder: Path, recipe: DeepRecipe) -> dict[str, int]:
    """Return the sizes of three groups of test images at epoch ``recipe.watch``, and how many are right at the end.

    The groups are: right, wrong with p_y > 0.2, wrong with p_y < 0.2.
    """
    far, near, right = transitions(Recording(folder), recipe.watch - 1, recipe.epochs - 1).counts.tolist()
    groups = {"right": right, "near": near, "far": far}  # how many are then far, near and right
    counts = {f"watch_{name}": sum(group) for name, group in groups.items()}
    return counts | {f"end_{name}": group[2] for name, group in groups.items()}
