"""Eight vectors, one for each row of a block: the values that the kernel's accumulators are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.datamodel import models
from numba.extending import register_model

from crossfade.lab.train.tables.simd import (
    ROWS,
    F32x8,
    F32x16,
    Vector,
    call,
    first,
    load_at,
    nothing,
    operation,
    pick,
    splat_of,
    vector,
)


class Rows(types.Type):
    """Eight vectors, one for each row of a block."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"rows_f32x{width}")


@register_model(Rows)
class _RowsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Rows) -> None:
        super().__init__(manager, kind, ir.ArrayType(vector(kind.width), ROWS))


def _at(builder: Any, address: Any, index: Any, step: Any, count: int) -> Any:
    return builder.gep(address, [builder.add(index, builder.mul(step, ir.Constant(index.type, count)))])


def _pack(builder: Any, vectors: Sequence[Any]) -> Any:
    block = ir.Constant(ir.ArrayType(vectors[0].type, ROWS), ir.Undefined)
    for b, row in enumerate(vectors):
        block = builder.insert_value(block, row, b)
    return block


def _unpack(builder: Any, block: Any) -> list[Any]:
    return [builder.extract_value(block, b) for b in range(ROWS)]


def _same_rows(kind: Any, *_: Any) -> Any:
    return Rows(kind.width)


def _one_row(kind: Any, *_: Any) -> Any:
    return Vector(kind.width)


@operation(_same_rows)
def rows(builder: Any, value: Any) -> Any:
    """The same vector in each of the eight rows."""
    return _pack(builder, [value] * ROWS)


def _rows_loader(kind: Vector) -> Any:
    @operation(lambda address, index, stride: Rows(kind.width))
    def load_rows(builder: Any, address: Any, index: Any, stride: Any) -> Any:
        """address[index + b * stride : ... + width] for each row b."""
        return _pack(
            builder, [load_at(builder, _at(builder, address, index, stride, b), kind.width) for b in range(ROWS)]
        )

    return load_rows


load_rows8, load_rows16 = _rows_loader(F32x8), _rows_loader(F32x16)


@operation(nothing)
def store_rows(builder: Any, address: Any, index: Any, stride: Any, block: Any) -> None:
    """address[index + b * stride : ... + width] = block[b]"""
    for b, row in enumerate(_unpack(builder, block)):
        target = builder.bitcast(_at(builder, address, index, stride, b), row.type.as_pointer())
        builder.store(row, target).align = 4


def _scalars(builder: Any, address: Any, index: Any, width: int) -> list[Any]:
    places = [builder.add(index, ir.Constant(index.type, b)) for b in range(ROWS)]
    return [splat_of(builder, builder.load(builder.gep(address, [place])), width) for place in places]


@operation(first)
def add_scaled(builder: Any, block: Any, scalars: Any, index: Any, value: Any) -> Any:
    """block[b] + scalars[index + b] * value"""
    scales = _scalars(builder, scalars, index, value.type.count)
    both = zip(scales, _unpack(builder, block), strict=True)
    return _pack(builder, [call(builder, "fma", scale, value, row) for scale, row in both])


@operation(first)
def add_products(builder: Any, block: Any, address: Any, index: Any, stride: Any, value: Any) -> Any:
    """block[b] + address[index + b * stride : ... + width] * value, place by place"""
    width = value.type.count
    loaded = [load_at(builder, _at(builder, address, index, stride, b), width) for b in range(ROWS)]
    both = zip(loaded, _unpack(builder, block), strict=True)
    return _pack(builder, [call(builder, "fma", factor, value, row) for factor, row in both])


@operation(_one_row)
def combine(builder: Any, block: Any, scalars: Any, index: Any) -> Any:
    """The sum over b of scalars[index + b] * block[b]: two chains of four, then their sum."""
    vectors = _unpack(builder, block)
    scales = _scalars(builder, scalars, index, vectors[0].type.count)
    halves = []
    for half in (range(4), range(4, ROWS)):
        chain = builder.fmul(scales[half[0]], vectors[half[0]])
        for b in half[1:]:
            chain = call(builder, "fma", scales[b], vectors[b], chain)
        halves.append(chain)
    return builder.fadd(*halves)


@operation(_one_row)
def add(builder: Any, block: Any) -> Any:
    """The sum of the eight rows, place by place."""
    r = _unpack(builder, block)
    while len(r) > 1:
        r = [builder.fadd(a, b) for a, b in zip(r[::2], r[1::2], strict=True)]
    return r[0]


@operation(lambda block: F32x8)
def row_totals(builder: Any, block: Any) -> Any:
    """(sum of block[0], ..., sum of block[7]): three rounds of adding neighbours, lanes of 128 bits kept whole."""

    def neighbours(a: Any, b: Any) -> Any:
        even = pick(builder, a, b, (0, 2, 8, 10, 4, 6, 12, 14))
        return builder.fadd(even, pick(builder, a, b, (1, 3, 9, 11, 5, 7, 13, 15)))

    r = _unpack(builder, block)
    low = neighbours(neighbours(r[0], r[1]), neighbours(r[2], r[3]))
    high = neighbours(neighbours(r[4], r[5]), neighbours(r[6], r[7]))
    left = pick(builder, low, high, (0, 1, 2, 3, 8, 9, 10, 11))
    return builder.fadd(left, pick(builder, low, high, (4, 5, 6, 7, 12, 13, 14, 15)))


@operation(first)
def transpose(builder: Any, block: Any) -> Any:
    """Eight rows of eight, turned: place b of row j becomes place j of row b."""
    r = _unpack(builder, block)
    for bit, low, high in (
        (1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)),
        (2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
        (4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
    ):
        for a in (b for b in range(ROWS) if not b & bit):
            pair = r[a], r[a | bit]
            r[a], r[a | bit] = pick(builder, *pair, low), pick(builder, *pair, high)
    return _pack(builder, r)


@operation(first)
def where_positive(builder: Any, block: Any, gates: Any) -> Any:
    """block[b] where gates[b] > 0, else 0. A NaN gate lets through, as torch's ReLU does."""
    out = []
    for value, gate in zip(_unpack(builder, block), _unpack(builder, gates), strict=True):
        zero = ir.Constant(value.type, [0.0] * value.type.count)
        out.append(builder.select(builder.fcmp_unordered(">", gate, zero), value, zero))
    return _pack(builder, out)


@operation(nothing)
def call_loss(builder: Any, function: Any, row: Any) -> None:
    """Call void(float row[24]) at the address: it reads ce from places 0-7 and writes g to 8-15 and g' to 16-23."""
    kind = ir.FunctionType(ir.VoidType(), [row.type])
    builder.call(builder.inttoptr(function, kind.as_pointer()), [row])
