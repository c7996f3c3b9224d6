"""What the LSTM kernel does cell by cell, eight at a time: activations, their gradient, and Adam."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfade.lab.train.lstm_tiles import sigmoid8, sqrt8, tanh8
from crossfade.lab.train.simd import fma, jit, load8, splat8, store

_f = np.float32


@jit
def activate(gates: Any, before: Any, lanes: int, count: int, cell: Any, tanh: Any, out: Any) -> None:
    """Gates i, f, g, o in place; c = f * before + i * g, tanh(c) and the output o * tanh(c)."""
    for r in range(count):
        for j in range(0, lanes, 8):
            at, here = r * 4 * lanes + j, r * lanes + j
            i, f = sigmoid8(load8(gates, at)), sigmoid8(load8(gates, at + lanes))
            g, o = tanh8(load8(gates, at + 2 * lanes)), sigmoid8(load8(gates, at + 3 * lanes))
            c = fma(f, load8(before, here), i * g)
            t = tanh8(c)
            store(gates, at, i)
            store(gates, at + lanes, f)
            store(gates, at + 2 * lanes, g)
            store(gates, at + 3 * lanes, o)
            store(cell, here, c)
            store(tanh, here, t)
            store(out, here, o * t)


@jit
def deactivate(gates: Any, before: Any, tanh: Any, lanes: int, count: int, d_out: Any, d_cell: Any) -> None:
    """The gradient of the gates before their activation, in place; that of the earlier cell to ``d_cell``."""
    one = splat8(_f(1.0))
    for r in range(count):
        for j in range(0, lanes, 8):
            at, here = r * 4 * lanes + j, r * lanes + j
            i, f = load8(gates, at), load8(gates, at + lanes)
            g, o = load8(gates, at + 2 * lanes), load8(gates, at + 3 * lanes)
            t, dh = load8(tanh, here), load8(d_out, here)
            dc = fma(dh * o, one - t * t, load8(d_cell, here))
            store(gates, at, dc * g * (i * (one - i)))
            store(gates, at + lanes, dc * load8(before, here) * (f * (one - f)))
            store(gates, at + 2 * lanes, dc * i * (one - g * g))
            store(gates, at + 3 * lanes, dh * t * (o * (one - o)))
            store(d_cell, here, dc * f)


@jit
def scatter(gates: Any, slots: Any, wide: int, count: int, out: Any) -> None:
    """out[slots[row]] += gates[row]"""
    for r in range(count):
        to = slots[r] * wide
        for j in range(0, wide, 8):
            store(out, to + j, load8(out, to + j) + load8(gates, r * wide + j))


@jit
def add_rows(source: Any, width: int, count: int, out: Any) -> None:
    """out += the sum of the rows"""
    for j in range(0, width, 8):
        sums = load8(out, j)
        for r in range(count):
            sums = sums + load8(source, r * width + j)
        store(out, j, sums)


@jit
def add_to(out: Any, source: Any, count: int) -> None:
    for i in range(0, count, 8):
        store(out, i, load8(out, i) + load8(source, i))


@jit
def clear(out: Any, count: int) -> None:
    for i in range(0, count, 8):
        store(out, i, splat8(_f(0.0)))


@jit
def squares(values: Any, count: int) -> float:
    """The sum of squares, in float64."""
    sums = 0.0
    for i in range(count):
        sums += np.float64(values[i]) * np.float64(values[i])
    return sums


@jit
def adam(p: Any, m: Any, v: Any, at: int, gradient: Any, rule: Any) -> None:
    """One step of ``torch.optim.Adam`` for eight weights; ``rule`` = (step size, 1 / sqrt(1 - beta2^t))."""
    mean = load8(m, at)
    mean = fma(gradient - mean, splat8(_f(0.1)), mean)
    square = fma(gradient * gradient, splat8(_f(0.001)), load8(v, at) * splat8(_f(0.999)))
    store(m, at, mean)
    store(v, at, square)
    step = mean / fma(sqrt8(square), splat8(rule[1]), splat8(_f(1e-8)))
    store(p, at, fma(splat8(-rule[0]), step, load8(p, at)))


@jit
def adam_dense(p: Any, m: Any, v: Any, gradient: Any, scale: Any, count: int, rule: Any) -> None:
    for i in range(0, count, 8):
        adam(p, m, v, i, load8(gradient, i) * splat8(scale), rule)


@jit
def adam_rows(p: Any, m: Any, v: Any, slots: Any, rows: int, width: int, gradient: Any, scale: Any, rule: Any) -> None:
    """Row r's gradient is row slots[r]; where that is -1 it is zero, and the row still moves by its earlier ones."""
    for r in range(rows):
        if slots[r] < 0:
            for j in range(0, width, 8):
                adam(p, m, v, r * width + j, splat8(_f(0.0)), rule)
        else:
            for j in range(0, width, 8):
                adam(p, m, v, r * width + j, load8(gradient, slots[r] * width + j) * splat8(scale), rule)
