"""Which engine trains a number of LSTM classifiers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from crossfade.errors import UserError
from crossfade.lab.train.lstm_setup import cost
from crossfade.lab.train.lstm_types import LstmHistory, LstmMember, LstmRecipe

__all__ = ["train_lstm_stack"]

LstmEngine: TypeAlias = Literal["auto", "stacked", "plain"]
_log = logging.getLogger(__name__)


def _ignore(fraction: float) -> None:
    """No report is wanted."""


def train_lstm_stack(
    members: Sequence[LstmMember],
    recipe: LstmRecipe,
    *,
    engine: LstmEngine = "auto",
    device: str = "cpu",
    threads: int | None = None,
    on_progress: Callable[[float], None] = _ignore,
) -> list[LstmHistory]:
    """Train every member and return the histories in the members' order."""
    if engine not in ("auto", "stacked", "plain"):
        raise UserError(f"engine must be one of auto, stacked, plain, got {engine!r}")
    if threads is not None and threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}")
    from crossfade.lab.train.lstm_plain import train_plain

    total, done, out = sum(cost(member.split, recipe) for member in members) * recipe.epochs, 0.0, []
    for member in members:
        each = cost(member.split, recipe)

        def report(epochs: int, before: float = done, each: float = each) -> None:
            on_progress(min((before + each * epochs) / total, 1.0))

        out.append(train_plain(member, recipe, device, report))
        done += each * recipe.epochs
    return out
