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


@jit
def rest_vectors(cells: int) -> int:
    """How many vectors the gates of the last, fewer than ``WIDE`` cells fill."""
    return (4 * (cells % WIDE) + WIDE - 1) // WIDE


def _forward_loop(width: int) -> Any:
    load, spread = tile_loader(width), tile_of(width)

    @jit
    def loop(
        start: Any, slots: Any, bias: Any, x: Any, x_stride: int, inputs: int, x_panel: Any, h: Any, lanes: int,
        walked: int, h_panel: Any, wide: int, count: int, out: Any, place: int,
    ) -> None:  # fmt: skip
        for r in range(0, count, HEIGHT):
            if inputs == 0:
                a, b, c = slots[r] * wide, slots[r + 1] * wide, slots[r + 2] * wide
                tile = load(start, a + place, b + place, c + place, WIDE)
            else:
                tile = spread(bias, place, WIDE)
                for k in range(inputs):
                    tile = grow(tile, x, r * x_stride + k, x_stride, x_panel, k * width * WIDE, WIDE)
            for k in range(walked):
                tile = grow(tile, h, r * lanes + k, lanes, h_panel, k * width * WIDE, WIDE)
            store_tile(out, r * wide + place, wide, WIDE, tile)

    return loop


_forward1, _forward2, _forward3, _forward4 = (_forward_loop(width) for width in (1, 2, 3, 4))


