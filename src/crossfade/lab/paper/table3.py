"""Table 3: the rating of a clothing review from its text, five LSTM architectures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crossfade.lab.paper.page import MarkdownStudy, table
from crossfade.lab.paper.study import MIXTURES, Cell, Prepared, Request, examples
from crossfade.lab.train.lstm.recipe import LstmRecipe

if TYPE_CHECKING:
    import pandas as pd

    from crossfade.lab.data.texts import TextSet

_TEST_SIZE = 0.1
# Size of the embedding and of each layer, layers; percent and standard deviation of CE, F=0, F=0,0.5 and F=0-0.5.
_ROWS = {
    "arch1": (50, 1, ((61.08, 0.83), (60.81, 1.30), (60.95, 1.32), (61.57, 1.20))),
    "arch2": (75, 1, ((60.46, 1.50), (61.52, 1.19), (61.52, 1.19), (61.36, 1.30))),
    "arch3": (100, 1, ((60.07, 1.34), (61.12, 1.18), (61.12, 1.18), (61.27, 1.15))),
    "arch4": (50, 2, ((63.26, 0.54), (63.20, 0.68), (63.20, 0.68), (63.46, 0.45))),
    "arch5": (100, 2, ((63.14, 0.81), (63.79, 1.20), (63.79, 1.20), (63.77, 0.71))),
}
# Epochs, batch size, training reviews, seeds.
_SHORTENED = {"smoke": (1, 16, 200, 1), "short": (8, 32, 6_000, 2)}


@dataclass(frozen=True)
class _Table3(MarkdownStudy[LstmRecipe, "TextSet"]):
    def load(self, data: str, request: Request) -> TextSet:
        from crossfade.lab.data.texts import load_reviews

        return load_reviews(request.data_dir)

    def prepare(self, cell: Cell[LstmRecipe], data: TextSet, request: Request) -> Prepared:
        from crossfade.lab.data.texts import TextTask

        recipe, limit, repeats = cell.recipe, None, cell.repeats
        if request.scale != "paper":
            epochs, batch, limit, repeats = _SHORTENED[request.scale]
            recipe = replace(recipe, epochs=epochs, batch_size=batch, scale=request.scale)
        recipe = replace(recipe, epochs=request.epochs or recipe.epochs, **request.recipe)
        task = TextTask(data, test_size=_TEST_SIZE, limit=limit, label=cell.label)
        terms = f"{recipe.epochs} epochs, batch {recipe.batch_size}, learning rate {recipe.learning_rate:g}"
        about = f"{examples(task)} · {terms}"
        return Prepared(cell.label, (task,), recipe, tuple(range(request.repeats or repeats)), about, data.notes)

    def tables(self, results: pd.DataFrame) -> str:
        return table(self.cells, results, "architecture")


STUDY = _Table3(
    "table3",
    "Table 3: clothing reviews, five LSTMs",
    tuple(
        Cell(
            "reviews",
            name,
            LstmRecipe(size, size, layers, granularity="step"),
            8,
            f"Reviews · {name}",
            dict(zip(MIXTURES, printed, strict=True)),
            title=f"{layers} × {size}",
        )
        for name, (size, layers, printed) in _ROWS.items()
    ),
    choices=(
        "none of this is printed: 80 % of the 22,641 reviews to train on, 10 % each to choose the epoch and to test, "
        "drawn anew for every seed and stratified by rating",
        "lower-case words, ! and ?; words seen twice in the training part, at most 20,000; the first 128 of a review",
        "Adam at 0.001, batch 64, 10 epochs, no dropout; loss weights move by steps; the epoch with the best "
        "validation accuracy counts",
    ),
)
