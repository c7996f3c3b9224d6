"""Losses of a user's own: a function g(ce), loaded by its name and checked before anything is trained."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossfade._reduction import Reduction
from crossfade._transforms import takes_row
from crossfade.errors import UserError
from crossfade.functional import probability_loss
from crossfade.lab.methods import METHODS, Method
from crossfade.lab.provenance import SCHEDULE_GRID
from crossfade.losses import CrossfadeLoss, Fade
from crossfade.schedules import Schedule, check_called

# ce of p = 1, of p ever nearer to 1, and on to p = 1e-30
PROBES = np.concatenate([[0.0], np.geomspace(1e-12, -math.log(1e-30), 399)]).astype(np.float32)


def load_loss(reference: str) -> Method:
    """Return the method of a user's loss g(ce), given as ``"module:function"`` or ``"path/file.py:function"``.

    The function takes a tensor of cross entropies and returns the losses, elementwise; it is named after itself. It may
    also be a ``crossfade.Fade``.
    """
    name, g = _function(reference, "loss")
    found = replace(_of_fade(g) or _of_loss(name, g), name=_free(name), title=name, note=f"g = {reference}")
    check_method(found)
    return found


def load_schedule(reference: str) -> Method:
    """Return the method of a user's schedule, (alpha, beta) at each progress, given as a loss is."""
    name, schedule = _function(reference, "schedule")
    _check_schedule(name, schedule)
    return Method(_free(name), name, schedule=schedule, note=f"alpha, beta = {reference}")


def as_method(given: object) -> Method:
    """Return the method of a schedule, which makes two numbers of one, of a loss g(ce), or of a ``crossfade.Fade``."""
    if isinstance(given, Method):
        return given
    if (fade := _of_fade(given)) is not None:
        return fade
    if not callable(given):
        raise UserError(f"methods: expected names, Method objects, functions g(ce) or schedules, got {given!r}")
    try:
        check_called(given)
    except TypeError as error:
        raise UserError(f"methods: {error}") from None
    inner = getattr(given, "func", given)  # of a partial, such as gradual()
    name = str(getattr(inner, "__name__", type(given).__name__)).strip("<>_")
    if getattr(inner, "__module__", "") == "crossfade.objectives":  # deft() returns a lambda
        name = _free(str(getattr(inner, "__qualname__", name)).split(".")[0])
    try:
        tuple(given(0.5))
    except Exception:  # a loss makes one value of one, and may refuse a number that is no tensor
        return _of_loss(name, given)
    _check_schedule(name, given)
    return Method(_free(name), name, schedule=given)


