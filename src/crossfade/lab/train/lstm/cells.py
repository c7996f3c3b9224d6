"""What the LSTM kernel does cell by cell, a vector at a time: activations, their gradient, and Adam."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfade.lab.train.lstm.tiles import load_wide, sigmoid, splat_wide, square_root, tanh
from crossfade.lab.train.tables.simd import WIDE, fma, greater, jit, store

_f = np.float32


@jit
def _gates_on(gates: Any, at: int, apart: int) -> Any:
    """i, f, g, o of a vector of cells after their activation."""
    i, f = sigmoid(load_wide(gates, at)), sigmoid(load_wide(gates, at + apart))
    return i, f, tanh(load_wide(gates, at + 2 * apart)), sigmoid(load_wide(gates, at + 3 * apart))


@jit
def _store_gates(gates: Any, at: int, apart: int, i: Any, f: Any, g: Any, o: Any) -> None:
    # In this order: where the gates are closer than a vector, each overwrites what the one before wrote too much.
    store(gates, at, i)
    store(gates, at + apart, f)
    store(gates, at + 2 * apart, g)
    store(gates, at + 3 * apart, o)


@jit
def _of_cells(value: Any, apart: int, mask: Any) -> Any:
    """Zero beyond the last cell, where there are fewer than a vector of them."""
    if apart < WIDE:
        zero = splat_wide(_f(0.0))
        return greater(load_wide(mask, 0), zero, value, zero)
    return value


@jit
def activate(
    gates: Any, before: Any, cells: int, lanes: int, wide: int, count: int, mask: Any, cell: Any, cell_tanh: Any,
    out: Any,
) -> None:  # fmt: skip
    """Gates i, f, g, o in place; c = f * before + i * g, tanh(c) and the output o * tanh(c)."""
    for r in range(count):
        for j in range(0, cells, WIDE):
            at, here, apart = r * wide + 4 * j, r * lanes + j, min(WIDE, cells - j)
            i, f, g, o = _gates_on(gates, at, apart)
            c = _of_cells(fma(f, load_wide(before, here), i * g), apart, mask)
            t = tanh(c)
            _store_gates(gates, at, apart, i, f, g, o)
            store(cell, here, c)
            store(cell_tanh, here, t)
            store(out, here, o * t)


@jit
def _gates_back(gates: Any, at: int, apart: int, before: Any, t: Any, dh: Any, d_cell: Any) -> Any:
    """The gradient of the gates of a vector of cells before their activation, and that of the earlier cell."""
    one = splat_wide(_f(1.0))
    i, f = load_wide(gates, at), load_wide(gates, at + apart)
    g, o = load_wide(gates, at + 2 * apart), load_wide(gates, at + 3 * apart)
    dc = fma(dh * o, one - t * t, d_cell)
    d_i, d_f = dc * g * (i * (one - i)), dc * before * (f * (one - f))
    return d_i, d_f, dc * i * (one - g * g), dh * t * (o * (one - o)), dc * f


@jit
def deactivate(
    gates: Any, before: Any, cell_tanh: Any, cells: int, lanes: int, wide: int, count: int, mask: Any, d_out: Any,
    d_cell: Any,
) -> None:  # fmt: skip
    """The gradient of the gates before their activation, in place, zeros after the last; the cell's to ``d_cell``."""
    for r in range(count):
        for j in range(0, cells, WIDE):
            at, here, apart = r * wide + 4 * j, r * lanes + j, min(WIDE, cells - j)
            t, dh, dc = load_wide(cell_tanh, here), load_wide(d_out, here), load_wide(d_cell, here)
            i, f, g, o, dc = _gates_back(gates, at, apart, load_wide(before, here), t, dh, dc)
            _store_gates(gates, at, apart, i, f, g, _of_cells(o, apart, mask))
            store(d_cell, here, _of_cells(dc, apart, mask))


@jit
def scatter(gates: Any, slots: Any, wide: int, count: int, out: Any) -> None:
    """out[slots[row]] += gates[row]"""
    for r in range(count):
        to = slots[r] * wide
        for j in range(0, wide, WIDE):
            store(out, to + j, load_wide(out, to + j) + load_wide(gates, r * wide + j))


@jit
def add_rows(source: Any, width: int, count: int, out: Any) -> None:
    """out += the sum of the rows"""
    for j in range(0, width, WIDE):
        sums = load_wide(out, j)
        for r in range(count):
            sums = sums + load_wide(source, r * width + j)
        store(out, j, sums)


@jit
def add_to(out: Any, source: Any, count: int) -> None:
    for i in range(0, count, WIDE):
        store(out, i, load_wide(out, i) + load_wide(source, i))


@jit
def clear(out: Any, count: int) -> None:
    for i in range(0, count, WIDE):
        store(out, i, splat_wide(_f(0.0)))


@jit
def squares(values: Any, count: int) -> float:
    """The sum of squares, in float64."""
    sums = 0.0
    for i in range(count):
        sums += np.float64(values[i]) * np.float64(values[i])
    return sums


@jit
def adam(p: Any, m: Any, v: Any, at: int, gradient: Any, rule: Any) -> None:
    """One step of ``torch.optim.Adam`` for a vector of weights; ``rule`` = (step size, 1 / sqrt(1 - beta2^t))."""
    mean = load_wide(m, at)
    mean = fma(gradient - mean, splat_wide(_f(0.1)), mean)
    square = fma(gradient * gradient, splat_wide(_f(0.001)), load_wide(v, at) * splat_wide(_f(0.999)))
    store(m, at, mean)
    store(v, at, square)
    step = mean / fma(square_root(square), splat_wide(rule[1]), splat_wide(_f(1e-8)))
    store(p, at, fma(splat_wide(-rule[0]), step, load_wide(p, at)))


@jit
def adam_dense(p: Any, m: Any, v: Any, gradient: Any, scale: Any, count: int, rule: Any) -> None:
    for i in range(0, count, WIDE):
        adam(p, m, v, i, load_wide(gradient, i) * splat_wide(scale), rule)


@jit
def adam_rows(p: Any, m: Any, v: Any, slots: Any, rows: int, width: int, gradient: Any, scale: Any, rule: Any) -> None:
    """Row r's gradient is row slots[r]; where that is -1 it is zero, and the row still moves by its earlier ones."""
    for r in range(rows):
        if slots[r] < 0:
            for j in range(0, width, WIDE):
                adam(p, m, v, r * width + j, splat_wide(_f(0.0)), rule)
        else:
            for j in range(0, width, WIDE):
                adam(p, m, v, r * width + j, load_wide(gradient, slots[r] * width + j) * splat_wide(scale), rule)
