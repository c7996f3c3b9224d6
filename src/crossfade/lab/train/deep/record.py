"""The record of a training: each epoch's scores, the chosen epoch, and which watched images became right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.diagnostics import Recording, transitions
from crossfade.lab.scores import BINS
from crossfade.lab.train.outcome import History, chosen_epoch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crossfade.lab.train.deep.recipe import DeepRecipe

_COUNT, _CORRECT, _NLL, _BRIER, _GAPS = range(5)
_COUNTS = _GAPS + BINS
_MOST_CLASSES = 30  # for a confusion matrix


class Tally:
    """Sums for accuracy, nll, ece and brier, which are the same numbers as those of ``crossfade.lab.scores``.

    Args:
        device: Where the sums are kept.
        classes: With up to 30, a confusion matrix is counted too: for f1 (of class 1 if there are two, else the mean
            over classes) and mcc (Matthews' correlation).
        rows: The number of examples, to keep which of them are classified rightly; 0 for not keeping it.

    Attributes:
        sums: All sums as one tensor, which can be added over processes.
    """

    def __init__(self, device: torch.device, classes: int = 0, rows: int = 0) -> None:
        self._classes = classes if classes <= _MOST_CLASSES else 0
        self._rows = _COUNTS + self._classes**2  # where the rows begin
        self.sums = torch.zeros(self._rows + rows, dtype=exact(device), device=device)

    def add(self, logits: Tensor, labels: Tensor, index: Tensor | None = None) -> None:
        """Count a batch of (N, C) logits and (N,) labels, of the examples ``index`` where rows are kept."""
        sums = self.sums
        log_p = F.log_softmax(logits.to(sums.dtype), 1)
        p = log_p.exp()
        confidence, predicted = p.max(1)
        correct = (predicted == labels).to(sums.dtype)
        own = log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
        sums[_COUNT] += len(labels)
        sums[_CORRECT] += correct.sum()
        sums[_NLL] -= own.sum()
        sums[_BRIER] += (p.square().sum(1) - 2 * own.exp() + 1).sum()
        place = (confidence * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
        sums[_GAPS:_COUNTS].index_add_(0, place, correct - confidence)
        if self._classes:
            sums[_COUNTS : self._rows].index_add_(0, labels * self._classes + predicted, torch.ones_like(confidence))
        if index is not None and len(sums) > self._rows:
            sums[self._rows + index.to(sums.device)] = correct

    @property
    def right(self) -> Tensor | None:
        """Which examples are classified rightly, (rows,) bool, if rows are kept."""
        return self.sums[self._rows :].bool().cpu() if len(self.sums) > self._rows else None

    def scores(self) -> dict[str, float]:
        """Return the scores by name; NaN if nothing was counted."""
        sums = self.sums.double().cpu()
        count = float(sums[_COUNT]) or float("nan")
        return {
            "accuracy": float(sums[_CORRECT]) / count,
            "nll": float(sums[_NLL]) / count,
            "ece": float(sums[_GAPS:_COUNTS].abs().sum()) / count,
            "brier": float(sums[_BRIER]) / count,
            **(_confusion_scores(sums[_COUNTS : self._rows].numpy(), self._classes) if self._classes else {}),
        }


def exact(device: torch.device) -> torch.dtype:
    """Return the type for sums over an epoch: float64, if the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _confusion_scores(counts: NDArray[np.float64], classes: int) -> dict[str, float]:
    from sklearn.metrics import f1_score, matthews_corrcoef

    if not counts.sum():
        return {"f1": float("nan"), "mcc": float("nan")}
    true, predicted = np.divmod(np.arange(classes**2), classes)
    average = "binary" if classes == 2 else "macro"
    f1 = f1_score(true, predicted, average=average, sample_weight=counts, zero_division=0.0)
    return {"f1": float(f1), "mcc": float(matthews_corrcoef(true, predicted, sample_weight=counts))}


class Record:
    """The finished epochs of a training.

    Attributes:
        rows: The scores of each epoch that was scored.
        best: The weights of the best epoch, if the recipe selects by validation.
        right: Which test examples are classified rightly after the chosen epoch, if that is kept.
        finite: Whether weights and loss have stayed finite.
        calibrated: The temperature of the chosen weights and the scores after it, once they are known.
    """

    def __init__(self, recipe: DeepRecipe) -> None:
        self.recipe = recipe
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None
        self.right: Tensor | None = None
        self.finite = True
        self.calibrated: dict[str, float] = {}
        self.shared = 0  # epochs that were trained for another method

    def wants(self, epoch: int, loss: float, net: nn.Module) -> bool:
        """Return whether to score the epoch: if weights and loss are finite and the recipe wants it."""
        with torch.no_grad():  # the host waits for one number alone
            weights = torch.stack([weight.isfinite().all() for weight in net.parameters()]).all()
        self.finite = math.isfinite(loss) and bool(weights)
        return self.finite and self.recipe.scored(epoch)

    def add(self, epoch: int, loss: float, parts: Mapping[str, Tally], net: nn.Module) -> None:
        """Add the scores of an epoch, by part."""
        scores = {f"{part}_{name}": value for part, found in parts.items() for name, value in found.scores().items()}
        self.rows.append({"epoch": epoch + 1, "train_loss": loss, **scores})
        if self._chosen() < len(self.rows) - 1:
            return
        self.right = parts["test"].right
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
        kept = {"best": self.best, "right": self.right, "finite": self.finite, "shared": self.shared}
        return {"rows": list(self.rows), **kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.rows, self.best, self.finite = list(state["rows"]), state["best"], state["finite"]
        self.shared, self.right = state.get("shared", 0), state.get("right")  # older checkpoints have no ``right``

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
