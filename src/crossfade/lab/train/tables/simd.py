"""Vector instructions on float32 for numba, in which the kernel's inner loops are written.

LLVM's vectoriser doesn't handle the short, nested loops of a small network reliably. Here a value is itself a vector
(eight or sixteen float32) or a block (eight vectors, one for each row of a block of rows), so the code determines the
instructions, on any machine that LLVM supports; it splits vectors that are too wide for the processor. Sums are fused
multiply-adds in an order that doesn't depend on the width.

An ``@operation`` function runs at compile time: it emits the LLVM instructions of one operation. Compiled code calls it
with numbers, addresses and vectors, without the builder.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from llvmlite.ir import IRBuilder, Value  # type: ignore[import-untyped]
from numba import types
from numba.core.base import BaseContext
from numba.core.datamodel import models
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

ROWS = 8  # rows in a block: enough accumulators to hide the latency of a fused multiply-add
WIDE = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # the widest of which 8 + 8 + 3 fit the registers

# The values in compiled code, whose types only numba knows.
Vec: TypeAlias = Any
Block: TypeAlias = Any
Address: TypeAlias = Any

Operation: TypeAlias = Callable[..., Any]
Function = TypeVar("Function", bound=Callable[..., Any])
_I32, _F32 = ir.IntType(32), ir.FloatType()
_f = np.float32


def jit(function: Function) -> Function:
    """Compile with numba, without the GIL. No fast-math: NaN and infinity must stay visible, sums in their order."""
    options = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(Function, numba.njit(**options)(function))


# --- types ---------------------------------------------------------------------------------------------------------


class _Sized(types.Type):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"{type(self).__name__}{width}")


class VectorType(_Sized):
    """``width`` float32 values in one register."""


class BlockType(_Sized):
    """Eight vectors of ``width`` values, one for each row of a block."""


F32x8, F32x16 = VectorType(8), VectorType(16)


def vector(width: int, element: ir.Type = _F32) -> ir.Type:
    """Return LLVM's type of so many elements."""
    return ir.VectorType(element, width)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: object, kind: VectorType) -> None:
        super().__init__(manager, kind, vector(kind.width))


@register_model(BlockType)
class _BlockModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: object, kind: BlockType) -> None:
        super().__init__(manager, kind, ir.ArrayType(vector(kind.width), ROWS))


def operation(result: Callable[..., types.Type]) -> Callable[[Operation], Operation]:
    """Make a function that writes LLVM instructions callable from compiled code.

    ``result`` returns the operation's numba type, given those of its arguments.
    """

    def define(emit: Operation) -> Operation:
        def typed(typing: object, *kinds: types.Type) -> tuple[types.Type, Operation]:
            given = [types.intp if isinstance(kind, (types.Integer, types.IntegerLiteral)) else kind for kind in kinds]

            def codegen(context: BaseContext, builder: IRBuilder, signature: object, values: Sequence[Value]) -> Value:
                out = emit(builder, *values)
                return context.get_dummy_value() if out is None else out

            return result(*kinds)(*given), codegen

        typed.__doc__ = emit.__doc__
        setattr(typed, "__signature__", inspect.signature(emit))  # noqa: B010 (numba wants names; typing: the builder)
        return cast(Operation, intrinsic(typed))

    return define


def _first(kind: types.Type, *_: types.Type) -> types.Type:
    return kind


def _nothing(*_: types.Type) -> types.Type:
    return types.void


# --- addresses -----------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing: object, array: types.Array) -> tuple[types.Type, Operation]:
    """Return the address of the first element of an array, which must stay alive and be in C order.

    An address takes one register where an array takes seven, and has no reference count.
    """

    def codegen(context: BaseContext, builder: IRBuilder, signature: object, values: Sequence[Value]) -> Value:
        return context.make_array(array)(context, builder, values[0]).data

    return types.CPointer(array.dtype)(array), codegen


@operation(_first)
def offset(builder: IRBuilder, address: Value, count: Value) -> Value:
    """Return the address ``count`` elements further on."""
    return builder.gep(address, [count])


def _load_at(builder: IRBuilder, address: Value, width: int) -> Value:
    value = builder.load(builder.bitcast(address, vector(width).as_pointer()))
    value.align = 4
    return value


def _store_at(builder: IRBuilder, address: Value, value: Value) -> None:
    builder.store(value, builder.bitcast(address, value.type.as_pointer())).align = 4


