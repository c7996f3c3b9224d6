"""The LSTM kernel's matrix products: loops over tiles of three rows. Rows are always a multiple of three.

====================  =======================================  ====================================================
``to_gates``          gates += inputs * panel                  inputs are walked, gates lie in the lanes
``from_gates``        inputs' gradient = gates' * panel        gates are walked, inputs lie in the lanes
``to_weights``        weights' gradient += inputs' * gates'    summed over rows; inputs walked, gates in the lanes
====================  =======================================  ====================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crossfade.lab.train.lstm.tiles import HEIGHT, grow, load_wide, store_tile, tile_loader, tile_of
from crossfade.lab.train.tables.simd import WIDE, jit, offset, store

PACKED = 96  # rows: with their gates a quarter to a half of the first-level cache


@jit
def rest_vectors(cells: int) -> int:
    """How many vectors the gates of the last, fewer than ``WIDE`` cells fill."""
    return (4 * (cells % WIDE) + WIDE - 1) // WIDE


def _by_width(make: Callable[[int], Any]) -> Any:
    """``loop(width, ...)``: what ``make`` makes for tiles of one to four vectors; nothing for none."""
    one, two, three, four = (make(width) for width in (1, 2, 3, 4))

    @jit
    def loop(width: int, *arguments: Any) -> None:
        if width == 4:
            four(*arguments)
        elif width == 3:
            three(*arguments)
        elif width == 2:
            two(*arguments)
        elif width == 1:
            one(*arguments)

    return loop


@jit
def _vectors(group: int, cells: int) -> int:
    """How many vectors the gates of a group of cells fill: four, and fewer where the last has fewer cells."""
    return 4 if group < cells // WIDE else rest_vectors(cells)


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


_forward = _by_width(_forward_loop)


@jit
def to_gates(
    start: Any, slots: Any, bias: Any, x: Any, x_stride: int, inputs: int, x_panel: Any, h: Any, lanes: int,
    walked: int, h_panel: Any, cells: int, wide: int, count: int, out: Any,
) -> None:  # fmt: skip
    """out [row, gate place] = start + x * panel + h * panel.

    ``start`` is row slots[row] of [slot, gate place] where ``inputs`` is 0, else the bias. ``walked`` is how many of h
    are taken: all cells, or none.
    """
    for g in range(cells // WIDE + 1):
        place = g * 4 * WIDE
        _forward(
            _vectors(g, cells), start, slots, bias, x, x_stride, inputs, offset(x_panel, inputs * place), h, lanes,
            walked, offset(h_panel, cells * place), wide, count, out, place,
        )  # fmt: skip


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


_weights = _by_width(_weights_loop)


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
        for g in range(cells // WIDE + 1):
            _weights(_vectors(g, cells), x_here, stride, inputs, gates_here, wide, rows, out, 4 * WIDE * g, packed)


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


_back = _by_width(_back_loop)


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
        _back(width, gates, cells, wide, offset(panels, from_here), zero, count, out, place, to)
        from_here += 4 * cells * WIDE * width
        place += WIDE * width


@jit
def forward_panels(weights: Any, inputs: int, cells: int, wide: int, out: Any) -> None:
    """From [input, gate place] to [group of cells, input, the group's gate places]."""
    at, place = 0, 0
    for g in range(cells // WIDE + 1):
        vectors = _vectors(g, cells)
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
