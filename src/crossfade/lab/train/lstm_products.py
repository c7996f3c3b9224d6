"""The LSTM kernel's matrix products: loops over tiles of three rows. Rows are always a multiple of three.

====================  =======================================  ====================================================
``to_gates``          gates += inputs * panel                  inputs are walked, gates lie in the lanes
``from_gates``        inputs' gradient = gates' * panel        gates are walked, inputs lie in the lanes
``to_weights``        weights' gradient += inputs' * gates'    summed over rows; inputs walked, gates in the lanes
====================  =======================================  ====================================================
"""

from __future__ import annotations

from typing import Any

from crossfade.lab.train.lstm_tiles import HEIGHT, grow, load_wide, store_tile, tile_loader, tile_of
from crossfade.lab.train.simd import WIDE, jit, offset, store

PACKED = 96  # rows: with their gates a quarter to a half of the first-level cache
_load4, _spread4 = tile_loader(4), tile_of(4)


@jit
def to_gates(
    start: Any, slots: Any, bias: Any, x: Any, x_stride: int, inputs: int, x_panel: Any, h: Any, cells: int,
    h_panel: Any, lanes: int, count: int, out: Any,
) -> None:  # fmt: skip
    """out [row, gate place] = start + x * panel + h * panel.

    ``start`` is row slots[row] of [slot, gate place] where ``inputs`` is 0, else the bias. ``cells`` 0 leaves h out.
    """
    wide = 4 * lanes
    for g in range(lanes // WIDE):
        for r in range(0, count, HEIGHT):
            if inputs == 0:
                a, b, c = slots[r] * wide, slots[r + 1] * wide, slots[r + 2] * wide
                tile = _load4(start, a + WIDE * g, b + WIDE * g, c + WIDE * g, lanes)
            else:
                tile = _spread4(bias, WIDE * g, lanes)
                for k in range(inputs):
                    tile = grow(tile, x, r * x_stride + k, x_stride, x_panel, (g * inputs + k) * 4 * WIDE, WIDE)
            for k in range(cells):
                tile = grow(tile, h, r * lanes + k, lanes, h_panel, (g * cells + k) * 4 * WIDE, WIDE)
            store_tile(out, r * wide + WIDE * g, wide, lanes, tile)


@jit
def to_weights(x: Any, stride: int, inputs: int, gates: Any, lanes: int, count: int, out: Any, packed: Any) -> None:
    """out [input, gate place] += sum over rows of x [row, input] * gates [row, gate place].

    ``packed`` has room for ``PACKED`` rows of a tile's gates. Where rows are a power of two apart, as with 64 lanes,
    they fall on the same few lines of the first-level cache and would drive each other out.
    """
    wide = 4 * lanes
    for start in range(0, count, PACKED):
        rows = min(PACKED, count - start)
        for g in range(lanes // WIDE):
            for r in range(rows):
                for q in range(4):
                    store(packed, (r * 4 + q) * WIDE, load_wide(gates, (start + r) * wide + q * lanes + WIDE * g))
            for k in range(0, inputs, HEIGHT):
                at = k * wide + WIDE * g
                tile = _load4(out, at, at + wide, at + 2 * wide, lanes)
                for r in range(rows):
                    tile = grow(tile, x, (start + r) * stride + k, 1, packed, r * 4 * WIDE, WIDE)
                store_tile(out, at, wide, lanes, tile)


def _back_loop(width: int) -> Any:
    spread = tile_of(width)

    @jit
    def back(
        gates: Any, cells: int, lanes: int, panel: Any, zero: Any, count: int, out: Any, place: int, to: int
    ) -> None:
        wide = 4 * lanes
        for r in range(0, count, HEIGHT):
            tile = spread(zero, 0, 0)
            for q in range(4):
                for k in range(cells):
                    at = (q * cells + k) * WIDE * width
                    tile = grow(tile, gates, r * wide + q * lanes + k, wide, panel, at, WIDE)
            store_tile(out, r * to + place, to, WIDE, tile)

    return back


_back1, _back2, _back3, _back4 = (_back_loop(width) for width in (1, 2, 3, 4))


@jit
def panel_width(vectors: int) -> int:
    """How many of the vectors that are left the next panel takes: four or three wherever that leaves no single one."""
    if vectors >= 4 and vectors != 5:
        return 4
    return min(vectors, 3)


@jit
def from_gates(gates: Any, cells: int, lanes: int, panels: Any, zero: Any, count: int, out: Any, to: int) -> None:
    """out [row, input] = gates [row, gate place] * panels; ``to`` places a row."""
    from_here, place = 0, 0
    while place < to:
        width = panel_width((to - place) // WIDE)
        panel = offset(panels, from_here)
        if width == 4:
            _back4(gates, cells, lanes, panel, zero, count, out, place, to)
        elif width == 3:
            _back3(gates, cells, lanes, panel, zero, count, out, place, to)
        elif width == 2:
            _back2(gates, cells, lanes, panel, zero, count, out, place, to)
        else:
            _back1(gates, cells, lanes, panel, zero, count, out, place, to)
        from_here += 4 * cells * WIDE * width
        place += WIDE * width


@jit
def forward_panels(weights: Any, inputs: int, lanes: int, out: Any) -> None:
    """From [input, gate place] to [WIDE cells, input, gate, cell of these]."""
    for g in range(lanes // WIDE):
        for k in range(inputs):
            for q in range(4):
                to, at = ((g * inputs + k) * 4 + q) * WIDE, (k * 4 + q) * lanes + WIDE * g
                store(out, to, load_wide(weights, at))


@jit
def backward_panels(weights: Any, in_lanes: int, cells: int, lanes: int, out: Any) -> None:
    """From [input, gate place] to [panel, gate and cell, input of the panel]."""
    place, at = 0, 0
    while place < in_lanes:
        width = WIDE * panel_width((in_lanes - place) // WIDE)
        for q in range(4):
            for k in range(cells):
                for j in range(width):
                    out[at + j] = weights[((place + j) * 4 + q) * lanes + k]
                at += width
        place += width
