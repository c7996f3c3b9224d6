"""``crossfade run figure1 | taylor | dynamics | escape``: the paper's arguments as measurements."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from crossfade.errors import UserError

__all__ = ["dynamics", "escape", "figure1", "taylor"]

Scale = Literal["smoke", "short", "paper"]


def figure1(*, out: Path = Path("figure1"), scale: Scale = "short", loss: list[str] | None = None) -> int:
    """Figure 1, eq. 8, 10, 13, 14: the gradient's size over p, for the mixtures and for every other loss.

    Args:
        out: Folder for curves, peaks and figures.
        scale: How many points a curve has.
        loss: Your own loss g(ce) beside them, as module:function or file.py:function.
    """
    from crossfade.lab.methods import load_loss
    from crossfade.lab.paper import figure1 as study

    return _done(study.run(_folder(out), None, scale, losses=tuple(load_loss(spec) for spec in loss or [])))


def taylor(*, out: Path = Path("taylor"), scale: Scale = "short") -> int:
    """Eq. 11: the remainder of CE about EL by interval, printed and exact, and the bounds that the text quotes.

    Args:
        out: Folder for tables and figure.
        scale: How many points are checked.
    """
    from crossfade.lab.paper import taylor as study

    return _done(study.run(_folder(out), None, scale))


def dynamics(*, out: Path = Path("dynamics"), data_dir: Path | None = None, scale: Scale = "short") -> int:
    """Who moves from wrong to right: p_y of every example followed through training.

    Args:
        out: Folder for tables, figures and recordings; the same command goes on in it.
        data_dir: Where the UCI sets and CIFAR-100 are; without them scikit-learn's sets are used.
        scale: smoke takes seconds, short minutes.
    """
    from crossfade.lab.paper import dynamics as study

    return _done(study.run(_folder(out), data_dir, scale, on_progress=_say))


def escape(*, out: Path = Path("escape"), data_dir: Path | None = None, scale: Scale = "short") -> int:
    """Eq. 15-18: escaping efficiency measured along training, both sides of (18), and counted escapes.

    Args:
        out: Folder for tables and figures; the same command goes on in it.
        data_dir: Where the UCI sets and CIFAR-100 are; without them scikit-learn's sets are used.
        scale: smoke takes seconds, short about an hour on one core.
    """
    from crossfade.lab.paper import escape as study

    return _done(study.run(_folder(out), data_dir, scale, on_progress=_say))


def _folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file, expected a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: can't be made ({error.strerror})") from None
    return out


def _say(fraction: float, what: str) -> None:
    print(f"{100 * fraction:.0f} % · {what}", file=sys.stderr, flush=True)


def _done(out: Path) -> int:
    written = sorted(path.name for path in out.iterdir() if path.is_file())
    print(f"{out}: {', '.join(written)}")
    return 0
