"""What both ways to train a deep network do alike: a step's settings, a part's scores, the record of the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crossfade.lab.methods import Method, ScaledRate
from crossfade.lab.train.deep.scores import Tally

if TYPE_CHECKING:
    from crossfade.lab.train.deep.batches import Batch

__all__ = ["Observer", "Record", "scored", "step_settings"]

Observer = Callable[[int, str, Tensor, Tensor, Tensor], None]


def step_settings(method: Method, recipe: Any, epoch: int, within: float) -> tuple[float, float]:
    """Progress for the loss's schedule and the learning rate of a step that begins at this part of an epoch."""
    progress = (epoch + within if recipe.granularity == "step" else epoch) / recipe.epochs
    rate = recipe.rate(epoch + within)
    return progress, rate * method.factor(progress) if isinstance(method, ScaledRate) else rate


@torch.no_grad()
def scored(
    net: nn.Module,
    logits_of: Callable[[Any], Tensor],
    batches: Iterable[Batch],
    classes: int,
    device: torch.device,
    observe: Callable[[Tensor, Tensor, Tensor], None] | None,
) -> Tally:
    """A part's sums; ``observe`` is shown index, logits and labels of every batch."""
    tally = Tally(classes)
    net.eval()
    for inputs, labels, index, _ in batches:
        logits, target = logits_of(inputs.to(device)).float(), labels.to(device)
        tally.add(logits, target)
        if observe is not None:
            observe(index, logits, target)
    net.train()
    return tally


class Record:
    """The epochs so far.

    Attributes:
        rows: One for each epoch that was scored.
        best: Weights of the best epoch, where the recipe selects by validation.
        finite: False if weights or loss stopped being finite.
    """

    def __init__(self, recipe: Any) -> None:
        self.recipe = recipe
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None
        self.finite = True

    def wants(self, epoch: int, loss: float, net: nn.Module) -> bool:
        """Whether the epoch is to be scored: it is finite, and the recipe says so."""
        with torch.no_grad():  # one answer for the host to wait for
            weights = torch.stack([weight.isfinite().all() for weight in net.parameters()]).all()
        self.finite = math.isfinite(loss) and bool(weights)
        return self.finite and self.recipe.scored(epoch)

    def add(self, epoch: int, loss: float, parts: Mapping[str, Mapping[str, float]], net: nn.Module) -> None:
        """The scores of an epoch, by part."""
        row: dict[str, float] = {"epoch": epoch + 1, "train_loss": loss}
        for part, scores in parts.items():
            row |= {f"{part}_{name}": value for name, value in scores.items() if name != "loss"}
        self.rows.append(row)
        if self.recipe.select == "validation" and self.chosen == len(self.rows) - 1:
            self.best = {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}

    @property
    def chosen(self) -> int:
        """The row whose test scores are the result, by ``ImageRecipe.select``; -1 if there is none."""
        if self.recipe.select == "last" or not self.rows:
            return len(self.rows) - 1
        return max(range(len(self.rows)), key=lambda at: (self.rows[at]["val_accuracy"], -at))

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"rows": list(self.rows), "best": self.best, "finite": self.finite}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From :meth:`state`."""
        self.rows, self.best, self.finite = list(state["rows"]), state["best"], state["finite"]
