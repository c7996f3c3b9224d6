"""What the LSTM engines share: initial weights, batches of texts of similar length, and the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.train.lstm.types import LstmHistory, LstmRecipe, TokenSplit
from crossfade.lab.train.outcome import Curve, Floats

if TYPE_CHECKING:
    from crossfade.schedules import Schedule

WINDOW = 50  # batches among which examples are sorted by length
TRAIN_LOSS, VAL_ACCURACY, VAL_NLL, TEST_ACCURACY, TEST_NLL = range(5)  # columns of ``curves``, one row an epoch


def initial_state(seed: int, vocabulary: int, classes: int, recipe: LstmRecipe) -> dict[str, Floats]:
    """The weights by their names: what nn.Embedding, nn.LSTM and nn.Linear, made in turn, draw from this seed.

    Normal(0, 1) for the embedding, uniform in +-1 / sqrt(hidden) for all others.
    """
    import torch

    generator, bound = torch.Generator().manual_seed(seed), recipe.hidden**-0.5
    state = {"embedding.weight": torch.empty(vocabulary, recipe.embedding).normal_(generator=generator)}
    for name, shape in shapes(vocabulary, classes, recipe).items():
        if name not in state:
            state[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return {name: value.numpy() for name, value in state.items()}


def shapes(vocabulary: int, classes: int, recipe: LstmRecipe) -> dict[str, tuple[int, ...]]:
    """Shape of each weight, in the order of ``LstmClassifier.state_dict()``."""
    cells = recipe.hidden
    made: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary, recipe.embedding)}
    for layer in range(recipe.layers):
        made[f"lstm.weight_ih_l{layer}"] = (4 * cells, recipe.embedding if layer == 0 else cells)
        made[f"lstm.weight_hh_l{layer}"] = (4 * cells, cells)
        made[f"lstm.bias_ih_l{layer}"] = (4 * cells,)
        made[f"lstm.bias_hh_l{layer}"] = (4 * cells,)
    return {**made, "output.weight": (classes, cells), "output.bias": (classes,)}


def epoch_batches(
    seed: int, epoch: int, lengths: NDArray[np.int64], batch_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(order, starts): batch i is order[starts[i] : starts[i + 1]], the longest example first.

    The examples are shuffled; within windows of 50 batches they are sorted by length and cut into batches, and the
    batches are shuffled. So a batch holds little padding, and which examples meet in it still changes each epoch.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = order[start : start + WINDOW * batch_size]
        window = window[np.argsort(-lengths[window], kind="stable")]
        batches += [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
    chosen = [batches[i] for i in generator.permutation(len(batches))]
    starts = np.concatenate([[0], np.cumsum([len(batch) for batch in chosen])])
    return np.concatenate(chosen).astype(np.int32), starts.astype(np.int64)


def scoring_batches(lengths: NDArray[np.int64], batch_size: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """As ``epoch_batches``, for a part that is only scored: all examples sorted by length."""
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    return order, np.append(np.arange(0, len(order), batch_size), len(order)).astype(np.int64)


def mixture(schedule: Schedule, recipe: LstmRecipe, examples: int) -> Floats:
    """(epochs, 1 or steps, 2): alpha and beta of each epoch or step.

    Raises:
        UserError: the schedule gives something else than two finite numbers.
    """
    from crossfade.lab.train.tables.setup import mixture_table

    return mixture_table(schedule, cast("Any", recipe), examples)  # it reads epochs, batch_size and granularity


def cost(split: TokenSplit, recipe: LstmRecipe) -> float:
    """Relative time of an epoch."""
    tokens = len(split.train.tokens) + 0.3 * (len(split.val.tokens) + len(split.test.tokens))
    return tokens * recipe.weights(split.classes)


def empty_curves(epochs: int) -> Curve:
    """Curves of a network that has diverged before its first epoch was over."""
    return np.full((epochs, 5), np.nan)


def better(curves: Curve, epoch: int, chosen: int, select: str) -> bool:
    """Whether this epoch's weights are kept in place of those of the epoch ``chosen`` (-1 for none yet)."""
    last = select == "last" or chosen < 0
    return last or bool(curves[epoch, VAL_ACCURACY] > curves[chosen, VAL_ACCURACY])


def history(curves: Curve, chosen: int, probabilities: Floats, weights: dict[str, Floats], engine: str) -> LstmHistory:
    """``chosen`` -1 says that there was no finite epoch: then there are no weights or probabilities either."""
    if chosen < 0:
        probabilities = np.full_like(probabilities, np.nan)
        weights = {name: np.full_like(weight, np.nan) for name, weight in weights.items()}
    return LstmHistory(
        train_loss=curves[:, TRAIN_LOSS].copy(),
        val_accuracy=curves[:, VAL_ACCURACY].copy(),
        val_nll=curves[:, VAL_NLL].copy(),
        test_accuracy=curves[:, TEST_ACCURACY].copy(),
        test_nll=curves[:, TEST_NLL].copy(),
        best_epoch=chosen,
        test_probabilities=probabilities,
        weights=weights,
        engine=engine,
    )
