"""The training methods that a comparison can name: a schedule for CE and EL (eq. 12), or any loss g(ce).

A method is an object; to add one, pass one. ``load_loss`` makes it from a user's function.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.errors import UserError
from crossfade.schedules import Schedule, Weights, constant, cross_entropy, expectation, gradual, switch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DEFAULT_METHODS", "METHODS", "Method", "load_loss", "method"]


@dataclass(frozen=True)
class Method:
    """One way to train.

    Args:
        name: what the command line and the store call it.
        title: what tables call it.
        g: the loss of an example as an elementwise function of its cross entropy ce = -log p_y. None for the mixture
            alpha ce + beta (1 - p) of eq. (12).
        schedule: alpha and beta of the mixture at each progress. Not used where ``g`` is given.
        note: what a reader should know about it.
    """

    name: str
    title: str
    g: Callable[[Tensor], Tensor] | None = None
    schedule: Schedule = field(default_factory=cross_entropy)
    note: str = ""


@dataclass(frozen=True)
class _Transform:
    """A g of ``crossfade._transforms``, made when it is first called: listing methods must not import torch."""

    name: str
    options: tuple[tuple[str, float], ...] = ()

    def __call__(self, ce: Tensor) -> Tensor:
        from crossfade import _transforms

        g: Callable[[Tensor], Tensor] = getattr(_transforms, self.name)(**dict(self.options))
        return g(ce)

    @property
    def __name__(self) -> str:
        return self.name


def _transform(name: str, **options: float) -> _Transform:
    return _Transform(name, tuple(sorted(options.items())))


def _matched(share: float, schedule: Schedule, progress: float) -> Weights:
    alpha, beta = schedule(progress)
    return Weights(alpha + share * beta, 0.0)


METHODS: tuple[Method, ...] = (
    Method("ce", "CE", note="cross entropy: the baseline"),
    Method("f0", "CE+EL F=0", schedule=constant(0.0), note="CE and EL in equal parts (the paper's recipe 1)"),
    Method("f0-late", "CE+EL F=0,0.5", schedule=switch(0.0, 0.5, at=0.95), note="F = 0, EL alone for the last 5 %"),
    Method("gradual", "CE+EL F=0-0.5", schedule=gradual(), note="F = 0, 0.1, ... 0.5 in six equal phases"),
    Method("gradual-unit", "CE+EL F=0-0.5 unit", schedule=gradual(scale="unit"), note="the same, in unit scale"),
    Method("el", "EL", schedule=expectation(), note="expectation loss 1 - p alone, eq. (9)"),
    Method("focal", "Focal", _transform("focal", gamma=2.0, alpha=0.25), note="gamma = 2, alpha = 0.25, eq. (2)"),
    Method("mae", "MAE", _transform("mae"), note="2 (1 - p), eq. (3): EL with twice the learning rate"),
    Method("gce", "L_q", _transform("generalized", q=0.7), note="(1 - p^q) / q with q = 0.7"),
    Method("tgce", "Truncated L_q", _transform("truncated", q=0.7, k=0.5), note="L_q, constant where p <= 0.5"),
    Method("tce", "Tamed CE", _transform("tamed", alpha=0.5), note="alpha = 0.5, eq. (4) as printed"),
    Method("poly", "Poly-1", _transform("poly", epsilon=2.0), note="ce + 2 (1 - p); with 1 instead of 2 it is f0"),
    Method(
        "ce-matched",
        "CE, matched",
        schedule=partial(_matched, 1.0 / 3.0, gradual()),
        note="CE times M = alpha + beta/3: the size of gradual's gradient without its shape, eq. (20)-(21); for images "
        "ce-volume-own scales the learning rate instead, and with momentum and weight decay that isn't the same",
    ),
    Method(
        "ce-matched-off",
        "CE, matched off-target",
        schedule=partial(_matched, 0.5, gradual()),
        note="CE times M = alpha + beta/2, eq. (22): as ce-matched, for the logits of the other classes; for images "
        "ce-volume-others scales the learning rate instead",
    ),
)
DEFAULT_METHODS = ("ce", "f0", "f0-late", "gradual", "el", "focal")


def method(name: str) -> Method:
    """The method of this name.

    Raises:
        UserError: there is none; names the nearest.

    >>> method("gradual").title
    'CE+EL F=0-0.5'
    """
    for known in METHODS:
        if known.name == name:
            return known
    names = [known.name for known in METHODS]
    nearest = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(names)}"
    raise UserError(f"no method {name!r}: {hint}")


def load_loss(reference: str) -> Method:
    """The method of a user's loss g(ce), given as ``"module:function"`` or ``"path/file.py:function"``.

    The function takes a tensor of cross entropies and returns the losses, elementwise; it is named after itself.

    Raises:
        UserError: not of that form, no such module, file or function, or not a function of ce.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError(f"loss {reference!r} must be module:function or file.py:function, such as mylosses:my_g")
    g = getattr(_module(place), name, None)
    if not callable(g):
        what = "is not a function" if g is not None else "is not there"
        raise UserError(f"loss {reference!r}: {name} {what} in {place}")
    from crossfade.lab.train.tables.trace import check

    check(g)
    taken = {known.name for known in METHODS}
    shown = name if name not in taken else f"{name}-custom"
    return Method(shown, name, g, note=f"g = {reference}")


def _module(place: str) -> Any:
    path = Path(place)
    if path.suffix != ".py" and not path.is_file():
        if "" not in sys.path:  # an installed command doesn't look in the folder it is called from
            sys.path.insert(0, "")
        return _imported(place, lambda: importlib.import_module(place))
    if not path.is_file():
        raise UserError(f"loss file {place!r} is not there")
    unique = re.sub(r"\W", "_", str(path.resolve()))

    def run() -> Any:
        spec = importlib.util.spec_from_file_location(f"crossfade_loss_{unique}", path)
        if spec is None or spec.loader is None:
            raise UserError(f"loss file {place!r} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # so that what it defines can be pickled
        spec.loader.exec_module(module)
        return module

    return _imported(place, run)


def _imported(place: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except UserError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise UserError(
                f"no module {place!r}; give the file instead, such as path/to/{place}.py:function"
            ) from None
        raise UserError(f"loss module {place!r} needs the module {error.name!r}, which is not there") from error
    except Exception as error:
        raise UserError(f"loss module {place!r} failed to load: {type(error).__name__}: {error}") from error
