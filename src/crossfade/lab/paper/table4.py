"""Table 4 and Figure 3: six losses on the 121 UCI sets, with a linear classifier and with one hidden layer.

The paper's protocol: 50 epochs, batch 8, learning rate from {0.01, 0.005, 0.001} and epoch chosen on the validation
part, test accuracy there, two seeds. What it leaves open is chosen and named here: SGD with momentum 0.9
(``momentum=0`` for the other reading), features as prepared by Klambauer et al., PyTorch's default initial weights,
split 0 of the four published ones; among equal validation accuracies the learning rate named first, the first epoch.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from crossfade.errors import UserError
from crossfade.lab.data.uci import SPLITS, UCI_NAMES, UciTask, uci_tasks
from crossfade.lab.store import Run
from crossfade.lab.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from crossfade.lab.methods import Method

__all__ = ["NETS", "PAPER", "SCALES", "PaperRow", "Plan", "Request", "plan", "with_tie"]

Scale: TypeAlias = Literal["smoke", "short", "paper"]
NETS = {"linear": "Linear classifier", "mlp": "One hidden layer"}
# epochs, and how many of the smallest sets (None: all)
SCALES: dict[Scale, tuple[int, int | None]] = {"smoke": (5, 6), "short": (20, None), "paper": (50, None)}


@dataclass(frozen=True)
class PaperRow:
    """A row of the printed table: number of wins, mean difference to CE in points, mean rank."""

    wins: float
    delta: float
    rank: float


PAPER: dict[str, dict[str, PaperRow]] = {
    "linear": {
        "ce": PaperRow(33, 0.0, 2.59),
        "f0": PaperRow(32, 0.09, 2.39),
        "f0-late": PaperRow(31, 0.20, 2.30),
        "gradual": PaperRow(48, 0.30, 2.12),
        "el": PaperRow(33, -2.71, 3.25),
        "focal": PaperRow(26, -0.56, 3.13),
    },
    "mlp": {
        "ce": PaperRow(26, 0.0, 2.70),
        "f0": PaperRow(30, 0.12, 2.62),
        "f0-late": PaperRow(37, 0.27, 2.40),
        "gradual": PaperRow(42, 0.30, 2.37),
        "el": PaperRow(33, -4.73, 3.52),
        "focal": PaperRow(25, -0.89, 3.03),
    },
}


@dataclass(frozen=True)
class Request:
    """What to run. ``seeds`` and ``splits`` are counts; ``sets`` empty means all that are here."""

    data_dir: Path
    methods: tuple[Method, ...]
    nets: tuple[str, ...] = tuple(NETS)
    seeds: int = 2
    splits: int = 1
    sets: tuple[str, ...] = ()
    momentum: float = 0.9
    scale: Scale = "paper"


@dataclass(frozen=True)
class Plan:
    """Trials of each network, and what is asked for but not here."""

    request: Request
    runs: dict[str, Run]
    trials: tuple[Trial, ...]
    tasks: tuple[UciTask, ...]
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """What will be run, for people."""
        first = self.trials[0].recipe
        count = len(self.trials) * len(first.learning_rates)
        wanted = len(self.tasks) + len(self.missing)
        scale = "" if self.request.scale == "paper" else f" · scale {self.request.scale}, not the paper's"
        return [
            f"table4 · {len(self.tasks)} of {wanted} UCI sets · {', '.join(self.request.nets)} · "
            f"{', '.join(method.name for method in self.request.methods)} · {self.request.seeds} seeds × "
            f"{self.request.splits} splits",
            f"{count:,} networks · {first.epochs} epochs, batch {first.batch_size}, SGD with momentum "
            f"{first.momentum:g}{scale}",
            *([f"not here: {', '.join(self.missing)}"] if self.missing else []),
        ]


def plan(request: Request, command: str | Sequence[str]) -> Plan:
    """Check a request, and write it down as trials.

    Raises:
        UserError: no data, an unknown set or network, a count out of range, CE not among the methods.
    """
    from crossfade.lab.train import Recipe

    for name, value, most in (("seeds", request.seeds, 10_000), ("splits", request.splits, SPLITS)):
        if not 1 <= value <= most:
            raise UserError(f"--{name}: expected a whole number from 1 to {most}, got {value}")
    if unknown := [net for net in request.nets if net not in NETS]:
        raise UserError(f"--net: {unknown[0]!r} is unknown (known: {', '.join(NETS)})")
    if request.scale not in SCALES:
        raise UserError(f"--scale: expected {', '.join(SCALES)}, got {request.scale!r}")
    names = [method.name for method in request.methods]
    if "ce" not in names or len(set(names)) < 2:
        raise UserError(
            f"--methods: needs ce, the control, and another one to compare, got {', '.join(names) or 'none'}"
        )
    tasks, missing = uci_tasks(request.data_dir, request.sets)
    epochs, smallest = SCALES[request.scale]
    if smallest is not None and not request.sets:
        tasks, missing = sorted(tasks, key=lambda task: task.shape[0])[5 : 5 + smallest], []
    both: tuple[Literal["linear", "mlp"], ...] = ("linear", "mlp")
    recipes = {net: Recipe(net=net, epochs=epochs, momentum=request.momentum) for net in both if net in request.nets}
    repeats = [seed * SPLITS + split for seed in range(request.seeds) for split in range(request.splits)]
    runs: dict[str, Run] = {}
    trials: list[Trial] = []
    meta = _meta(request, tasks, missing, command)
    for net in recipes:
        own = [
            Trial("table4", task, method, recipes[net], repeat)
            for task in tasks
            for repeat in repeats
            for method in request.methods
        ]
        runs[net] = Run(f"table4-{net}", {"meta": {**meta, "net": net}, "settings": {}}, tuple(t.key for t in own))
        trials += own
    return Plan(request, runs, tuple(trials), tuple(tasks), tuple(missing))


def _meta(
    request: Request, tasks: Sequence[UciTask], missing: Sequence[str], command: str | Sequence[str]
) -> Mapping[str, Any]:
    from crossfade.lab.provenance import provenance

    origin = provenance()
    return {
        "title": "Table 4",
        "command": command if isinstance(command, str) else shlex.join(command),
        "scale": request.scale,
        "momentum": request.momentum,
        "seeds": request.seeds,
        "splits": request.splits,
        "versions": origin["versions"],
        "device": f"CPU ({origin['machine']})",
        "commit": origin["commit"],
        "sets": [task.name for task in tasks],
        "missing": list(missing),
        "of": len(UCI_NAMES) if not request.sets else len(request.sets),
        "methods": [{"name": method.name, "title": method.title} for method in request.methods],
        "control": "ce",
    }


def with_tie(results: pd.DataFrame, curves: pd.DataFrame, tie: Literal["first", "last", "loss"]) -> pd.DataFrame:
    """The results that another rule for equal validation accuracies would have given, from the stored curves.

    The learning rate doesn't change with it: the best validation accuracy of each rate is the same under every rule.
    """
    key = ["dataset", "method", "repeat", "net"]
    best = curves.groupby(key)["val_accuracy"].transform("max")
    equal = curves[curves["val_accuracy"] == best]
    order = {"first": ["epoch"], "last": ["epoch"], "loss": ["val_nll", "epoch"]}[tie]
    chosen = equal.sort_values(order, ascending=tie != "last").drop_duplicates(key)
    picked = chosen[[*key, "epoch", "test_accuracy", "test_nll"]].rename(
        columns={"test_accuracy": "accuracy", "test_nll": "nll"}
    )
    return results.drop(columns=["epoch", "accuracy", "nll"]).merge(picked, on=key, validate="one_to_one")