@jit
def to_gates(
    start: Any, slots: Any, bias: Any, x: Any, x_stride: int, inputs: int, x_panel: Any, h: Any, lanes: int,
    walked: int, h_panel: Any, cells: int, wide: int, count: int, out: Any,
) -> None:  # fmt: skip
    """out [row, gate place] = start + x * panel + h * panel.

    ``start`` is row slots[row] of [slot, gate place] where ``inputs`` is 0, else the bias. ``walked`` is how many of h
    are taken: all cells, or none.
    """
    group = 4 * WIDE
    for g in range(cells // WIDE):
        _forward4(
            start, slots, bias, x, x_stride, inputs, offset(x_panel, g * inputs * group), h, lanes, walked,
            offset(h_panel, g * cells * group), wide, count, out, g * group,
        )  # fmt: skip
    whole, left = cells // WIDE, rest_vectors(cells)
    x_panel, h_panel, place = (
        offset(x_panel, whole * inputs * group),
        offset(h_panel, whole * cells * group),
        whole * group,
    )
    if left == 1:
        _forward1(start, slots, bias, x, x_stride, inputs, x_panel, h, lanes, walked, h_panel, wide, count, out, place)
    elif left == 2:
        _forward2(start, slots, bias, x, x_stride, inputs, x_panel, h, lanes, walked, h_panel, wide, count, out, place)
    elif left == 3:
        _forward3(start, slots, bias, x, x_stride, inputs, x_panel, h, lanes, walked, h_panel, wide, count, out, place)
    elif left == 4:
        _forward4(start, slots, bias, x, x_stride, inputs, x_panel, h, lanes, walked, h_panel, wide, count, out, place)


def _weights_loop(width: int) -> Any:
    load = tile_loader(width)

    @jit
    def loop(
        x: Any, stride: int, inputs: int, gates: Any, wide: int, rows: int, out: Any, place: int, packed: Any
    ) -> None:
        for r in range(rows):
            for q in range(width):
                store(packed, (r * width + q) * WIDE, load_wide(gates, r * wide + place + q * WIDE))
        for k in range(0, inputs, HEIGHT):
            at = k * wide + place
            tile = load(out, at, at + wide, at + 2 * wide, WIDE)
            for r in range(rows):
                tile = grow(tile, x, r * stride + k, 1, packed, r * width * WIDE, WIDE)
            store_tile(out, at, wide, WIDE, tile)

    return loop


_weights1, _weights2, _weights3, _weights4 = (_weights_loop(width) for width in (1, 2, 3, 4))


@jit
def to_weights(
    x: Any, stride: int, inputs: int, gates: Any, cells: int, wide: int, count: int, out: Any, packed: Any
) -> None:
    """out [input, gate place] += sum over rows of x [row, input] * gates [row, gate place].

    ``packed`` has room for ``PACKED`` rows of a tile's gates. Where rows are a power of two apart they fall on the same
    few lines of the first-level cache and would drive each other out.
    """
    for start in range(0, count, PACKED):
        rows, x_here, gates_here = min(PACKED, count - start), offset(x, start * stride), offset(gates, start * wide)
        for g in range(cells // WIDE):
            _weights4(x_here, stride, inputs, gates_here, wide, rows, out, 4 * WIDE * g, packed)
        place, left = 4 * WIDE * (cells // WIDE), rest_vectors(cells)
        if left == 1:
            _weights1(x_here, stride, inputs, gates_here, wide, rows, out, place, packed)
        elif left == 2:
            _weights2(x_here, stride, inputs, gates_here, wide, rows, out, place, packed)
        elif left == 3:
            _weights3(x_here, stride, inputs, gates_here, wide, rows, out, place, packed)
        elif left == 4:
            _weights4(x_here, stride, inputs, gates_here, wide, rows, out, place, packed)


def _back_loop(width: int) -> Any:
    spread = tile_of(width)

    @jit
    def loop(
        gates: Any, cells: int, wide: int, panel: Any, zero: Any, count: int, out: Any, place: int, to: int
    ) -> None:
        for r in range(0, count, HEIGHT):
            tile = spread(zero, 0, 0)
            for k in range(4 * cells):
                tile = grow(tile, gates, r * wide + k, wide, panel, k * WIDE * width, WIDE)
            store_tile(out, r * to + place, to, WIDE, tile)

    return loop


_back1, _back2, _back3, _back4 = (_back_loop(width) for width in (1, 2, 3, 4))


@jit
def panel_width(vectors: int) -> int:
    """How many of the vectors that are left the next panel takes: four or three wherever that leaves no single one."""
    if vectors >= 4 and vectors != 5:
        return 4
    return min(vectors, 3)


@jit
def from_gates(gates: Any, cells: int, wide: int, panels: Any, zero: Any, count: int, out: Any, to: int) -> None:
    """out [row, input] = gates [row, gate place] * panels; ``to`` places a row."""
    from_here, place = 0, 0
    while place < to:
        width = panel_width((to - place) // WIDE)
        panel = offset(panels, from_here)
        if width == 4:
            _back4(gates, cells, wide, panel, zero, count, out, place, to)
        elif width == 3:
            _back3(gates, cells, wide, panel, zero, count, out, place, to)
        elif width == 2:
            _back2(gates, cells, wide, panel, zero, count, out, place, to)
        else:
            _back1(gates, cells, wide, panel, zero, count, out, place, to)
        from_here += 4 * cells * WIDE * width
        place += WIDE * width


@jit
def forward_panels(weights: Any, inputs: int, cells: int, wide: int, out: Any) -> None:
    """From [input, gate place] to [group of cells, input, the group's gate places]."""
    at, place = 0, 0
    for g in range(cells // WIDE + 1):
        vectors = 4 if g < cells // WIDE else rest_vectors(cells)
        for k in range(inputs):
            for q in range(vectors):
                store(out, at, load_wide(weights, k * wide + place + q * WIDE))
                at += WIDE
        place += vectors * WIDE


@jit
def backward_panels(weights: Any, in_lanes: int, cells: int, wide: int, out: Any) -> None:
    """From [input, gate place] to [panel, gate place, input of the panel]."""
    place, at = 0, 0
    while place < in_lanes:
        width = WIDE * panel_width((in_lanes - place) // WIDE)
        for k in range(4 * cells):
            for j in range(width):
                out[at + j] = weights[(place + j) * wide + k]
            at += width
        place += width
