"""Losses of a user's own: a function g(ce), loaded by its name and checked before anything is trained."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.methods import METHODS, Method

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# ce of p = 1, of p ever nearer to 1, and on to p = 1e-30
PROBES = np.concatenate([[0.0], np.geomspace(1e-12, -math.log(1e-30), 399)]).astype(np.float32)


def load_loss(reference: str) -> Method:
    """Return the method of a user's loss g(ce), given as ``"module:function"`` or ``"path/file.py:function"``.

    The function takes a tensor of cross entropies and returns the losses, elementwise; it is named after itself.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError(f"loss {reference!r} must be module:function or file.py:function, such as mylosses:my_g")
    g = getattr(_module(place), name, None)
    if not callable(g):
        what = "is not a function" if g is not None else "is not there"
        raise UserError(f"loss {reference!r}: {name} {what} in {place}")
    probe(g)
    taken = any(known.name == name for known in METHODS)
    return Method(f"{name}-custom" if taken else name, name, g, note=f"g = {reference}")


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py" and not path.is_file():
        raise UserError(f"loss file {place!r} is not there")
    try:
        if path.is_file():
            return _run_file(path)
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
        raise UserError(f"loss module {place!r} needs the module {error.name!r}, which is not there") from error
    except Exception as error:
        raise UserError(f"loss module {place!r} failed to load: {type(error).__name__}: {error}") from error


def _run_file(path: Path) -> ModuleType:
    name = re.sub(r"\W", "_", str(path.resolve()))
    spec = importlib.util.spec_from_file_location(f"crossfade_loss_{name}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"loss file {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that what it defines can be pickled
    spec.loader.exec_module(module)
    return module


def value_and_slope(g: Callable[[Tensor], Tensor], ce: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(ce), which must be a tensor of ce's shape with a gradient, and g'(ce), element by element."""
    import torch

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


def probe(g: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
    """Return (2, probes): g and g' at ``PROBES``, computed in float64.

    Raises:
        UserError: g fails, or isn't an elementwise, differentiable function of ce.
    """
    import torch

    name, ce = getattr(g, "__name__", type(g).__name__), torch.from_numpy(PROBES.astype(np.float64))
    try:
        whole = torch.stack(value_and_slope(g, ce))
        pieces = torch.cat([torch.stack(value_and_slope(g, part)) for part in torch.split(ce.flip(0), 7)], 1).flip(1)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except Exception as error:
        raise UserError(f"{name} failed on a tensor of cross entropies: {type(error).__name__}: {error}") from error
    if not torch.allclose(whole, pieces, rtol=1e-9, atol=1e-12, equal_nan=True):
        raise UserError(f"{name} must be elementwise: one example's loss changed with the other examples beside it")
    return whole.float().numpy()  # what is too large for float32 is inf
