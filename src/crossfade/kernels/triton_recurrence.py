"""Triton kernels for the recurrence, launched once for each token.

A program handles some rows and cells of one network.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

# Rows and cells of a program, and how many factors of a product it reads at once.
_FORWARD = {"ROWS": 64, "CELLS": 16, "PRODUCTS": 32, "num_warps": 4, "num_stages": 3}
_BACKWARD = {"ROWS": 32, "CELLS": 32, "PRODUCTS": 64, "num_warps": 4, "num_stages": 4}


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit  # type: ignore[untyped-decorator]
def _own(rows, ROWS: tl.constexpr, CELLS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a program's network, its rows (down) and its cells (across)."""
    tiles = tl.cdiv(rows, ROWS)
    member = (tl.program_id(0) // tiles).to(tl.int64)
    row = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
    cell = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    return member, row[:, None], cell[None, :]


@triton.jit
def _load_gates(gates, at, cells, mine):  # type: ignore[no-untyped-def]
    """Return i, f, g, o of a program's rows and cells."""
    i = tl.load(gates + at, mask=mine, other=0.0)
    f = tl.load(gates + at + cells, mask=mine, other=0.0)
    g = tl.load(gates + at + 2 * cells, mask=mine, other=0.0)
    return i, f, g, tl.load(gates + at + 3 * cells, mask=mine, other=0.0)


@triton.jit
def _store_gates(gates, at, cells, mine, i, f, g, o):  # type: ignore[no-untyped-def]
    tl.store(gates + at, i, mask=mine)
    tl.store(gates + at + cells, f, mask=mine)
    tl.store(gates + at + 2 * cells, g, mask=mine)
    tl.store(gates + at + 3 * cells, o, mask=mine)


@triton.jit(do_not_specialize=["t"])  # type: ignore[untyped-decorator]
def _forward_kernel(  # type: ignore[no-untyped-def]
    gates,
    weight,
    h,
    c,
    active,
    t,
    time,
    rows,
    cells,
    ROWS: tl.constexpr,
    CELLS: tl.constexpr,
    PRODUCTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    member, row, cell = _own(rows, ROWS, CELLS)
    mine = (row < rows) & (cell < cells)
    at = ((member * time + t) * rows + row) * 4 * cells + cell
    # The loads with the longest latency come first.
    in_i, in_f, in_g, in_o = _load_gates(gates, at, cells, mine)
    before = (member * (time + 1) + t) * rows * cells
    place = row * cells + cell
    c_before = tl.load(c + before + place, mask=mine, other=0.0)
    i = tl.zeros([ROWS, CELLS], tl.float32)
    f, g, o = i, i, i
    mine_w = weight + member * 4 * cells * cells + cell * cells
    for first in range(0, cells, PRODUCTS):
        k = first + tl.arange(0, PRODUCTS)
        state = tl.load(h + before + row * cells + k[None, :], mask=(row < rows) & (k[None, :] < cells), other=0.0)
        w, known = mine_w + k[:, None], (k[:, None] < cells) & (cell < cells)
        i = tl.dot(state, tl.load(w, mask=known, other=0.0), i, input_precision=PRECISION)
        f = tl.dot(state, tl.load(w + cells * cells, mask=known, other=0.0), f, input_precision=PRECISION)
        g = tl.dot(state, tl.load(w + 2 * cells * cells, mask=known, other=0.0), g, input_precision=PRECISION)
        o = tl.dot(state, tl.load(w + 3 * cells * cells, mask=known, other=0.0), o, input_precision=PRECISION)
    i, f, g, o = tl.sigmoid(i + in_i), tl.sigmoid(f + in_f), _tanh(g + in_g), tl.sigmoid(o + in_o)
    now = f * c_before + i * g
    after = before + rows * cells
    tl.store(c + after + place, now, mask=mine)
    tl.store(h + after + place, o * _tanh(now), mask=mine)
    _store_gates(active, at, cells, mine, i, f, g, o)


@triton.jit(do_not_specialize=["t"])  # type: ignore[untyped-decorator]
def _backward_kernel(  # type: ignore[no-untyped-def]
    weight,
    active,
    c,
    upstream,
    d_gates,
    d_c,
    t,
    time,
    rows,
    cells,
    ROWS: tl.constexpr,
    CELLS: tl.constexpr,
    PRODUCTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    member, row, cell = _own(rows, ROWS, CELLS)
    mine = (row < rows) & (cell < cells)
    place = row * cells + cell
    token = (member * time + t) * rows
    d_h = tl.load(upstream + token * cells + place, mask=mine, other=0.0)
    at = (token + row) * 4 * cells + cell
    i, f, g, o = _load_gates(active, at, cells, mine)
    before = c + (member * (time + 1) + t) * rows * cells + place
    c_before = tl.load(before, mask=mine, other=0.0)
    top = _tanh(tl.load(before + rows * cells, mask=mine, other=0.0))
    if t + 1 < time:
        later = d_gates + (token + rows + row) * 4 * cells
        mine_w = weight + member * 4 * cells * cells + cell
        for first in range(0, 4 * cells, PRODUCTS):
            k = first + tl.arange(0, PRODUCTS)
            d = tl.load(later + k[None, :], mask=(row < rows) & (k[None, :] < 4 * cells), other=0.0)
            w = tl.load(mine_w + k[:, None] * cells, mask=(k[:, None] < 4 * cells) & (cell < cells), other=0.0)
            d_h = tl.dot(d, w, d_h, input_precision=PRECISION)
    own = d_c + member * rows * cells + place
    d = tl.load(own, mask=mine, other=0.0) + d_h * o * (1.0 - top * top)
    tl.store(own, d * f, mask=mine)
    d_i, d_f = d * g * i * (1.0 - i), d * c_before * f * (1.0 - f)
    _store_gates(d_gates, at, cells, mine, d_i, d_f, d * i * (1.0 - g * g), d_h * top * o * (1.0 - o))


def forward(gates: Tensor, weight: Tensor, h: Tensor, c: Tensor, active: Tensor) -> None:
    """Fill the states h and c (n, time + 1, batch, cells), given at index 0, and the activated gates."""
    grid, options = _launch(_FORWARD, gates, weight)
    _, time, rows, _ = gates.shape
    for t in range(time):
        _forward_kernel[grid](gates, weight, h, c, active, t, time, rows, weight.shape[2], **options)


def backward(weight: Tensor, active: Tensor, c: Tensor, upstream: Tensor, d_gates: Tensor) -> None:
    """Fill ``d_gates`` (n, time, batch, 4 * cells), the gradient of the gates before their activation."""
    grid, options = _launch(_BACKWARD, active, weight)
    _, time, rows, _ = active.shape
    d_c = torch.zeros_like(c[:, 0])
    for t in reversed(range(time)):
        _backward_kernel[grid](weight, active, c, upstream, d_gates, d_c, t, time, rows, weight.shape[2], **options)


def _launch(tile: dict[str, int], gates: Tensor, weight: Tensor) -> tuple[tuple[int, int], dict[str, object]]:
    count, _, rows, _ = gates.shape
    height = min(tile["ROWS"], max(16, triton.next_power_of_2(rows)))
    precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
    grid = (count * triton.cdiv(rows, height), triton.cdiv(weight.shape[2], tile["CELLS"]))
    return grid, tile | {"ROWS": height, "PRECISION": precision}
