"""Any loss g(ce) inside the kernel: what PyTorch computes for g and its derivative, as one compiled function.

g runs once, forward and backward, on a few numbers, and every operation that reaches PyTorch's kernels is written
down. Pointwise ones become lines of a scalar Python function; numba compiles it to machine code that the kernel calls
by its address, so the kernel itself is compiled once for all losses. The result is compared with PyTorch's own from
p = 1 down to p = 1e-30. Whatever can't be written down, or disagrees, is left to the batched engine.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from crossfade.lab.own_loss import PROBES, function_name, probe
from crossfade.lab.train.tables.pointwise import expression
from crossfade.lab.train.tables.simd import ROWS

Transform = Callable[[Tensor], Tensor]

_TOLERANCE = 1e-5  # the plain loop computes g in float32


@dataclass(frozen=True)
class Traced:
    """``address`` of the compiled function, alive as long as this is; or 0, and ``note`` says why."""

    address: int
    note: str = ""
    source: str = ""
    compiled: Any = None


def traced(g: Transform) -> Traced:
    """The compiled form of g; of the same g the same one.

    Raises:
        UserError: g isn't an elementwise, differentiable function of ce.
    """
    try:
        hash(g)
    except TypeError:
        return _trace(g)
    return _remembered(g)


def _trace(g: Transform) -> Traced:
    name, expected = function_name(g), probe(g)
    try:
        source = _source(g)
        compiled = _compile(source)
    except Exception as error:  # whatever g may do that can't be written down, or compiled
        reason = str(error).strip().split("\n")[0]
        return Traced(0, f"{name} trains in the batched engine, which is slower: {reason}")
    got = _compiled_values(compiled)
    agrees = np.isclose(got, expected, rtol=_TOLERANCE, atol=1e-12, equal_nan=True)
    if not agrees.all():
        at = PROBES[np.flatnonzero(~agrees.all(0))[0]]
        return Traced(
            0, f"{name} trains in the batched engine, which is slower: its compiled form differs at ce = {at}"
        )
    return Traced(compiled.address, source=source, compiled=compiled)


_remembered = lru_cache(maxsize=256)(_trace)


class _Writer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what reaches PyTorch's kernels."""

    def __init__(self, argument: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: dict[int, str] = {id(argument): "x"}
        self.alive: list[Tensor] = [argument]  # an id is a tensor's only while it lives
        self.lines: dict[str, str] = {}  # expression -> name, so nothing is computed twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        in_place = name.endswith("_") and not name.endswith("__")
        kwargs = kwargs or {}
        given = [*args, kwargs["alpha"]] if "alpha" in kwargs else list(args)
        if "rounding_mode" in kwargs or "approximate" in kwargs:
            given = []
        texts = None if not given else [self.text(value) for value in given]
        line = expression(name.rstrip("_") if in_place else name, texts) if texts is not None else None
        if line is None:
            return self.decomposed(func, name, args, kwargs)
        out = func(*args, **kwargs)
        self.names[id(out)] = line if line.isidentifier() else self.lines.setdefault(line, f"t{len(self.lines)}")
        self.alive.append(out)
        return out

    def decomposed(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """PyTorch's own account of an operation in simpler ones."""
        import torch._refs  # noqa: F401 (it fills the table; a slow import that few losses need)
        from torch._decomp import decomposition_table

        if name == "_local_scalar_dense":
            raise NotImplementedError("it decides by the values of ce (an if, float() or item())")
        with self:
            if func in decomposition_table:
                return decomposition_table[func](*args, **kwargs)
            out = func.decompose(*args, **kwargs)
        if out is NotImplemented:
            raise NotImplementedError(f"the operation {name} has no compiled form here")
        return out

    def text(self, value: Any) -> str | None:
        """The name of a value that was written down, or a number."""
        if isinstance(value, Tensor):
            if id(value) in self.names:
                return self.names[id(value)]
            if value.numel() != 1:
                raise NotImplementedError(f"it uses a constant tensor of shape {tuple(value.shape)}")
            value = value.detach().to(torch.float64).reshape(()).numpy().item()
        if isinstance(value, bool) or value is None:
            return None if value is None else str(value)
        if isinstance(value, (int, float)):
            return _number(float(value))
        return "unwritable"  # a shape, a dtype: no template refers to it


def _number(value: float) -> str:
    if math.isnan(value):
        return "math.nan"
    if math.isinf(value):
        return "math.inf" if value > 0 else "(-math.inf)"
    return repr(value) if value >= 0 else f"({value!r})"


def _source(g: Transform) -> str:
    """The scalar function, as Python."""
    leaf = torch.linspace(0.1, 5.0, 5, dtype=torch.float64).requires_grad_()
    writer = _Writer(leaf)
    with torch.enable_grad(), writer:
        value = g(leaf)
        (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
    lines = [
        "def loss(row):",
        f"    for i in range({ROWS}):",
        "        x = np.float64(row[i])",
        *(f"        {name} = {line}" for line, name in writer.lines.items()),
        f"        row[{ROWS} + i] = {writer.text(value)}",
        f"        row[{2 * ROWS} + i] = {writer.text(slope)}",
    ]
    return "\n".join(lines)


def _compile(source: str) -> Any:
    room: dict[str, Any] = {"math": math, "np": np}
    exec(source, room)
    return numba.cfunc(types.void(types.CPointer(types.float32)), error_model="numpy")(room["loss"])


def _compiled_values(compiled: Any) -> Any:
    """(2, grid): what the kernel would get."""
    row, out = np.zeros(3 * ROWS, dtype=np.float32), []
    for start in range(0, len(PROBES), ROWS):
        row[:ROWS] = PROBES[start : start + ROWS]
        compiled.ctypes(row.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
        out.append(row[ROWS:].reshape(2, ROWS).copy())
    return np.concatenate(out, axis=1)
