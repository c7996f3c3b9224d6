"""Table 3: the rating of a clothing review from its text, five LSTM architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from crossfade.lab.data.sources import CATALOGUE, find_reviews
from crossfade.lab.data.texts import TextSet, TextTask, load_reviews
from crossfade.lab.methods import MIXTURES
from crossfade.lab.paper.page import MarkdownStudy, table
from crossfade.lab.paper.study import DEFINED, Cell, NotHereError, Prepared, Request, by_method
from crossfade.lab.provenance import sizes_of
from crossfade.lab.train.lstm.recipe import LstmRecipe

_TEST_SIZE = 0.1
_SHORTENED = {"smoke": ({"epochs": 1, "batch_size": 16}, 1), "short": ({"epochs": 8, "batch_size": 32}, 2)}
_REVIEWS = {"smoke": 200, "short": 6_000}  # to train on


@dataclass(frozen=True)
class _Table3(MarkdownStudy[LstmRecipe, TextSet]):
    shortened = _SHORTENED

    def load(self, data: str, request: Request) -> TextSet:
        if find_reviews(request.data_dir) is None:
            raise NotHereError(f"reviews: not in {request.data_dir}; {CATALOGUE['reviews'].how}")
        return load_reviews(request.data_dir)

    def prepare(self, cell: Cell[LstmRecipe], data: TextSet, request: Request) -> Prepared:
        recipe, repeats = self.protocol(cell, request)
        task = TextTask(data, test_size=_TEST_SIZE, limit=_REVIEWS.get(request.scale), label=cell.label)
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
