"""Initial weights, the order of rows, and the record of a training: the same for all engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.data.split import Split
from crossfade.lab.methods import Method, ScaledRate, TwoPass, cosine, mmc, mpce, value_table
from crossfade.lab.scores import TALLY
from crossfade.lab.train.outcome import Curve, Floats, History, chosen_epoch
from crossfade.lab.train.tables.recipe import Member, Recipe

# Columns of the measures, one row an epoch; where they are tallied, four for each of the two parts follow.
TRAIN_LOSS, VAL_CORRECT, VAL_NLL, TEST_CORRECT, TEST_NLL, VAL_TALLY, TEST_TALLY, COLUMNS = *range(6), 9, 13

LOSSES = (None, mpce, mmc, TwoPass.second_loss)  # what the kernel knows beside g(ce)


def initial_weights(seed: int, sizes: Sequence[int]) -> list[Floats]:
    """Return weight and bias of each layer, as ``torch.manual_seed(seed)`` and then ``nn.Linear`` a layer give them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [
        torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator).numpy()
        for fan_in, fan_out in pairwise(sizes)
        for shape in ((fan_out, fan_in), (fan_out,))
    ]


def state_dict(weights: Sequence[Floats]) -> dict[str, Floats]:
    """Return weight and bias of each layer by their names in ``plain.network``: 0.weight, 0.bias, 2.weight, ..."""
    return {f"{at // 2 * 2}.{('weight', 'bias')[at % 2]}": array for at, array in enumerate(weights)}


def row_orders(seed: int, rows: int, epochs: int) -> NDArray[np.int32]:
    """Return (epochs, rows): a permutation of the training rows for each epoch."""
    generator = np.random.default_rng(seed)
    return generator.permuted(np.tile(np.arange(rows, dtype=np.int32), (epochs, 1)), axis=1)


def steps_in_epoch(recipe: Recipe, rows: int) -> int:
    """Return how often a schedule's weights change in an epoch with this number of training rows."""
    return -(-rows // recipe.batch_size) if recipe.granularity == "step" else 1


def schedule_table(method: Method, recipe: Recipe, rows: int) -> Floats:
    """Return (epochs, steps, parameters + 1): the schedule's values, and what the learning rate is multiplied by."""
    table = value_table(method, recipe.epochs, steps_in_epoch(recipe, rows))
    moves = table.shape[0] * table.shape[1]
    factors: list[Callable[[float], float]] = [cosine] if recipe.lr_schedule == "cosine" else []
    if isinstance(method, ScaledRate) and method.factor not in factors:  # ce-cosine's rate doesn't fall twice
        factors.append(method.factor)
    rates = [math.prod(factor(step / moves) for factor in factors) for step in range(moves)]
    return np.dstack([table, np.reshape(rates, table.shape[:2]).astype(np.float32)])


def cost(member: Member, recipe: Recipe) -> float:
    """Return the relative time of an epoch, in which each row has a fixed cost beside its multiplications."""
    split, sizes = member.split, recipe.sizes(member.split.features, member.split.classes)
    weights = sum(a * b for a, b in pairwise(sizes))
    return (len(split.y_train) + 0.3 * (len(split.y_val) + len(split.y_test))) * (500.0 + weights)


class Record:
    """The measurements of one network, epoch by epoch.

    Attributes:
        measures: (epochs, 5 or 13), with the columns above. Once weights or loss aren't finite, the counts are 0 and
            all else NaN.
        judged: The column that chooses the epoch.
        chosen: The best epoch so far, or the last one if that is to count; -1 if there is none.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.measures: Curve = np.full((recipe.epochs, COLUMNS if recipe.tallied else VAL_TALLY), np.nan)
        self.measures[:, VAL_CORRECT] = self.measures[:, TEST_CORRECT] = 0.0
        self.judged = VAL_CORRECT if recipe.metric == "accuracy" else VAL_TALLY + TALLY.index(recipe.metric)
        self.chosen = -1

    def add(self, epoch: int, measured: Sequence[float] | Curve) -> bool:
        """Add a finite epoch, and return whether it is the best one so far."""
        self.measures[epoch] = measured
        so_far, last = self.measures[: epoch + 1], self.recipe.select == "last"
        self.chosen = epoch if last else chosen_epoch(so_far[:, self.judged], so_far[:, VAL_NLL], self.recipe.tie)
        return self.chosen == epoch

    def history(self, split: Split, probabilities: Floats, weights: Sequence[Floats], engine: str) -> History:
        """Return the history, given the probabilities (test rows, classes) and weights after the best epoch.

        They are replaced by NaN if there is no best epoch.
        """
        by_name = state_dict(weights)
        if self.chosen < 0:
            probabilities = np.full_like(probabilities, np.nan)
            by_name = {name: np.full_like(weight, np.nan) for name, weight in by_name.items()}
        with np.errstate(invalid="ignore"):  # without test rows the accuracy is 0 / 0
            curves = {
                "epoch": np.arange(1.0, len(self.measures) + 1.0),
                "val_accuracy": self.measures[:, VAL_CORRECT] / len(split.y_val),
                "test_accuracy": self.measures[:, TEST_CORRECT] / np.float64(len(split.y_test)),
                "val_nll": self.measures[:, VAL_NLL],
                "test_nll": self.measures[:, TEST_NLL],
                "train_loss": self.measures[:, TRAIN_LOSS],
            }
        if self.recipe.tallied:
            names = [f"{part}_{score}" for part in ("val", "test") for score in TALLY]
            curves |= dict(zip(names, self.measures[:, VAL_TALLY:].T, strict=True))
        finite = bool(np.isfinite(self.measures[-1, VAL_NLL]))
        return History(curves, self.chosen, weights=by_name, probabilities=probabilities, finite=finite, engine=engine)