@operation(_nothing)
def store(builder: IRBuilder, address: Value, index: Value, value: Value) -> None:
    """Set address[index : index + width] = value."""
    _store_at(builder, builder.gep(address, [index]), value)


@operation(_nothing)
def call_loss(builder: IRBuilder, function: Value, row: Value) -> None:
    """Call void(float row[32]) at the address: it reads ce from places 0-7 and writes g to 8-15 and g' to 16-23.

    From place 24 on it reads the values of its parameters, if it has some.
    """
    kind = ir.FunctionType(ir.VoidType(), [row.type])
    builder.call(builder.inttoptr(function, kind.as_pointer()), [row])


# --- one vector ----------------------------------------------------------------------------------------------------


def _arithmetic(python: Callable[..., object], instruction: str) -> None:
    class Typing(ConcreteTemplate):  # type: ignore[misc]
        cases = [signature(kind, kind, kind) for kind in (F32x8, F32x16)]  # noqa: RUF012 (numba reads the attribute)

    infer_global(python)(Typing)
    lower_builtin(python, VectorType, VectorType)(
        lambda context, builder, signature, values: getattr(builder, instruction)(*values)
    )


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def _splat_of(builder: IRBuilder, scalar: Value, width: int) -> Value:
    unknown = ir.Constant(vector(width), ir.Undefined)
    one = builder.insert_element(unknown, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, unknown, ir.Constant(vector(width, _I32), [0] * width))


def _pick(builder: IRBuilder, a: Value, b: Value, places: Sequence[int]) -> Value:
    return builder.shuffle_vector(a, b, ir.Constant(vector(len(places), _I32), list(places)))


def _call(builder: IRBuilder, name: str, *values: Value) -> Value:
    kind, name = values[0].type, f"llvm.{name}.v{values[0].type.count}f32"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [kind] * len(values)), name)
    return builder.call(function, values)


def _of_width(kind: VectorType) -> tuple[Operation, Operation, Operation]:
    @operation(lambda address, index: kind)
    def load(builder: IRBuilder, address: Value, index: Value) -> Value:
        """Return the vector address[index : index + width]."""
        return _load_at(builder, builder.gep(address, [index]), kind.width)

    @operation(lambda value: kind)
    def splat(builder: IRBuilder, value: Value) -> Value:
        """Return a vector with this float32 in every place."""
        return _splat_of(builder, value, kind.width)

    @operation(lambda address, index, stride: BlockType(kind.width))
    def load_rows(builder: IRBuilder, address: Value, index: Value, stride: Value) -> Value:
        """Return the block of address[index + b * stride : ... + width] for each row b."""
        places = [_row_address(builder, address, index, stride, b) for b in range(ROWS)]
        return _pack(builder, [_load_at(builder, place, kind.width) for place in places])

    return load, splat, load_rows


load8, splat8, load_rows8 = _of_width(F32x8)
load16, splat16, load_rows16 = _of_width(F32x16)


@operation(_first)
def fma(builder: IRBuilder, a: Value, b: Value, c: Value) -> Value:
    """Return a * b + c with one rounding."""
    return _call(builder, "fma", a, b, c)


@operation(lambda a, b, yes, no: yes)
def greater(builder: IRBuilder, a: Value, b: Value, yes: Value, no: Value) -> Value:
    """Return ``yes`` where a > b, else ``no`` (so also where either is NaN)."""
    return builder.select(builder.fcmp_ordered(">", a, b), yes, no)


@operation(lambda a, b, yes, no: yes)
def equal(builder: IRBuilder, a: Value, b: Value, yes: Value, no: Value) -> Value:
    """Return ``yes`` where a == b, else ``no``."""
    return builder.select(builder.fcmp_ordered("==", a, b), yes, no)


@operation(lambda value: types.float32)
def total(builder: IRBuilder, value: Value) -> Value:
    """Return the sum of the eight places, by halves."""
    for half in (4, 2, 1):
        upper = _pick(builder, value, value, range(half, 2 * half))
        value = builder.fadd(_pick(builder, value, value, range(half)), upper)
    return builder.extract_element(value, ir.Constant(_I32, 0))


# --- exp and log of one vector. A float's own bits: 1 sign, 8 exponent (127 more than it is), 23 mantissa -----------


def _constant(value: Value, number: int) -> Value:
    return ir.Constant(vector(value.type.count, _I32), [number] * value.type.count)


@operation(_first)
def _nearest(builder: IRBuilder, value: Value) -> Value:
    """Return the nearest whole number."""
    return _call(builder, "rint", value)


