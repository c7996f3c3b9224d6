"""Table 4 and Figure 3: six losses on the 121 UCI sets, with a linear classifier and with one hidden layer.

The paper's protocol: 50 epochs, batch 8, learning rate from {0.01, 0.005, 0.001} and epoch chosen on the validation
part, test accuracy there, two seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from crossfade.errors import UserError
from crossfade.lab.data.uci import SPLITS, UCI_NAMES, UciTask, find_uci, uci_tasks
from crossfade.lab.methods import DEFAULT_METHODS, Method
from crossfade.lab.paper.study import DEFINED, Cell, NotHereError, Plan, Prepared, Request, Study
from crossfade.lab.paper.table4_page import NETS, write_page
from crossfade.lab.store import Run, Store
from crossfade.lab.train import Recipe
from crossfade.lab.trial import Json, Trial

_SHORTENED = {"smoke": ({"epochs": 5}, 2), "short": ({"epochs": 20}, 2)}
_SMALL = slice(5, 11)  # which sets smoke takes, by their numbers of rows
_Sets: TypeAlias = tuple[list[UciTask], list[str]]  # those that are here, and the names of others


@dataclass(frozen=True)
class Table4(Study[Recipe, _Sets]):
    """The study of Table 4, on ``splits`` of the four published splits.

    A request's data sets are names of UCI sets, and its repeats are seeds.
    """

    splits: int = 1

    nets_option: ClassVar[str] = "--net"
    shortened = _SHORTENED

    def chosen(self, request: Request) -> list[Cell[Recipe]]:
        return super().chosen(replace(request, datasets=()))

    def methods(self, cell: Cell[Recipe], request: Request) -> list[Method]:
        found = super().methods(cell, request)
        if len(found) < 2:
            raise UserError("--methods: needs one beside ce, the control, to compare, got ce alone")
        return found

    def load(self, data: str, request: Request) -> _Sets:
        """Return the requested sets; the scale smoke takes some small ones."""
        if find_uci(request.data_dir) is None and set(request.datasets) <= set(UCI_NAMES):
            raise NotHereError(f"no UCI set is in {request.data_dir}; `crossfade data uci --download` gets them")
        tasks, missing = uci_tasks(request.data_dir, request.datasets)
        if request.scale == "smoke" and not request.datasets:
            tasks, missing = sorted(tasks, key=lambda task: task.shape.rows)[_SMALL], []
        return tasks, missing

    def prepare(self, cell: Cell[Recipe], data: _Sets, request: Request) -> Prepared:
        """Return the sets and a network's recipe; with more seeds or splits the repeats keep their numbers."""
        (tasks, missing), (recipe, seeds) = data, self.protocol(cell, request)
        repeats = tuple(seed * SPLITS + split for seed in range(seeds) for split in range(self.splits))
        about = (
            f"{len(tasks)} of {len(tasks) + len(missing)} UCI sets · {recipe.epochs} epochs, batch "
            f"{recipe.batch_size}, SGD with momentum {recipe.momentum:g}"
        )
        return Prepared(cell.label, tuple(tasks), recipe, repeats, about, missing=tuple(missing))

    def runs(self, request: Request, parts: Sequence[tuple[Prepared, Sequence[Trial]]], meta: Json) -> list[Run]:
        """Return a run for each network, with what the page says about it."""
        runs = []
        for ready, trials in parts:
            recipe = ready.recipe.to_dict()
            facts = {
                "recipe": recipe,
                "net": recipe["net"],
                "momentum": recipe["momentum"],
                "seeds": len(ready.repeats) // self.splits,
                "splits": self.splits,
                "sets": [task.name for task in ready.tasks],
                "of": len(request.datasets) or len(UCI_NAMES),
                "device": f"CPU ({meta['device']})",
            }
            keys = tuple(trial.key for trial in trials)
            runs.append(Run(f"{self.name}-{recipe['net']}", {"meta": {**meta, **facts}, "settings": {}}, keys))
        return runs

    def write(self, store: Store, planned: Plan, report: Path) -> str:
        return write_page(store, planned.runs, report)


_NET: tuple[Literal["linear", "mlp"], ...] = ("linear", "mlp")
_ABOUT = DEFINED["table4"]
_CELLS = tuple(Cell("uci121", net, Recipe(net=net), 2, NETS[net], methods=DEFAULT_METHODS) for net in _NET)
STUDY = Table4("table4", _ABOUT["title"], _CELLS, choices=tuple(_ABOUT["choices"]))
