"""Trials: frozen values whose key is the hash of their content, and whose seeds are hashes that leave the method out.

Nothing is numbered or named by hand: the same request always has the same key, so a run that was killed finds what
it already knows, and two methods always meet the same rows, the same initial weights and the same batches.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from crossfade.lab.methods import Method

# Finer than any batch size and data set at which a step schedule could be told apart by its results.
_STEP_GRID = 5040
Json: TypeAlias = dict[str, Any]  # a JSON object


class Shape(NamedTuple):
    """Rows, inputs of a row and classes, roughly: for progress, never for results."""

    rows: int
    inputs: int
    classes: int


class Recipe(Protocol):
    """How a trial is trained: plain data, which decides its numbers."""

    @property
    def epochs(self) -> int:
        """Passes over the training rows."""

    @property
    def granularity(self) -> str:
        """Whether the method's schedule moves at each ``"epoch"`` or at each ``"step"``."""

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The rates that are tried for each method."""

    def to_dict(self) -> Json:
        """The recipe as plain data: part of the trial's key."""

    def cost(self, shape: Shape) -> float:
        """Multiply-adds of the whole training, roughly: for progress and batches of trials, never for results."""


class Task(Protocol):
    """One data set as a study sees it."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def content(self) -> Mapping[str, object]:
        """What decides the numbers, as JSON: the data's digest, how it is split. The name is not part of it."""

    @property
    def shape(self) -> Shape:
        """Its size, for progress."""

    def split(self, repeat: int) -> object:
        """The rows of one repeat, the same for every method, in the form that the recipe's family trains on."""

    def describe(self) -> Json:
        """One entry of the report's ``datasets``: name, source, rows, features, classes, sizes, sha256."""


def canonical(content: object) -> str:
    """Return JSON with one spelling for equal contents: sorted keys, no spaces, the shortest floats.

    NaN and infinities, which JSON has no spelling for, raise a ValueError.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(content: object) -> str:
    """Return the hash of the canonical JSON of ``content``: blake2b, 32 hex digits."""
    return _hash(canonical(content))


def stream_seed(content: Mapping[str, object], repeat: int, stream: str) -> int:
    """Return the seed in [0, 2^63) of one source of randomness (``"split"``, ``"train"``) of a repeat of a task."""
    raw = hashlib.blake2b(canonical([dict(content), repeat, stream]).encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1


@dataclass(frozen=True)
class Trial:
    """One method on one repeat of one task: what a row of the store answers."""

    study: str
    task: Task
    method: Method
    recipe: Recipe
    repeat: int

    @cached_property
    def content(self) -> Json:
        """Everything that decides this trial's numbers, as JSON, and the names its row is shown under."""
        return {
            "study": self.study,
            "task": {"name": self.task.name, **self.task.content},
            "method": _method_content(self.method, self.recipe),
            "recipe": self.recipe.to_dict(),
            "repeat": self.repeat,
        }

    @property
    def cost(self) -> float:
        """Roughly its multiply-adds, for progress and the size of batches."""
        return self.recipe.cost(self.task.shape)

    @cached_property
    def key(self) -> str:
        """Hash of ``content``: 32 hex digits."""
        return digest(self.content)


def seed(trial: Trial, stream: str) -> int:
    """Return the seed of one of a trial's sources of randomness: a hash of task, repeat and stream alone.

    Paired by construction: all methods of a repeat get the same split, initial weights and batch order.
    """
    return stream_seed(trial.task.content, trial.repeat, stream)


def _method_content(method: Method, recipe: Recipe) -> Json:
    from crossfade.lab.methods import METHODS, OBJECTIVES

    if any(method is known for known in (*METHODS, *OBJECTIVES)) and not method.old_name:
        return {"name": method.name}  # the recipe's protocol number says what it means
    content: Json = {"name": method.old_name or method.name}
    if method.own is not None:
        content["g"] = _source(method.own)
    if method.own is None or method.g_of is not None:
        grid = recipe.epochs if recipe.granularity == "epoch" else _STEP_GRID
        content["schedule"] = [[float(value) for value in method.schedule(step / grid)] for step in range(grid + 1)]
    return content


def _source(g: Callable[..., Any]) -> Json:
    """Return the qualified name and a hash of the source that a function's result depends on.

    The whole file where there is one, so that a changed constant or helper counts too; beside it the values that a
    closure, a partial, default arguments or an object carry. Modules that the file imports aren't followed.
    """
    if isinstance(g, partial):
        return {**_source(g.func), "partial": [_plain(g.args), _plain(sorted(g.keywords.items()))]}
    code = getattr(g, "__code__", None)
    owner: Any = g if code is not None or inspect.isbuiltin(g) else type(g)
    state = [_plain(getattr(g, part, None)) for part in ("__defaults__", "__kwdefaults__", "__dict__")]
    state += [_plain(cell.cell_contents) for cell in getattr(g, "__closure__", None) or ()]
    try:
        text = Path(inspect.getsourcefile(owner) or "").read_text(encoding="utf-8", errors="replace")
    except (TypeError, OSError):  # built in, or typed at a prompt: there the instructions stand for the source
        text = "" if code is None else _bytecode(code)
    return {"function": f"{owner.__module__}.{owner.__qualname__}", "source": _hash(text), "state": state}


def _plain(value: Any) -> str:
    if hasattr(value, "__code__"):
        return canonical(_source(value))
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))  # an address differs in every process


def _bytecode(code: CodeType) -> str:
    constants = [_bytecode(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return repr((code.co_code.hex(), constants, code.co_names))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
