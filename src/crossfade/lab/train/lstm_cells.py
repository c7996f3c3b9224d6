"""What the LSTM kernel does cell by cell, a vector at a time: activations, their gradient, and Adam."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfade.lab.train.lstm_tiles import load_wide, sigmoid, splat_wide, square_root, tanh
from crossfade.lab.train.simd import WIDE, fma, jit, store

_f = np.float32


@jit
def activate(gates: Any, before: Any, lanes: int, count: int, cell: Any, cell_tanh: Any, out: Any) -> None:
    """Gates i, f, g, o in place; c = f * before + i * g, tanh(c) and the output o * tanh(c)."""
    for r in range(count):
        for j in range(0, lanes, WIDE):
            at, here = r * 4 * lanes + j, r * lanes + j
            i, f = sigmoid(load_wide(gates, at)), sigmoid(load_wide(gates, at + lanes))
            g, o = tanh(load_wide(gates, at + 2 * lanes)), sigmoid(load_wide(gates, at + 3 * lanes))
            c = fma(f, load_wide(before, here), i * g)
            t = tanh(c)
            store(gates, at, i)
            store(gates, at + lanes, f)
            store(gates, at + 2 * lanes, g)
            store(gates, at + 3 * lanes, o)
            store(cell, here, c)
            store(cell_tanh, here, t)
            store(out, here, o * t)


@jit
def deactivate(gates: Any, before: Any, cell_tanh: Any, lanes: int, count: int, d_out: Any, d_cell: Any) -> None:
    """The gradient of the gates before their activation, in place; that of the earlier cell to ``d_cell``."""
    one = splat_wide(_f(1.0))
    for r in range(count):
        for j in range(0, lanes, WIDE):
            at, here = r * 4 * lanes + j, r * lanes + j
            i, f = load_wide(gates, at), load_wide(gates, at + lanes)
            g, o = load_wide(gates, at + 2 * lanes), load_wide(gates, at + 3 * lanes)
            t, dh = load_wide(cell_tanh, here), load_wide(d_out, here)
            dc = fma(dh * o, one - t * t, load_wide(d_cell, here))
            store(gates, at, dc * g * (i * (one - i)))
            store(gates, at + lanes, dc * load_wide(before, here) * (f * (one - f)))
            store(gates, at + 2 * lanes, dc * i * (one - g * g))
            store(gates, at + 3 * lanes, dh * t * (o * (one - o)))
            store(d_cell, here, dc * f)


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
