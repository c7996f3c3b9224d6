"""Settings of a comparison: defaults, then a TOML file, then what the caller says; checked in one place."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.train import Recipe

__all__ = ["Settings", "read_toml", "resolve"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides a comparison's numbers, except the data.

    Attributes:
        methods: Names out of ``crossfade list``; empty means the usual six.
        loss: Own losses g(ce), each ``"module:function"`` or ``"file.py:function"``.
        repeats: Splits of the data, each with its own initial weights and batches.
        seed: Another number gives other splits, weights and batches.
        test_size: Share of the rows in the test part; the validation part is as large.
        net: ``"mlp"`` (one hidden layer as wide as the inputs, ReLU) or ``"linear"``: the paper's two networks.
        width: Units in a hidden layer; None is as many as inputs.
        depth: Hidden layers.
        epochs: Passes over the training part.
        batch_size: Rows in a step.
        learning_rates: Tried for every method; the best on the validation part counts.
        momentum: Of SGD.
        weight_decay: Of SGD.
        granularity: Whether a schedule moves on every ``"epoch"`` or every ``"step"``.
        tie: Which of several epochs with equal validation accuracy counts: ``"first"``, ``"last"`` or the one with
            the lowest validation ``"loss"``.
    """

    methods: tuple[str, ...] = ()
    loss: tuple[str, ...] = ()
    repeats: int = 10
    seed: int = 0
    test_size: float = 0.2
    net: str = "mlp"
    width: int | None = None
    depth: int = 1
    epochs: int = 50
    batch_size: int = 8
    learning_rates: tuple[float, ...] = (0.01, 0.005, 0.001)
    momentum: float = 0.9
    weight_decay: float = 0.0
    granularity: str = "epoch"
    tie: str = "first"

    def recipe(self) -> Recipe:
        """The part of the settings that describes one training."""
        from crossfade.lab.train import Recipe

        names = {field.name for field in fields(Recipe)} & {field.name for field in fields(self)}
        return Recipe(**{name: getattr(self, name) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it is saved in the store; ``resolve(settings.to_dict())`` gives the settings back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def resolve(*layers: Mapping[str, Any]) -> Settings:
    """Settings from layers of values, later ones first in importance; None means "not said".

    Raises:
        UserError: an unknown key (with the nearest one) or a value out of range.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if key not in _CHECKS:
                raise UserError(f"setting {key!r} is unknown{_nearest(key, _CHECKS)}")
            if value is not None:
                merged[key] = _CHECKS[key](key, value)
    settings = Settings(**merged)
    if settings.net == "linear" and ("width" in merged or settings.depth != Settings.depth):
        raise UserError("net: 'linear' has no hidden layer, so width and depth mean nothing; leave them out or use mlp")
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """Settings from a TOML file; keys may be written with ``-`` or ``_``.

    Raises:
        UserError: not there, not TOML, or an unknown key.
    """
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as error:
        raise UserError(f"--config {path}: can't be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: not valid TOML ({error})") from None
    settings = {key.replace("-", "_"): value for key, value in raw.items()}
    try:
        resolve(settings)
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from None
    return settings


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(known)})"


def _refuse(key: str, expected: str, got: object) -> UserError:
    return UserError(f"{key.replace('_', '-')}: expected {expected}, got {got!r}")


def _whole(low: int, high: float = math.inf) -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            limit = "" if high == math.inf else f" and at most {high:.0f}"
            raise _refuse(key, f"a whole number of at least {low}{limit}", value)
        return value

    return check


def _real(low: float, high: float, wording: str, open_low: bool = False) -> Callable[[str, Any], float]:
    def check(key: str, value: Any) -> float:
        fits = not isinstance(value, bool) and isinstance(value, int | float) and low <= value < high
        if not fits or (open_low and value == low):
            raise _refuse(key, wording, value)
        return float(value)

    return check


def _choice(*choices: str) -> Callable[[str, Any], str]:
    def check(key: str, value: Any) -> str:
        if value not in choices:
            raise _refuse(key, " or ".join(choices), value)
        return str(value)

    return check


def _words(key: str, value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str) and item.strip() for item in items):
        raise _refuse(key, "names, separated by commas", value)
    return tuple(dict.fromkeys(item.strip() for item in items))


def _rates(key: str, value: Any) -> tuple[float, ...]:
    one = _real(0.0, math.inf, "numbers greater than 0", open_low=True)
    rates = tuple(one(key, rate) for rate in (value if isinstance(value, list | tuple) else [value]))
    if not rates:
        raise _refuse(key, "at least one number greater than 0", value)
    return tuple(dict.fromkeys(rates))


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "methods": _words,
    "loss": _words,
    "repeats": _whole(1),
    "seed": _whole(0, 2**63 - 1),
    "test_size": _real(0.0, 0.5, "a share greater than 0 and less than 0.5 (the validation part is as large)", True),
    "net": _choice("mlp", "linear"),
    "width": _whole(1),
    "depth": _whole(1),
    "epochs": _whole(1),
    "batch_size": _whole(1),
    "learning_rates": _rates,
    "momentum": _real(0.0, 1.0, "a number of at least 0 and less than 1"),
    "weight_decay": _real(0.0, math.inf, "a number of at least 0"),
    "granularity": _choice("epoch", "step"),
    "tie": _choice("first", "last", "loss"),
}
