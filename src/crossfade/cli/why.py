"""``crossfade run figure1 | taylor | dynamics | escape``: the paper's arguments, measured."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.paper.why_tables import Progress

__all__ = ["dynamics", "escape", "figure1", "taylor"]

_LOG_SECONDS = 15.0


def figure1(
    *,
    loss: list[str] | None = None,
    out: Path = Path("figure1"),
    scale: Literal["smoke", "short", "paper"] = "short",
) -> int:
    """Figure 1: how hard a loss pulls on an example, over p; the mixtures on both scales, and the other losses.

    Args:
        loss: Your own loss g(ce) beside them, as module:function or file.py:function.
        out: Folder for the tables and figures.
        scale: How many points a curve has.
    """
    from crossfade.lab.own_loss import load_loss
    from crossfade.lab.paper import figure1 as study

    own = tuple(load_loss(one) for value in loss or [] for one in value.split(","))
    return _written(study.run(_folder(out), None, scale, losses=own))


def taylor(*, out: Path = Path("taylor"), scale: Literal["smoke", "short", "paper"] = "short") -> int:
    """Eq. 11: Taylor's remainder of CE around EL, and the text's statements about it, checked.

    Args:
        out: Folder for the tables and the figure.
        scale: How many points are looked at.
    """
    from crossfade.lab.paper import taylor as study

    return _written(study.run(_folder(out), None, scale))


def dynamics(
    *,
    data_dir: Path | None = None,
    methods: list[str] | None = None,
    sets: list[str] | None = None,
    scale: Literal["smoke", "short", "paper"] = "short",
    out: Path = Path("dynamics"),
) -> int:
    """Who is won during training: p of every example followed, the motivating example's table, calibration.

    After an interruption the same command goes on where it stopped. Lists are separated by commas.

    Args:
        data_dir: Has the UCI sets and CIFAR-100; without it scikit-learn's sets alone are used.
        methods: Mixtures to train with. [default: ce,f0,f0-late,gradual,gradual-unit,el]
        sets: Only these data sets.
        scale: smoke takes seconds; short cuts CIFAR-100 down; paper is ResNet-32 for 90 epochs.
        out: Folder for the tables, figures and recordings.
    """
    from crossfade.lab.paper import dynamics as study

    chosen = _words(methods) or study.METHODS
    return _written(
        study.run(_folder(out), data_dir, scale, methods=chosen, only=_words(sets), on_progress=_progress("dynamics"))
    )


def escape(
    *,
    data_dir: Path | None = None,
    sets: list[str] | None = None,
    scale: Literal["smoke", "short", "paper"] = "short",
    out: Path = Path("escape"),
) -> int:
    """Eq. 15-18: escaping efficiency along real training runs, at minima, and counted on a known landscape.

    After an interruption the same command goes on where it stopped. Lists are separated by commas.

    Args:
        data_dir: Has the UCI sets and CIFAR-100; without it scikit-learn's sets alone are used.
        sets: Only these data sets, or simulation.
        scale: smoke takes seconds; short about an hour on one core; paper uses all of CIFAR-100.
        out: Folder for the tables and figures.
    """
    from crossfade.lab.paper import escape as study

    return _written(study.run(_folder(out), data_dir, scale, only=_words(sets), on_progress=_progress("escape")))


def _words(values: list[str] | None) -> tuple[str, ...]:
    return tuple(word for value in values or [] for word in value.split(",") if word)


def _folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file, expected a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: can't be made ({error.strerror})") from None
    return out


def _written(out: Path) -> int:
    print(f"Written to {out}: {', '.join(sorted(p.name for p in out.iterdir() if p.suffix in ('.csv', '.svg')))}")
    return 0


def _progress(label: str) -> Progress:
    """A line now and then; on a terminal one line that stays in place."""
    started = last = time.monotonic()
    terminal = sys.stderr.isatty()

    def say(fraction: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if terminal or now - last >= _LOG_SECONDS:
            last = now
            line = f"{label}: {100 * fraction:3.0f} %  {text}  ({now - started:.0f} s)"
            print(f"\r\x1b[2K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    return say
