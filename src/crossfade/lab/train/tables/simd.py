"""Vectors of float32 for numba: what the kernel's inner loops are written in.

LLVM's own vectoriser gives up on loops as short and as entangled as those of a tiny network, or vectorises them in one
version and not in the next. Here a value *is* a vector (``F32x8``, ``F32x16``; in ``rows`` eight of them), so what is
written is what runs, on any machine LLVM knows; it splits a vector that is too wide for the processor. Sums are fused
multiply-adds in an order that doesn't depend on the width.

``@operation`` functions write LLVM instructions. In compiled code they are called with numbers, addresses and vectors.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.datamodel import models
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

ROWS = 8  # a block of a batch: as many accumulators as hide the latency of a fused multiply-add
WIDE = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # the widest of which 8 + 8 + 3 fit the registers

Function = TypeVar("Function", bound=Callable[..., Any])
_I32, _F32 = ir.IntType(32), ir.FloatType()


def jit(function: Function) -> Function:
    """Compile with numba, without the GIL. No fast-math: NaN and infinity must stay visible, sums in their order."""
    options = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(Function, numba.njit(**options)(function))


class Vector(types.Type):
    """``width`` float32 values in one register."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"f32x{width}")


F32x8, F32x16 = Vector(8), Vector(16)


def vector(width: int, element: Any = _F32) -> Any:
    return ir.VectorType(element, width)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, vector(kind.width))


def operation(result: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make a function that writes LLVM instructions callable from compiled code.

    Args:
        result: the numba type of what it returns, from those of its arguments.
    """

    def define(emit: Callable[..., Any]) -> Any:
        def typed(typing: Any, *kinds: Any) -> Any:
            given = [types.intp if isinstance(kind, (types.Integer, types.IntegerLiteral)) else kind for kind in kinds]

            def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                out = emit(builder, *values)
                return context.get_dummy_value() if out is None else out

            return result(*kinds)(*given), codegen

        typed.__doc__ = emit.__doc__
        cast(Any, typed).__signature__ = inspect.signature(emit)  # numba wants names; the builder's place is typing's
        return intrinsic(typed)

    return define


def first(kind: Any, *_: Any) -> Any:
    return kind


def nothing(*_: Any) -> Any:
    return types.void


# --- addresses -----------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing: Any, array: Any) -> Any:
    """The address of an array's first element. Whoever calls keeps the array alive, and in C order.

    Inside the kernel an address is one register where an array is seven, and nobody counts references to it.
    """

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return context.make_array(array)(context, builder, values[0]).data

    return cast(Any, types).CPointer(array.dtype)(array), codegen


@operation(first)
def offset(builder: Any, address: Any, count: Any) -> Any:
    """The address ``count`` elements on."""
    return builder.gep(address, [count])


def load_at(builder: Any, address: Any, width: int) -> Any:
    value = builder.load(builder.bitcast(address, vector(width).as_pointer()))
    value.align = 4
    return value


@operation(nothing)
def store(builder: Any, address: Any, index: Any, value: Any) -> None:
    """address[index : index + width] = value"""
    target = builder.bitcast(builder.gep(address, [index]), value.type.as_pointer())
    builder.store(value, target).align = 4


# --- one vector ----------------------------------------------------------------------------------------------------


def _arithmetic(python: Any, instruction: str) -> None:
    class Typing(ConcreteTemplate):  # type: ignore[misc]
        cases = [signature(kind, kind, kind) for kind in (F32x8, F32x16)]  # noqa: RUF012 (numba reads the attribute)

    infer_global(python)(Typing)
    lower_builtin(python, Vector, Vector)(
        lambda context, builder, signature, values: getattr(builder, instruction)(*values)
    )


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def splat_of(builder: Any, scalar: Any, width: int) -> Any:
    unknown = ir.Constant(vector(width), ir.Undefined)
    one = builder.insert_element(unknown, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, unknown, ir.Constant(vector(width, _I32), [0] * width))


def pick(builder: Any, a: Any, b: Any, places: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(vector(len(places), _I32), list(places)))


def call(builder: Any, name: str, *values: Any) -> Any:
    kind, name = values[0].type, f"llvm.{name}.v{values[0].type.count}f32"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [kind] * len(values)), name)
    return builder.call(function, values)


def _loader(kind: Vector) -> Any:
    @operation(lambda address, index: kind)
    def load(builder: Any, address: Any, index: Any) -> Any:
        """address[index : index + width]"""
        return load_at(builder, builder.gep(address, [index]), kind.width)

    return load


def _splatter(kind: Vector) -> Any:
    @operation(lambda value: kind)
    def splat(builder: Any, value: Any) -> Any:
        """The same float32 in every place."""
        return splat_of(builder, value, kind.width)

    return splat


load8, load16 = _loader(F32x8), _loader(F32x16)
splat8, splat16 = _splatter(F32x8), _splatter(F32x16)


@operation(first)
def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding."""
    return call(builder, "fma", a, b, c)


@operation(lambda a, b, yes, no: yes)
def greater(builder: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """``yes`` where a > b, else ``no`` (so also where either is NaN)."""
    return builder.select(builder.fcmp_ordered(">", a, b), yes, no)


@operation(lambda a, b, yes, no: yes)
def equal(builder: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """``yes`` where a == b, else ``no``."""
    return builder.select(builder.fcmp_ordered("==", a, b), yes, no)


@operation(lambda value: types.float32)
def total(builder: Any, value: Any) -> Any:
    """The sum of the eight places, by halves."""
    for half in (4, 2, 1):
        upper = pick(builder, value, value, range(half, 2 * half))
        value = builder.fadd(pick(builder, value, value, range(half)), upper)
    return builder.extract_element(value, ir.Constant(_I32, 0))


# --- a float's own bits: 1 sign, 8 exponent (127 more than it is), 23 mantissa --------------------------------------


def _constant(value: Any, number: int) -> Any:
    return ir.Constant(vector(value.type.count, _I32), [number] * value.type.count)


@operation(first)
def nearest(builder: Any, value: Any) -> Any:
    """The nearest whole number."""
    return call(builder, "rint", value)


@operation(first)
def power_of_two(builder: Any, exponent: Any) -> Any:
    """2 to a whole number in [-126, 127]."""
    bits = builder.fptosi(exponent, vector(exponent.type.count, _I32))
    bits = builder.shl(builder.add(bits, _constant(exponent, 127)), _constant(exponent, 23))
    return builder.bitcast(bits, exponent.type)


@operation(first)
def exponent(builder: Any, value: Any) -> Any:
    """e of a positive value = m * 2^e with m in [1, 2)."""
    bits = builder.bitcast(value, vector(value.type.count, _I32))
    bits = builder.sub(builder.lshr(bits, _constant(value, 23)), _constant(value, 127))
    return builder.sitofp(bits, value.type)


@operation(first)
def mantissa(builder: Any, value: Any) -> Any:
    """m of a positive value = m * 2^e with m in [1, 2)."""
    bits = builder.bitcast(value, vector(value.type.count, _I32))
    bits = builder.or_(builder.and_(bits, _constant(value, 0x7FFFFF)), _constant(value, 0x3F800000))
    return builder.bitcast(bits, value.type)