@operation(_first)
def _power_of_two(builder: IRBuilder, exponent: Value) -> Value:
    """Return 2^exponent for a whole number in [-126, 127]."""
    bits = builder.fptosi(exponent, vector(exponent.type.count, _I32))
    bits = builder.shl(builder.add(bits, _constant(exponent, 127)), _constant(exponent, 23))
    return builder.bitcast(bits, exponent.type)


@operation(_first)
def _exponent(builder: IRBuilder, value: Value) -> Value:
    """Return e of a positive value = m * 2^e with m in [1, 2)."""
    bits = builder.bitcast(value, vector(value.type.count, _I32))
    bits = builder.sub(builder.lshr(bits, _constant(value, 23)), _constant(value, 127))
    return builder.sitofp(bits, value.type)


@operation(_first)
def _mantissa(builder: IRBuilder, value: Value) -> Value:
    """Return m of a positive value = m * 2^e with m in [1, 2)."""
    bits = builder.bitcast(value, vector(value.type.count, _I32))
    bits = builder.or_(builder.and_(bits, _constant(value, 0x7FFFFF)), _constant(value, 0x3F800000))
    return builder.bitcast(bits, value.type)


@jit
def exp8(x: Vec) -> Vec:
    """Return exp(x) for -87 <= x <= 0, within 1.5 units in the last place; exp(-87) = 1.6e-38 below and for NaN."""
    x = greater(x, splat8(_f(-87.0)), x, splat8(_f(-87.0)))
    n = _nearest(x * splat8(_f(1.4426950408889634)))
    r = fma(n, splat8(_f(-0.693359375)), x)  # ln 2 in two parts, the first exact in few bits
    r = fma(n, splat8(_f(2.12194440e-4)), r)
    p = fma(r, splat8(_f(1.9875691500e-4)), splat8(_f(1.3981999507e-3)))  # expf of the Cephes library (S. Moshier)
    p = fma(p, r, splat8(_f(8.3334519073e-3)))
    p = fma(p, r, splat8(_f(4.1665795894e-2)))
    p = fma(p, r, splat8(_f(1.6666665459e-1)))
    p = fma(p, r, splat8(_f(0.5)))
    return (fma(p * r, r, r) + splat8(_f(1.0))) * _power_of_two(n)


@jit
def log8(x: Vec) -> Vec:
    """Return log(x) for finite x >= 1, within 1.5 units in the last place; exactly 0 at 1."""
    e, m = _exponent(x), _mantissa(x)
    root = splat8(_f(1.4142135623730951))
    e = e + greater(m, root, splat8(_f(1.0)), splat8(_f(0.0)))
    f = greater(m, root, m * splat8(_f(0.5)), m) - splat8(_f(1.0))
    z = f * f
    p = fma(f, splat8(_f(7.0376836292e-2)), splat8(_f(-1.1514610310e-1)))  # logf of Cephes
    p = fma(p, f, splat8(_f(1.1676998740e-1)))
    p = fma(p, f, splat8(_f(-1.2420140846e-1)))
    p = fma(p, f, splat8(_f(1.4249322787e-1)))
    p = fma(p, f, splat8(_f(-1.6668057665e-1)))
    p = fma(p, f, splat8(_f(2.0000714765e-1)))
    p = fma(p, f, splat8(_f(-2.4999993993e-1)))
    p = fma(p, f, splat8(_f(3.3333331174e-1)))
    y = fma(e, splat8(_f(-2.12194440e-4)), p * f * z)
    y = fma(z, splat8(_f(-0.5)), y)
    return fma(e, splat8(_f(0.693359375)), f + y)


# --- a block: eight vectors ----------------------------------------------------------------------------------------


def _row_address(builder: IRBuilder, address: Value, index: Value, stride: Value, row: int) -> Value:
    return builder.gep(address, [builder.add(index, builder.mul(stride, ir.Constant(index.type, row)))])


def _pack(builder: IRBuilder, vectors: Sequence[Value]) -> Value:
    block = ir.Constant(ir.ArrayType(vectors[0].type, ROWS), ir.Undefined)
    for b, row in enumerate(vectors):
        block = builder.insert_value(block, row, b)
    return block


def _unpack(builder: IRBuilder, block: Value) -> list[Value]:
    return [builder.extract_value(block, b) for b in range(ROWS)]


def _scalars(builder: IRBuilder, address: Value, index: Value, width: int) -> list[Value]:
    places = [builder.add(index, ir.Constant(index.type, b)) for b in range(ROWS)]
    return [_splat_of(builder, builder.load(builder.gep(address, [place])), width) for place in places]