def _of_loss(name: str, g: Callable[..., Tensor]) -> Method:
    """Return the method of a loss g(ce), or of a loss g(ce, row), which needs the outputs of the network."""

    def loss(outputs: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        return probability_loss(g, outputs, labels, reduction=reduction)

    return Method(name, name, loss=loss) if takes_row(g) else Method(name, name, g)


def _of_fade(fade: object) -> Method | None:
    """Return the method of a ``crossfade.Fade``, None for anything else."""
    if not isinstance(fade, Fade):
        return None
    options = (fade.weight is not None, fade.label_smoothing, fade.softcap, fade.z_loss, fade.shift)
    if any(options):
        raise UserError("methods: a Fade must have no weight, label_smoothing, softcap, z_loss or shift here")
    if isinstance(fade, CrossfadeLoss):
        return as_method(fade.schedule)
    name = str(getattr(getattr(fade.g_of, "func", fade.g_of), "__name__", type(fade.g_of).__name__)).strip("<>_")
    return Method(_free(name), name, schedule=fade.schedule, g_of=fade.g_of, names=fade.names)


def check_method(method: Method) -> None:
    """Check that a user's loss can be trained on, at the start of its schedule, on its way and at its end."""
    for g in _transforms(method):
        check_loss(g, method.title)


def check_probes(method: Method) -> None:
    """Check that a method's loss g(ce), if it is one, is an elementwise, differentiable function."""
    for g in _transforms(method):
        probe(g)


def _transforms(method: Method) -> list[Callable[[Tensor], Tensor]]:
    """Return g, or those of the schedule's different values; none for another kind of method."""
    if method.g_of is None:
        return [] if method.g is None else [method.g]
    return [method.transform(values) for values in method.values()]


def _check_schedule(name: str, schedule: Schedule) -> None:
    """Raise UserError unless a schedule gives two weights of a loss that grows with ce at each progress."""
    for progress in [step / SCHEDULE_GRID for step in range(SCHEDULE_GRID + 1)]:
        try:
            alpha, beta = map(float, schedule(progress))
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            raise UserError(f"schedule {name}: expected (alpha, beta) at progress {progress:g}, got {got}") from error
        # g' = alpha + beta p, at each p in [0, 1]
        if not (math.isfinite(alpha + beta) and min(alpha, alpha + beta) >= 0 and max(alpha, alpha + beta) > 0):
            raise UserError(
                f"schedule {name}: alpha + beta p must be finite, at least 0 for each p in [0, 1], and not 0 for all, "
                f"got alpha {alpha:g} and beta {beta:g} at progress {progress:g}"
            )


def _free(name: str) -> str:
    """Return a name that no method of ours has."""
    return f"{name}-custom" if any(known.name == name for known in METHODS) else name


def _function(reference: str, what: str) -> tuple[str, Callable[..., Any]]:
    """Return a user's function and its name."""
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError(f"{what} {reference!r} must be module:function or file.py:function, such as mylosses:my_g")
    function = getattr(_module(place, what), name, None)
    if not callable(function):
        problem = "is not a function" if function is not None else "is not there"
        raise UserError(f"{what} {reference!r}: {name} {problem} in {place}")
    return name, function


def _module(place: str, what: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py" and not path.is_file():
        raise UserError(f"{what} file {place!r} is not there")
    try:
        if path.is_file():
            return _run_file(path, what)
        if "" not in sys.path:  # an installed command doesn't look in the folder it is called from
            sys.path.insert(0, "")
        return importlib.import_module(place)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise UserError(
                f"no module {place!r}; give the file instead, such as path/to/{place}.py:function"
            ) from None
        raise UserError(f"{what} module {place!r} needs the module {error.name!r}, which is not there") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{what} module {place!r} failed to load: {type(error).__name__}: {error}") from error


def _run_file(path: Path, what: str) -> ModuleType:
    name = re.sub(r"\W", "_", str(path.resolve()))
    spec = importlib.util.spec_from_file_location(f"crossfade_loss_{name}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{what} file {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that what it defines can be pickled
    spec.loader.exec_module(module)
    return module


def value_and_slope(g: Callable[[Tensor], Tensor], ce: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(ce), which must be a tensor of ce's shape with a gradient, and g'(ce), element by element."""
    with torch.enable_grad():
        leaf = ce.detach().requires_grad_()
        value: object = g(leaf)
        if not isinstance(value, torch.Tensor) or value.shape != ce.shape:
            got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise UserError(f"g must give a loss for each cross entropy: expected shape {tuple(ce.shape)}, got {got}")
        if not value.requires_grad:
            raise UserError("g must depend on ce by differentiable operations: its result has no gradient")
        # The gradient of a number: for a tensor's, PyTorch imports sympy, which takes longer than all the rest.
        (slope,) = torch.autograd.grad((value * torch.ones_like(value)).sum(), leaf)
    return value.detach(), slope


def check_loss(g: Callable[[Tensor], Tensor], title: str = "") -> None:
    """Check that a loss can be trained on.

    Raises:
        UserError: as ``probe``; or g or its slope isn't finite in float32, g falls somewhere, or it is constant.
    """
    name, (values, slopes) = title or getattr(g, "__name__", type(g).__name__), probe(g)
    for what, found, wrong, must in (
        ("its value is", values, ~np.isfinite(values), "be finite for every ce from 0 to 69"),
        ("its slope is", slopes, ~np.isfinite(slopes), "have a finite slope for every ce from 0 to 69"),
        ("its slope is", slopes, slopes < -1e-6 * np.abs(slopes).max(), "never fall as ce grows"),
        ("its slope is", slopes, np.full_like(slopes, not slopes.any(), dtype=bool), "grow somewhere as ce grows"),
    ):
        if wrong.any():
            at = int(wrong.argmax())
            raise UserError(f"{name} must {must}: {what} {found[at]:g} at ce = {PROBES[at]:.3g}; correct g")


def probe(g: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
    """Return (2, probes): g and g' at ``PROBES``, computed in float64.

    Raises:
        UserError: g fails, or isn't an elementwise, differentiable function of ce.
    """
    name, ce = getattr(g, "__name__", type(g).__name__), torch.from_numpy(PROBES.astype(np.float64))
    try:
        whole = torch.stack(value_and_slope(g, ce))
        pieces = torch.cat([torch.stack(value_and_slope(g, part)) for part in torch.split(ce.flip(0), 7)], 1).flip(1)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{name} failed on a tensor of cross entropies: {type(error).__name__}: {error}") from error
    if not torch.allclose(whole, pieces, rtol=1e-9, atol=1e-12, equal_nan=True):
        raise UserError(f"{name} must be elementwise: one example's loss changed with the other examples beside it")
    return whole.float().numpy()  # what is too large for float32 is inf
