"""The compilation of any loss g(ce): what PyTorch computes for g and its derivative becomes a function for the kernel.

g runs once, forward and backward, on a few numbers, and every operation that reaches PyTorch's kernels is recorded.
Pointwise ones become lines of a scalar Python function. numba compiles it to machine code, which the kernel calls by
its address, so the kernel itself is compiled once for all losses. Parameters that follow a schedule are read where the
kernel writes them, so that g_of is compiled once, too. The result is compared with PyTorch's from p = 1 down
to p = 1e-30. A loss that can't be compiled, or whose results differ, is left to the batched engine.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from crossfade.lab.own_loss import PROBES, probe
from crossfade.lab.train.outcome import Floats
from crossfade.lab.train.tables.simd import ROWS

_TOLERANCE = 1e-5  # the plain loop computes g in float32


@dataclass(frozen=True)
class Traced:
    """A compiled loss.

    Attributes:
        address: The address of the function, valid as long as this object lives; 0 if it couldn't be compiled.
        reason: Why it couldn't be compiled.
        compiled: The function as numba's object.
    """

    address: int
    reason: str = ""
    compiled: Any = None


def traced(own: Callable[..., Any], names: tuple[str, ...] = (), values: tuple[tuple[float, ...], ...] = ()) -> Traced:
    """Return the compiled form of g; the same one is compiled once.

    Args:
        own: g or, if there are values, a function of the parameters ``names`` that returns g.
        values: Those of the parameters at which the compiled form is compared.

    Raises:
        UserError: g isn't an elementwise, differentiable function of ce.
    """
    try:
        hash(own)
    except TypeError:
        return _trace(own, names, values)
    return _trace_once(own, names, values)


def _trace(own: Callable[..., Any], names: Sequence[str], values: Sequence[Sequence[float]]) -> Traced:
    named = [dict(zip(names, some, strict=True)) for some in values]
    expected = [probe(own(**some)) for some in named] or [probe(own)]
    try:
        if len(names) > ROWS:
            raise NotImplementedError(f"it has more than {ROWS} parameters")
        compiled = _compile(_source(own, named[:1]))
    except Exception as error:  # g may use anything that can't be recorded or compiled
        return Traced(0, str(error).strip().split("\n")[0])
    for some, exact in zip(values or [()], expected, strict=True):
        agrees = np.isclose(compiled_values(compiled, some), exact, rtol=_TOLERANCE, atol=1e-12, equal_nan=True)
        if not agrees.all():
            return Traced(0, f"its compiled form differs at ce = {PROBES[np.flatnonzero(~agrees.all(0))[0]]}")
    return Traced(compiled.address, compiled=compiled)


_trace_once = lru_cache(maxsize=256)(_trace)


# --- from operations to Python source ------------------------------------------------------------------------------


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A PyTorch mode that records the operations that reach PyTorch's kernels as lines of Python."""

    def __init__(self, argument: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: dict[int, str] = {id(argument): "x"}
        self.alive: list[Tensor] = [argument]  # an id is unique only among living tensors
        self.lines: dict[str, str] = {}  # expression -> name, so nothing is computed twice

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # otherwise the first operation imports torch's compiler
        return False

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        in_place = name.endswith("_") and not name.endswith("__")
        kwargs = kwargs or {}
        given = [*args, kwargs["alpha"]] if "alpha" in kwargs else args
        line = None
        if given and not {"rounding_mode", "approximate"} & kwargs.keys():
            line = expression(name.rstrip("_") if in_place else name, [self.text(value) for value in given])
        if line is None:
            return self.decomposed(func, name, args, kwargs)
        out = func(*args, **kwargs)
        self.names[id(out)] = line if line.isidentifier() else self.lines.setdefault(line, f"t{len(self.lines)}")
        self.alive.append(out)
        return out

    def decomposed(self, func: OpOverload, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Run an operation by PyTorch's decomposition into simpler ones."""
        import torch._refs  # noqa: F401 (it fills the table; a slow import that few losses need)
        from torch._decomp import decomposition_table

        if name == "_local_scalar_dense":
            raise NotImplementedError("it decides by the values of ce (an if, float() or item())")
        with self:
            if func in decomposition_table:
                return decomposition_table[func](*args, **kwargs)
            out: object = func.decompose(*args, **kwargs)
        if out is NotImplemented:
            raise NotImplementedError(f"the operation {name} has no compiled form here")
        return out

    def text(self, value: object) -> str | None:
        """Return the name of a recorded value, or a number as Python writes it."""
        if isinstance(value, Tensor):
            if id(value) in self.names:
                return self.names[id(value)]
            if value.numel() != 1:
                raise NotImplementedError(f"it uses a constant tensor of shape {tuple(value.shape)}")
            value = value.detach().to(torch.float64).reshape(()).numpy().item()
        if isinstance(value, bool) or value is None:
            return None if value is None else str(value)
        if isinstance(value, (int, float)):
            return repr(float(value)) if value >= 0 else f"({float(value)!r})"
        return "unused"  # a shape or dtype, to which no template refers


def _source(own: Callable[..., Any], named: Sequence[Mapping[str, float]]) -> str:
    """Return the Python source of the scalar function of g or, if there are values of its parameters, of g_of."""
    leaf = torch.linspace(0.1, 5.0, 5, dtype=torch.float64).requires_grad_()
    recorder = _Recorder(leaf)
    parameters = {name: torch.tensor(value, dtype=torch.float64) for some in named for name, value in some.items()}
    recorder.names |= {id(parameter): f"p{k}" for k, parameter in enumerate(parameters.values())}
    with torch.enable_grad():
        with recorder:
            value = own(**parameters)(leaf) if named else own(leaf)
        total = value.sum()  # not recorded: the gradient of a tensor would make PyTorch import sympy
        with recorder:
            (slope,) = torch.autograd.grad(total, leaf)
    lines = [
        "def loss(row):",
        *(f"    p{k} = np.float64(row[{3 * ROWS + k}])" for k in range(len(parameters))),
        f"    for i in range({ROWS}):",
        "        x = np.float64(row[i])",
        *(f"        {name} = {line}" for line, name in recorder.lines.items()),
        f"        row[{ROWS} + i] = {recorder.text(value)}",
        f"        row[{2 * ROWS} + i] = {recorder.text(slope)}",
    ]
    return "\n".join(lines)


# --- from Python source to machine code ----------------------------------------------------------------------------


def _compile(source: str) -> Any:
    names: dict[str, Any] = {"math": math, "np": np, "inf": math.inf, "nan": math.nan}
    exec(source, names)
    return numba.cfunc(types.void(types.CPointer(types.float32)), error_model="numpy")(names["loss"])


def compiled_values(compiled: Any, values: Sequence[float] = ()) -> Floats:
    """Return (2, probes): g and g' at ``PROBES`` as the kernel computes them, with these values of the parameters."""
    row, out = np.zeros(4 * ROWS, dtype=np.float32), []
    row[3 * ROWS : 3 * ROWS + len(values)] = values
    for start in range(0, len(PROBES), ROWS):
        row[:ROWS] = PROBES[start : start + ROWS]
        compiled.ctypes(row.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
        out.append(row[ROWS : 3 * ROWS].reshape(2, ROWS).copy())
    return np.concatenate(out, axis=1)


# --- PyTorch's pointwise operations as scalar expressions, float64 or bool. {0} is the first argument, and so on -----

_MATH = "exp expm1 log log1p log2 log10 sqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc"
_COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_ALIKE = {
    "{0}": "expand detach clone alias _to_copy lift_fresh lift_fresh_copy positive contiguous scalar_tensor",
    "{1}": "full full_like",
    "0.0": "zeros zeros_like new_zeros",
    "1.0": "ones ones_like new_ones",
    "max({0}, {1})": "maximum fmax clamp_min",
    "min({0}, {1})": "minimum fmin clamp_max",
    "(not {0})": "logical_not bitwise_not",
    "({0} and {1})": "logical_and bitwise_and",
    "({0} or {1})": "logical_or bitwise_or",
    "math.copysign(1.0, {0}) if {0} != 0.0 else 0.0": "sign sgn",
}

TEMPLATES = {
    **{name: template for template, names in _ALIKE.items() for name in names.split()},
    **{name: f"math.{name}({{0}})" for name in _MATH.split()},
    **{name: f"({{0}} {sign} {{1}})" for name, sign in _COMPARED.items()},
    "new_full": "{2}",
    "neg": "(-{0})",
    "abs": "abs({0})",
    "reciprocal": "(1.0 / {0})",
    "rsqrt": "(1.0 / math.sqrt({0}))",
    "square": "({0} * {0})",
    "exp2": f"math.exp({{0}} * {math.log(2.0)!r})",
    "sigmoid": "(1.0 / (1.0 + math.exp(-{0})))",
    "relu": "max({0}, 0.0)",
    "elu": "({0} if {0} > 0.0 else math.expm1({0}))",
    "elu_backward": "({0} if {5} > 0.0 else {0} * math.exp({5}))",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "where": "({1} if {0} else {2})",
    "masked_fill": "({2} if {1} else {0})",
    "isnan": "math.isnan({0})",
    "isinf": "math.isinf({0})",
    "sigmoid_backward": "({0} * {1} * (1.0 - {1}))",
    "tanh_backward": "({0} * (1.0 - {1} * {1}))",
    "threshold_backward": "({0} if {1} > {2} else 0.0)",
}

_POWERS = {
    "0.0": "1.0",
    "1.0": "{0}",
    "2.0": "({0} * {0})",
    "3.0": "({0} * {0} * {0})",
    "0.5": "math.sqrt({0})",
}


def expression(name: str, arguments: Sequence[str | None]) -> str | None:
    """Return the expression of one operation, or None if there is no template.

    The arguments are names or numbers as text, None where PyTorch's argument is None or left out.
    """
    given = [*arguments, *[None] * 3]
    if name in ("add", "sub", "rsub"):
        first, second = (given[1], given[0]) if name == "rsub" else (given[0], given[1])
        if given[2] not in (None, "1.0"):
            second = f"{given[2]} * {second}"
        return f"({first} {'+' if name == 'add' else '-'} {second})"
    if name == "clamp":
        low = f"max({given[0]}, {given[1]})" if given[1] is not None else str(given[0])
        return f"min({low}, {given[2]})" if given[2] is not None else low
    if name == "pow":
        return _POWERS.get(str(given[1]), "({0} ** {1})").format(*given)
    rounded = name == "div" and given[2] is not None
    scaled = name in ("elu", "elu_backward") and not {*given[1:5]} <= {"1.0", "False", None}
    return TEMPLATES[name].format(*given) if name in TEMPLATES and not rounded and not scaled else None
