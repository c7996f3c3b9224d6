"""What all engines share: initial weights, the order of rows, and the history that they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.data.split import Split
from crossfade.lab.train.outcome import Curve, Floats, History
from crossfade.lab.train.tables.recipe import Member, Recipe

__all__ = [
    "TEST_CORRECT",
    "TEST_NLL",
    "TRAIN_LOSS",
    "VAL_CORRECT",
    "VAL_NLL",
    "cost",
    "empty_measures",
    "history",
    "initial_weights",
    "row_orders",
    "state_dict",
    "steps_in_epoch",
]

TRAIN_LOSS, VAL_CORRECT, VAL_NLL, TEST_CORRECT, TEST_NLL = range(5)  # columns of the measures, one row an epoch


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
    """Return how often a schedule moves in an epoch of so many training rows."""
    return -(-rows // recipe.batch_size) if recipe.granularity == "step" else 1


def cost(member: Member, recipe: Recipe) -> float:
    """Return the relative time of an epoch: a step costs some thousand multiplications before its first."""
    split, sizes = member.split, recipe.sizes(member.split.features, member.split.classes)
    weights = sum(a * b for a, b in pairwise(sizes))
    return (len(split.y_train) + 0.3 * (len(split.y_val) + len(split.y_test))) * (500.0 + weights)


def empty_measures(epochs: int) -> Curve:
    """Return the measures of a network that has diverged before its first epoch was over: no row right, no loss."""
    measures = np.full((epochs, 5), np.nan)
    measures[:, [VAL_CORRECT, TEST_CORRECT]] = 0.0
    return measures


def history(
    split: Split, measures: Curve, chosen: int, probabilities: Floats, weights: Mapping[str, Floats], engine: str
) -> History:
    """Return an engine's measurements as the history of a training.

    From the epoch on in which weights or loss stopped being finite, the losses are NaN and the accuracies 0.

    Args:
        split: What the network was trained on.
        measures: (epochs, 5), see the columns above.
        chosen: The epoch that counts. -1 says that none was finite: then weights and probabilities are NaN.
        probabilities: (test rows, classes) after that epoch.
        weights: After that epoch.
        engine: What trained it.
    """
    if chosen < 0:
        probabilities = np.full_like(probabilities, np.nan)
        weights = {name: np.full_like(weight, np.nan) for name, weight in weights.items()}
    with np.errstate(invalid="ignore"):  # without test rows the accuracy is 0 / 0
        curves = {
            "epoch": np.arange(1.0, len(measures) + 1.0),
            "val_accuracy": measures[:, VAL_CORRECT] / len(split.y_val),
            "test_accuracy": measures[:, TEST_CORRECT] / np.float64(len(split.y_test)),
            "val_nll": measures[:, VAL_NLL].copy(),
            "test_nll": measures[:, TEST_NLL].copy(),
            "train_loss": measures[:, TRAIN_LOSS].copy(),
        }
    return History(
        curves=curves,
        chosen=chosen,
        weights=weights,
        probabilities=probabilities,
        finite=bool(np.isfinite(measures[-1, VAL_NLL])),
        engine=engine,
    )
