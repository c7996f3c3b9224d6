"""Checks of settings that the families share; each raises an error of one line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from crossfade.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T")
Noise: TypeAlias = Literal["symmetric", "class-dependent"]  # which labels become wrong, see ``lab.data.harder``
Precision: TypeAlias = Literal["32-true", "16-mixed", "bf16-mixed"]
INDEX = 2**31  # rows and weights are counted in 32 bits


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise UserError unless the value is one of the choices."""
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_choices(recipe: DataclassInstance) -> None:
    """Raise UserError unless every field whose type is a ``Literal`` has one of its values."""
    for name, kind in get_type_hints(type(recipe)).items():
        if get_origin(kind) is Literal:
            check_choice(name, getattr(recipe, name), get_args(kind))


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise UserError unless the value is a whole number in [least, 2^31)."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < INDEX:
        limit = "below 2^31" if isinstance(value, int) and value >= INDEX else f"of at least {least}"
        raise UserError(f"{name} must be a whole number {limit}, got {value!r}")


def check_positive(name: str, value: float, *, zero: bool = False) -> None:
    """Raise UserError unless the value is finite and above zero; ``zero`` admits zero."""
    if not (0.0 < value < math.inf or (zero and value == 0.0)):
        raise UserError(f"{name} must be a finite number {'of at least' if zero else 'above'} 0, got {value!r}")


def check_share(name: str, value: float) -> None:
    """Raise UserError unless the value lies in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise UserError(f"{name} must be in [0, 1), got {value!r}")


def check_seed(value: object) -> None:
    """Raise UserError unless the value is a seed in [0, 2^63)."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UserError(f"seed must be a whole number in [0, 2^63), got {value!r}")


def expect(name: str, value: object, kind: type[_T]) -> _T:
    """Return the value, or raise TypeError if it isn't of this kind, such as another family's split or recipe."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, got a {type(value).__name__}")
    return value
