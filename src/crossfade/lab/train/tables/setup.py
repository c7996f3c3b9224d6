"""What all engines share: initial weights, the order of rows, the schedule as a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UserError
from crossfade.lab.train.tables.types import Floats, Member, Recipe
from crossfade.schedules import Schedule


def initial_weights(seed: int, sizes: Sequence[int]) -> list[Floats]:
    """Weight and bias of each layer, as ``torch.manual_seed(seed)`` and then ``nn.Linear`` a layer give them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [
        torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator).numpy()
        for fan_in, fan_out in pairwise(sizes)
        for shape in ((fan_out, fan_in), (fan_out,))
    ]


def row_orders(seed: int, rows: int, epochs: int) -> NDArray[np.int32]:
    """(epochs, rows): a permutation of the training rows for each epoch."""
    generator = np.random.default_rng(seed)
    return generator.permuted(np.tile(np.arange(rows, dtype=np.int32), (epochs, 1)), axis=1)


def mixture_table(schedule: Schedule, recipe: Recipe, rows: int) -> Floats:
    """(epochs, 1 or steps, 2): alpha and beta at each epoch, or at each step, of ``rows`` training rows.

    Raises:
        UserError: the schedule gives something else than two finite numbers.
    """
    steps = -(-rows // recipe.batch_size) if recipe.granularity == "step" else 1
    total = recipe.epochs * steps
    table = np.array([tuple(schedule(step / total)) for step in range(total)], dtype=np.float32)
    if table.shape != (total, 2) or not np.isfinite(table).all():
        raise UserError("a method's schedule must give two finite numbers, alpha and beta, at each progress in [0, 1)")
    return table.reshape(recipe.epochs, steps, 2)


def cost(member: Member, recipe: Recipe) -> float:
    """Relative time of an epoch: a step costs as much as some thousand multiplications before its first."""
    split, sizes = member.split, recipe.sizes(member.split.features, member.split.classes)
    weights = sum(a * b for a, b in pairwise(sizes))
    return (len(split.y_train) + 0.3 * (len(split.y_val) + len(split.y_test))) * (500.0 + weights)
