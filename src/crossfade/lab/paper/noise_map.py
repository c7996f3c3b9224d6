"""The map of where which loss pays: wrong labels × size of the training part × network, over many data sets.

No paper has it. Learning rates are tuned for each method, and the data sets are divided beforehand, by a hash of their
names, into those on which a method may be chosen and those that judge the choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from crossfade.lab.data.harder import HarderTask, Noise
from crossfade.lab.data.uci import UCI_NAMES, uci_tasks
from crossfade.lab.methods import Method, method
from crossfade.lab.paper.map_page import write_page
from crossfade.lab.paper.study import Cell, Plan, Prepared, Request, Study
from crossfade.lab.store import Run, Store
from crossfade.lab.train import Recipe
from crossfade.lab.trial import Json, Task, Trial

METHODS = ("ce", "ce-cosine", "ce-matched", "gradual", "gce", "tgce", "log-ce", "gce-rising")
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

    @property
    def place(self) -> Json:
        """Its coordinates, as columns of the results."""
        names = ("data", "net", "noise", "kind", "validation", "size")
        return {name: getattr(self, name) for name in names}


def judges(name: str) -> bool:
    """Return whether a data set judges methods, rather than being one of those that may choose them."""
    return blake2b(name.encode(), digest_size=1).digest()[0] % 2 == 1


@dataclass(frozen=True)
class NoiseMap(Study[Any, Any]):
    """The study of the map.

    Args:
        noise, sizes: Only these shares of wrong labels, and of the training rows.
        max_rows: UCI sets with more rows than this are left out.
    """

    noise: tuple[float, ...] = NOISE
    sizes: tuple[float, ...] = SIZES
    max_rows: int | None = None

    def chosen(self, request: Request) -> list[Cell[Any]]:
        data = replace(request, datasets=request.datasets or ("uci121",))
        return [cell for cell in super().chosen(data) if cell.noise in self.noise and cell.size in self.sizes]  # type: ignore[attr-defined]

    def methods(self, cell: Cell[Any], request: Request) -> list[Method]:
        names = dict.fromkeys(["ce", *(request.methods or cell.methods)])
        return [method(name) for name in names]

    def load(self, data: str, request: Request) -> list[Task]:
        tasks, _ = uci_tasks(request.data_dir)
        return [task for task in tasks if self.max_rows is None or task.shape.rows <= self.max_rows]

    def protocol(self, cell: Cell[Any], request: Request) -> tuple[Any, int]:
        return replace(cell.recipe, epochs=request.epochs or cell.recipe.epochs), request.repeats or cell.repeats

    def prepare(self, cell: Cell[Any], data: list[Task], request: Request) -> Prepared:
        assert isinstance(cell, MapCell)
        harder = {name: getattr(cell, name) for name in ("noise", "kind", "validation", "size")}
        tasks = tuple(HarderTask(task, **harder) for task in data)
        recipe, repeats = self.protocol(cell, request)
        about = f"{len(data)} of {len(UCI_NAMES)} UCI sets · {recipe.epochs} epochs"
        return Prepared(cell.label, tasks, recipe, tuple(range(repeats)), about)

    def runs(self, request: Request, parts: Sequence[tuple[Prepared, Sequence[Trial]]], meta: Json) -> list[Run]:
        """Return a run for each place of the map."""
        places = {cell.label: cell.place for cell in self.cells if isinstance(cell, MapCell)}
        facts = {"repeats": request.repeats or 2, "max_rows": self.max_rows}
        return [
            Run(
                self.name,
                {"meta": {**meta, **facts, "place": places[ready.label], "recipe": ready.recipe.to_dict()}},
                tuple(trial.key for trial in trials),
            )
            for ready, trials in parts
        ]

    def write(self, store: Store, planned: Plan, report: Path) -> str:
        return write_page(store, planned.runs, report)


def _cells() -> list[MapCell]:
    wrong = [(0.0, "symmetric", False), *itertools.product(NOISE[1:], _KINDS, (False, True))]
    cells = []
    for net, size, (noise, kind, validation) in itertools.product(("linear", "mlp"), SIZES, wrong):
        rows = "training and validation rows" if validation else "training rows"
        what = f"{noise:.0%} wrong labels, {kind}, in {rows}" if noise else "right labels"
        label = f"{net}, {size:.0%} of the training rows, {what}"
        recipe = Recipe(net=net, tie="expected", **_RATES)  # type: ignore[arg-type]
        cells.append(MapCell("uci121", net, recipe, 2, label, {}, METHODS, "", noise, kind, validation, size))  # type: ignore[arg-type]
    return cells


STUDY = NoiseMap("map", "Where which loss pays: wrong labels, few rows, two networks", tuple(_cells()))
