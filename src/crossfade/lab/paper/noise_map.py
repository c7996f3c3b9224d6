"""The map of where which loss pays: wrong labels × size of the training part × network, over many data sets.

No paper has it. Learning rates are tuned for each method, and the data sets are divided beforehand, by a hash of their
names, into those on which a method may be chosen and those that judge the choice. The reviews and CIFAR-100 show
coarsely, by the protocols of Tables 3 and 1, whether it is a law of tiny tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossfade.lab.checks import Noise
from crossfade.lab.data.harder import HarderTask
from crossfade.lab.methods import COSINE
from crossfade.lab.paper.map_page import COLUMNS, METHODS, write_page
from crossfade.lab.paper.study import Cell, Plan, Prepared, Request, Study
from crossfade.lab.paper.table3 import STUDY as TABLE3
from crossfade.lab.paper.table4 import STUDY as TABLE4
from crossfade.lab.store import Run, Store
from crossfade.lab.train import Recipe
from crossfade.lab.trial import Json, Trial

NOISE, SIZES = (0.0, 0.1, 0.2, 0.4), (0.1, 0.3, 1.0)
_KINDS: tuple[Noise, ...] = ("symmetric", "class-dependent")
# As in ``compare``: every method has the rate that suits it.
_RATES: Json = {"learning_rates": (0.1, 0.03, 0.01, 0.003, 0.001), "wider_rates": (1.0, 0.3, 0.0003, 0.0001)}


@dataclass(frozen=True)
class MapCell(Cell[Any]):
    """One place of the map: a network, and how hard its data are made, see ``HarderTask``."""

    noise: float = 0.0
    kind: Noise = "symmetric"
    validation: bool = False
    size: float = 1.0


@dataclass(frozen=True)
class NoiseMap(Study[Any, Any]):
    """The study of the map, whose data and protocols are those of other studies.

    Args:
        noise, sizes: Only these shares of wrong labels, and of the training rows.
        max_rows: UCI sets with more rows than this are left out.
    """

    noise: tuple[float, ...] = NOISE
    sizes: tuple[float, ...] = SIZES
    max_rows: int | None = None

    def chosen(self, request: Request) -> list[Cell[Any]]:
        found = super().chosen(replace(request, datasets=request.datasets or ("uci121",)))
        return [one for one in found if isinstance(one, MapCell) and one.noise in self.noise and one.size in self.sizes]

    def load(self, data: str, request: Request) -> Any:
        return _base(data).load(data, replace(request, datasets=()))

    def protocol(self, cell: Cell[Any], request: Request) -> tuple[Any, int]:
        return _base(cell.data).protocol(_like(cell), request)

    def prepare(self, cell: Cell[Any], data: Any, request: Request) -> Prepared:
        """Return the tasks of the other study, made harder; a seed of a UCI set has its own published split."""
        assert isinstance(cell, MapCell)
        ready = _base(cell.data).prepare(_like(cell), data, request)
        tasks, repeats, about = ready.tasks, ready.repeats, ready.about
        if cell.data == "uci121":
            tasks = tuple(one for one in tasks if self.max_rows is None or one.shape.rows <= self.max_rows)
            repeats, about = tuple(range(len(repeats))), f"{len(tasks)} UCI sets · {ready.recipe.epochs} epochs"
        harder = tuple(HarderTask(one, cell.noise, cell.kind, cell.validation, cell.size) for one in tasks)
        return replace(ready, label=cell.label, tasks=harder, repeats=repeats, about=about)

    def runs(self, request: Request, parts: Sequence[tuple[Prepared, Sequence[Trial]]], meta: Json) -> list[Run]:
        """Return a run for each place of the map."""
        cells, runs = {cell.label: cell for cell in self.cells}, []
        for ready, trials in parts:
            place = {name: getattr(cells[ready.label], name) for name in COLUMNS}
            facts = {"place": place, "recipe": ready.recipe.to_dict(), "max_rows": self.max_rows}
            runs.append(Run(self.name, {"meta": {**meta, **facts}, "settings": {}}, tuple(one.key for one in trials)))
        return runs

    def write(self, store: Store, planned: Plan, report: Path) -> str:
        return write_page(store, planned.runs, report)


def _base(data: str) -> Study[Any, Any]:
    """Return the study that reads these data."""
    if data == "uci121":
        return TABLE4
    if data == "reviews":
        return TABLE3
    from crossfade.lab.paper.image_studies import IMAGE_STUDIES

    return IMAGE_STUDIES["table1"]


def _like(cell: Cell[Any]) -> Cell[Any]:
    """Return the other study's cell with these data and this network; on UCI sets it is the cell itself."""
    if cell.recipe is not None:
        return cell
    return next(one for one in _base(cell.data).cells if (one.data, one.net) == (cell.data, cell.net))


def _cells() -> list[MapCell]:
    wrong = [(0.0, "symmetric", False), *itertools.product(NOISE[1:], _KINDS, (False, True))]
    uci = [("uci121", net, *rest) for net, *rest in itertools.product(("linear", "mlp"), SIZES, wrong)]
    coarse = itertools.product((("reviews", "arch3"), ("cifar100", "resnet20")), NOISE)
    whole = [(*names, 1.0, (noise, "symmetric", False)) for names, noise in coarse if noise != 0.1]
    cells = []
    for data, net, size, (noise, kind, validation) in [*uci, *whole]:
        rows = "training and validation rows" if validation else "training rows"
        what = f"{noise:.0%} wrong labels, {kind}, in {rows}" if noise else "right labels"
        recipe: Any = Recipe(net=net, tie="expected", **_RATES) if data == "uci121" else None
        methods = tuple(name for name in METHODS if data == "uci121" or name != COSINE.name)
        label = f"{data}, {net}, {size:.0%} of the training rows, {what}"
        cells.append(MapCell(data, net, recipe, 2, label, {}, methods, "", noise, kind, validation, size))
    return cells


STUDY = NoiseMap("map", "Where which loss pays: wrong labels, few rows, two networks", tuple(_cells()))
