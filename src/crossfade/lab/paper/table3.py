"""Table 3: the rating of a clothing review from its text, five LSTM architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from crossfade.lab.data.sources import CATALOGUE, find_reviews
from crossfade.lab.data.texts import TextSet, TextTask, load_reviews
from crossfade.lab.paper.page import MarkdownStudy, table
from crossfade.lab.paper.study import DEFINED, MIXTURES, Cell, NotHereError, Prepared, Request, by_method
from crossfade.lab.provenance import sizes_of
from crossfade.lab.train.lstm.recipe import LstmRecipe

_TEST_SIZE = 0.1
# Epochs, batch size, training reviews, seeds.
_SHORTENED = {"smoke": (1, 16, 200, 1), "short": (8, 32, 6_000, 2)}


@dataclass(frozen=True)
class _Table3(MarkdownStudy[LstmRecipe, TextSet]):
    def load(self, data: str, request: Request) -> TextSet:
        if find_reviews(request.data_dir) is None:
            raise NotHereError(f"reviews: not in {request.data_dir}; {CATALOGUE['reviews'].how}")
        return load_reviews(request.data_dir)

    def protocol(self, cell: Cell[LstmRecipe], request: Request) -> tuple[LstmRecipe, int]:
        recipe, repeats = cell.recipe, cell.repeats
        if request.scale != "paper":
            epochs, batch, _, repeats = _SHORTENED[request.scale]
            recipe = replace(recipe, epochs=epochs, batch_size=batch, scale=request.scale)
        recipe = replace(recipe, epochs=request.epochs or recipe.epochs, **request.recipe)
        return recipe, request.repeats or repeats

    def prepare(self, cell: Cell[LstmRecipe], data: TextSet, request: Request) -> Prepared:
        recipe, repeats = self.protocol(cell, request)
        limit = None if request.scale == "paper" else _SHORTENED[request.scale][2]
        task = TextTask(data, test_size=_TEST_SIZE, limit=limit, label=cell.label)
        terms = f"{recipe.epochs} epochs, batch {recipe.batch_size}, learning rate {recipe.learning_rate:g}"
        about = f"{sizes_of(task)} · {terms}, the first {recipe.max_length} words"
        return Prepared(cell.label, (task,), recipe, tuple(range(repeats)), about, data.notes)

    def tables(self, results: pd.DataFrame) -> str:
        return table(self.cells, results, "architecture")


def _cell(net: str, size: int, layers: int, printed: Sequence[Sequence[float]]) -> Cell[LstmRecipe]:
    recipe = LstmRecipe(size, size, layers, granularity="step")
    paper, title = by_method(MIXTURES, printed), f"{layers} × {size}"
    return Cell("reviews", net, recipe, 8, f"Reviews · {net}", paper, title=title)


_ABOUT = DEFINED["table3"]
_CELLS = tuple(_cell(**cell) for cell in _ABOUT["cells"])
STUDY = _Table3("table3", _ABOUT["title"], _CELLS, choices=tuple(_ABOUT["choices"]))
