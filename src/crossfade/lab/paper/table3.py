"""Table 3: the rating of a clothing review from its text, five LSTM architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crossfade.errors import UserError
from crossfade.lab.paper.text_study import MIXTURES, TextPlan, check_scale, plan_of
from crossfade.lab.train.lstm.types import LstmRecipe
from crossfade.lab.trial import Trial

__all__ = ["ARCHITECTURES", "CHOICES", "PAPER", "plan_table3"]

# Embedding = cells of a layer, layers.
ARCHITECTURES = {"arch1": (50, 1), "arch2": (75, 1), "arch3": (100, 1), "arch4": (50, 2), "arch5": (100, 2)}

# Percent and standard deviation over eight seeds, by method and architecture.
PAPER = {
    "ce": ((61.08, 0.83), (60.46, 1.50), (60.07, 1.34), (63.26, 0.54), (63.14, 0.81)),
    "f0": ((60.81, 1.30), (61.52, 1.19), (61.12, 1.18), (63.20, 0.68), (63.79, 1.20)),
    "f0-late": ((60.95, 1.32), (61.52, 1.19), (61.12, 1.18), (63.20, 0.68), (63.79, 1.20)),
    "gradual": ((61.57, 1.20), (61.36, 1.30), (61.27, 1.15), (63.46, 0.45), (63.77, 0.71)),
}

CHOICES = (
    "none of this is printed: 80 % of the 22,641 reviews to train on, 10 % each to choose the epoch and to test, drawn "
    "anew for every seed and stratified by rating",
    "lower-case words, ! and ?; words seen twice in the training part, at most 20,000; the first 128 of a review",
    "Adam at 0.001, batch 64, 10 epochs, no dropout; loss weights move by steps; the epoch with the best validation "
    "accuracy counts",
)

_RECIPE = LstmRecipe(granularity="step")
# epochs, batch, reviews to learn from, seeds at most
_SHORTENED = {"smoke": (1, 16, 200, 1), "short": (8, 32, 6_000, 2)}
_TEST_SIZE = 0.1


def plan_table3(
    data_dir: Path,
    command: str | Sequence[str],
    *,
    scale: str = "paper",
    architectures: Sequence[str] = (),
    methods: Sequence[str] = (),
    repeats: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
) -> TextPlan:
    """Write the study down as trials. What the paper doesn't print can be chosen otherwise.

    Raises:
        UserError: unknown names, values out of range, or no reviews.
    """
    from crossfade.lab.data.reviews import load_reviews
    from crossfade.lab.data.texts import TextTask
    from crossfade.lab.methods import method

    check_scale(scale, repeats)
    unknown = sorted(set(architectures) - set(ARCHITECTURES))
    if unknown:
        raise UserError(f"--nets: {unknown[0]!r} isn't in Table 3 (there are {', '.join(ARCHITECTURES)})")
    recipe, limit, seeds = _RECIPE, None, 8
    if scale != "paper":
        short_epochs, batch, limit, seeds = _SHORTENED[scale]
        recipe = replace(recipe, epochs=short_epochs, batch_size=batch, scale=scale)
    said = {
        "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length,
    }  # fmt: skip
    recipe = replace(recipe, **{key: value for key, value in said.items() if value is not None})  # type: ignore[arg-type]
    data = load_reviews(data_dir)
    chosen = [method(name) for name in dict.fromkeys(["ce", *(methods or MIXTURES)])]
    trials = []
    for name in architectures or ARCHITECTURES:
        size, layers = ARCHITECTURES[name]
        own = replace(recipe, embedding=size, hidden=size, layers=layers)
        task = TextTask(data, test_size=_TEST_SIZE, limit=limit, label=f"Reviews · {name}")
        trials += [Trial("table3", task, one, own, at) for at in range(repeats or seeds) for one in chosen]
    return plan_of(
        "table3", "Table 3: clothing reviews, five LSTMs", trials, command, scale=scale, notes=data.notes,
        choices=CHOICES,
    )  # fmt: skip