@operation(lambda value: BlockType(value.width))
def rows(builder: IRBuilder, value: Value) -> Value:
    """Return a block with this vector in each of its eight rows."""
    return _pack(builder, [value] * ROWS)


@operation(_nothing)
def store_rows(builder: IRBuilder, address: Value, index: Value, stride: Value, block: Value) -> None:
    """Set address[index + b * stride : ... + width] = block[b] for each row b."""
    for b, row in enumerate(_unpack(builder, block)):
        _store_at(builder, _row_address(builder, address, index, stride, b), row)


@operation(_first)
def add_scaled(builder: IRBuilder, block: Value, scalars: Value, index: Value, value: Value) -> Value:
    """Return block[b] + scalars[index + b] * value for each row b."""
    scales = _scalars(builder, scalars, index, value.type.count)
    both = zip(scales, _unpack(builder, block), strict=True)
    return _pack(builder, [_call(builder, "fma", scale, value, row) for scale, row in both])


@operation(_first)
def add_products(builder: IRBuilder, block: Value, address: Value, index: Value, stride: Value, value: Value) -> Value:
    """Return block[b] + address[index + b * stride : ... + width] * value for each row b."""
    width = value.type.count
    loaded = [_load_at(builder, _row_address(builder, address, index, stride, b), width) for b in range(ROWS)]
    both = zip(loaded, _unpack(builder, block), strict=True)
    return _pack(builder, [_call(builder, "fma", factor, value, row) for factor, row in both])


@operation(lambda block, scalars, index: VectorType(block.width))
def combine(builder: IRBuilder, block: Value, scalars: Value, index: Value) -> Value:
    """Return the sum over b of scalars[index + b] * block[b]: two chains of four, then their sum."""
    vectors = _unpack(builder, block)
    scales = _scalars(builder, scalars, index, vectors[0].type.count)
    halves = []
    for half in (range(4), range(4, ROWS)):
        chain = builder.fmul(scales[half[0]], vectors[half[0]])
        for b in half[1:]:
            chain = _call(builder, "fma", scales[b], vectors[b], chain)
        halves.append(chain)
    return builder.fadd(*halves)


@operation(lambda block: VectorType(block.width))
def add(builder: IRBuilder, block: Value) -> Value:
    """Return the sum of the eight rows, place by place."""
    r = _unpack(builder, block)
    while len(r) > 1:
        r = [builder.fadd(a, b) for a, b in zip(r[::2], r[1::2], strict=True)]
    return r[0]


@operation(lambda block: F32x8)
def row_totals(builder: IRBuilder, block: Value) -> Value:
    """Return the vector of the eight rows' sums, by three rounds of adding neighbours within 128 bits."""

    def neighbours(a: Value, b: Value) -> Value:
        even = _pick(builder, a, b, (0, 2, 8, 10, 4, 6, 12, 14))
        return builder.fadd(even, _pick(builder, a, b, (1, 3, 9, 11, 5, 7, 13, 15)))

    r = _unpack(builder, block)
    low = neighbours(neighbours(r[0], r[1]), neighbours(r[2], r[3]))
    high = neighbours(neighbours(r[4], r[5]), neighbours(r[6], r[7]))
    left = _pick(builder, low, high, (0, 1, 2, 3, 8, 9, 10, 11))
    return builder.fadd(left, _pick(builder, low, high, (4, 5, 6, 7, 12, 13, 14, 15)))


@operation(_first)
def transpose(builder: IRBuilder, block: Value) -> Value:
    """Return the transposed block of eight rows of eight: place b of row j becomes place j of row b."""
    r = _unpack(builder, block)
    for bit, low, high in (
        (1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)),
        (2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
        (4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
    ):
        for a in (b for b in range(ROWS) if not b & bit):
            pair = r[a], r[a | bit]
            r[a], r[a | bit] = _pick(builder, *pair, low), _pick(builder, *pair, high)
    return _pack(builder, r)


@operation(_first)
def where_positive(builder: IRBuilder, block: Value, gates: Value) -> Value:
    """Return block[b] where gates[b] > 0, else 0. A NaN gate lets values through, as torch's ReLU does."""
    out = []
    for value, gate in zip(_unpack(builder, block), _unpack(builder, gates), strict=True):
        zero = ir.Constant(value.type, [0.0] * value.type.count)
        out.append(builder.select(builder.fcmp_unordered(">", gate, zero), value, zero))
    return _pack(builder, out)
