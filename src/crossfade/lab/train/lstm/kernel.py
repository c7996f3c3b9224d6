"""A step of one LSTM classifier, compiled, on one thread: forward, loss, backward, Adam.

A batch is sorted by length, so at each time the texts that go on are its first rows, and nothing is computed for
padding (but for a row or two that fill up a tile). A token's part of the first layer's gates is the same wherever it
stands, so that product is made once for each different token of the batch, and so are its two gradients.

Arguments that come back: ``net`` = (table, layers, p, e), the tables of ``lstm_layout``, weights and embedding;
``room`` the workspace; ``where`` = (slots, unique, tokens, base, counts): the slot of each token of the vocabulary
(-1: not in this batch), the token of each slot, the slot of each row, and for each time its first row and how many.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from crossfade.lab.train.lstm.cells import (
    activate,
    adam_dense,
    adam_rows,
    add_rows,
    add_to,
    clear,
    deactivate,
    scatter,
    squares,
)
from crossfade.lab.train.lstm.layout import (
    ABOVE,
    B_HH,
    B_IH,
    B_OUT,
    BATCH,
    BIAS,
    CELL,
    CELLS,
    CLASSES,
    COLUMNS,
    D_CELL,
    D_OUT,
    D_PROJECTED,
    D_X,
    GATES,
    GATES_WIDE,
    IN_LANES,
    INPUTS,
    LANES,
    LAST,
    LAYERS,
    LOGITS,
    MASK,
    OUT,
    P_HH,
    P_IH,
    PACK,
    PROJECTED,
    ROW,
    SIZE,
    T_HH,
    T_IH,
    TANH,
    VECTOR,
    VECTOR_LANES,
    W_HH,
    W_IH,
    W_OUT,
    ZERO,
    X,
)
from crossfade.lab.train.lstm.products import backward_panels, forward_panels, from_gates, to_gates, to_weights
from crossfade.lab.train.lstm.tiles import HEIGHT
from crossfade.lab.train.tables.simd import call_loss, jit, load8, offset, store

_f = np.float32


@jit
def gather(net: Any, room: Any, where: Any, part: Any, order: Any, start: int, count: int) -> Any:
    """Which rows there are at which time, and the vectors of the batch's tokens. Returns (times, slots, rows)."""
    table, _layers, _p, e = net
    slots, unique, tokens, base, counts = where
    text, offsets = part[0], part[1]
    active, used, row, width = count, 0, 0, table[VECTOR_LANES]
    first = np.int64(order[start])
    times = offsets[first + 1] - offsets[first]
    for t in range(times):
        while offsets[np.int64(order[start + active - 1]) + 1] - offsets[np.int64(order[start + active - 1])] <= t:
            active -= 1
        base[t], counts[t] = row, (active + HEIGHT - 1) // HEIGHT * HEIGHT
        for r in range(counts[t]):
            slot = np.int32(0)
            if r < active:
                token = text[offsets[np.int64(order[start + r])] + t]
                if slots[token] < 0:
                    slots[token], unique[used] = used, token
                    used += 1
                slot = slots[token]
            tokens[row + r] = slot
        row += counts[t]
    filled = (used + HEIGHT - 1) // HEIGHT * HEIGHT
    x = offset(room, table[X])
    for s in range(used):
        for j in range(0, width, 8):
            store(x, s * width + j, load8(e, np.int64(unique[s]) * width + j))
    clear(offset(x, used * width), (filled - used) * width)
    return times, used, row


@jit
def release(where: Any, used: int) -> None:
    for s in range(used):
        where[0][where[1][s]] = -1


@jit
def panels(net: Any, room: Any, back: bool) -> None:
    table, layers, p, _e = net
    cells, lanes, wide = table[CELLS], table[LANES], table[GATES_WIDE]
    for n in range(table[LAYERS]):
        layer = offset(layers, n * COLUMNS)
        ih, hh = offset(p, layer[W_IH]), offset(p, layer[W_HH])
        forward_panels(ih, layer[INPUTS], cells, wide, offset(room, layer[P_IH]))
        forward_panels(hh, cells, cells, wide, offset(room, layer[P_HH]))
        if back:
            backward_panels(ih, layer[IN_LANES], cells, wide, offset(room, layer[T_IH]))
            backward_panels(hh, lanes, cells, wide, offset(room, layer[T_HH]))


@jit
def forward(net: Any, room: Any, where: Any, times: int, used: int, count: int) -> None:
    """All layers at all times, and the logits [row, class]."""
    table, layers, p, _e = net
    cells, lanes, wide, depth = table[CELLS], table[LANES], table[GATES_WIDE], table[LAYERS]
    mask = offset(room, table[MASK])
    _slots, _unique, tokens, base, counts = where
    bias, zero, projected = offset(room, table[BIAS]), offset(room, table[ZERO]), offset(room, table[PROJECTED])
    for n in range(depth):
        layer = offset(layers, n * COLUMNS)
        clear(bias, wide)
        add_to(bias, offset(p, layer[B_IH]), wide)
        add_to(bias, offset(p, layer[B_HH]), wide)
        panel, recurrent = offset(room, layer[P_IH]), offset(room, layer[P_HH])
        x, inputs = offset(room, table[X]), 0
        if n == 0:
            filled = (used + HEIGHT - 1) // HEIGHT * HEIGHT
            to_gates(
                bias, tokens, bias, x, table[VECTOR_LANES], layer[INPUTS], panel, x, lanes, 0, recurrent, cells, wide,
                filled, projected,
            )  # fmt: skip
        else:
            x, inputs = offset(room, offset(layers, (n - 1) * COLUMNS)[OUT]), cells
        for t in range(times):
            row, before = base[t], zero
            gates, out = offset(room, layer[GATES] + row * wide), offset(room, layer[OUT])
            if t > 0:
                before = offset(room, layer[CELL] + base[t - 1] * lanes)
            to_gates(
                projected, offset(tokens, row), bias, offset(x, row * lanes), lanes, inputs, panel,
                offset(out, base[max(t - 1, 0)] * lanes), lanes, cells if t > 0 else 0, recurrent, cells, wide,
                counts[t], gates,
            )  # fmt: skip
            activate(
                gates, before, cells, lanes, wide, counts[t], mask, offset(room, layer[CELL] + row * lanes),
                offset(room, layer[TANH] + row * lanes), offset(out, row * lanes),
            )  # fmt: skip
    _output(net, room, where, times, count)


@jit
def _last(net: Any, room: Any, where: Any, times: int, r: int) -> Any:
    """The last layer's output of row r at its last token: LAST holds the times of the rows."""
    table, layers = net[0], net[1]
    t = np.int64(offset(room, table[LAST])[r])
    return offset(room, layers[(table[LAYERS] - 1) * COLUMNS + OUT] + (where[3][t] + r) * table[LANES])


@jit
def _output(net: Any, room: Any, where: Any, times: int, count: int) -> None:
    table, _layers, p, _e = net
    z, classes = offset(room, table[LOGITS]), table[CLASSES]
    for r in range(count):
        h = _last(net, room, where, times, r)
        for c in range(classes):
            logit = np.float64(p[table[B_OUT] + c])
            for k in range(table[CELLS]):
                logit += np.float64(h[k]) * np.float64(p[table[W_OUT] + c * table[LANES] + k])
            z[r * classes + c] = logit


@jit
def ends(net: Any, room: Any, part: Any, order: Any, start: int, count: int) -> None:
    last, offsets = offset(room, net[0][LAST]), part[1]
    for r in range(count):
        row = np.int64(order[start + r])
        last[r] = offsets[row + 1] - offsets[row] - 1


@jit
def softmax(z: Any, at: int, classes: int, label: int) -> Any:
    """Probabilities in place; ce = -log p_y, p_y, and the first of the greatest classes."""
    winner, target = 0, np.float64(z[at + label])
    for c in range(1, classes):
        if z[at + c] > z[at + winner]:
            winner = c
    top, whole = np.float64(z[at + winner]), 0.0
    for c in range(classes):
        whole += math.exp(np.float64(z[at + c]) - top)
    for c in range(classes):
        z[at + c] = math.exp(np.float64(z[at + c]) - top) / whole
    ce = math.log(whole) + top - target
    return ce, math.exp(-ce), winner


@jit
def losses(
    net: Any, room: Any, part: Any, order: Any, start: int, count: int, alpha: Any, beta: Any, address: int
) -> float:
    """The logits become their gradient: row weight * (softmax - onehot) / count. Returns the sum of the losses."""
    table = net[0]
    z, row, classes, loss = offset(room, table[LOGITS]), offset(room, table[ROW]), table[CLASSES], 0.0
    for first in range(0, count, 8):
        size = min(8, count - first)
        for b in range(8):
            row[b] = 0.0
        for b in range(size):
            label = part[2][np.int64(order[start + first + b])]
            ce, p, _winner = softmax(z, (first + b) * classes, classes, label)
            row[b] = ce
            if address == 0:
                row[8 + b] = alpha * ce + beta * (1.0 - p)
                row[16 + b] = alpha + beta * p
        if address != 0:
            call_loss(address, row)
        for b in range(size):
            label = part[2][np.int64(order[start + first + b])]
            loss += np.float64(row[8 + b])
            weight = row[16 + b] / _f(count)
            at = (first + b) * classes
            for c in range(classes):
                z[at + c] = weight * (z[at + c] - (_f(1.0) if c == label else _f(0.0)))
    return loss


@jit
def backward(net: Any, room: Any, where: Any, times: int, used: int, rows: int, count: int, g: Any) -> None:
    """From the logits' gradient, that of all weights to ``g`` and that of the tokens' vectors to D_X."""
    table, layers, _p, _e = net
    lanes, classes, depth, batch = table[LANES], table[CLASSES], table[LAYERS], table[BATCH]
    cells, wide = table[CELLS], table[GATES_WIDE]
    z, d_out, d_cell = offset(room, table[LOGITS]), offset(room, table[D_OUT]), offset(room, table[D_CELL])
    clear(g, table[SIZE])
    above = offset(room, table[ABOVE])
    if depth > 1:
        clear(above, rows * lanes)
    for r in range(count):
        h = _last(net, room, where, times, r)
        for c in range(classes):
            slope = z[r * classes + c]
            g[table[B_OUT] + c] += slope
            for k in range(lanes):
                g[table[W_OUT] + c * lanes + k] += slope * h[k]
    for n in range(depth - 1, -1, -1):
        clear(d_out, batch * lanes)
        clear(d_cell, batch * lanes)
        _layer_back(net, room, where, times, used, count, n, g)
    filled = (used + HEIGHT - 1) // HEIGHT * HEIGHT
    d, layer, packed = offset(room, table[D_PROJECTED]), layers, offset(room, table[PACK])
    add_rows(d, wide, used, offset(g, layer[B_IH]))
    add_to(offset(g, layer[B_HH]), offset(g, layer[B_IH]), wide)
    to_weights(
        offset(room, table[X]), table[VECTOR_LANES], table[VECTOR], d, cells, wide, filled, offset(g, layer[W_IH]),
        packed,
    )  # fmt: skip
    from_gates(
        d, cells, wide, offset(room, layer[T_IH]), offset(room, table[ZERO]), filled,
        offset(room, table[D_X]), table[VECTOR_LANES],
    )  # fmt: skip


@jit
def _layer_back(net: Any, room: Any, where: Any, times: int, used: int, count: int, n: int, g: Any) -> None:
    """One layer from its last time to its first. ABOVE goes from this layer's outputs' gradient to its inputs'."""
    table, layers, p, _e = net
    _slots, _unique, tokens, base, counts = where
    cells, lanes, classes, depth = table[CELLS], table[LANES], table[CLASSES], table[LAYERS]
    wide, mask = table[GATES_WIDE], offset(room, table[MASK])
    layer, last = offset(layers, n * COLUMNS), offset(room, table[LAST])
    z, d_out, d_cell = offset(room, table[LOGITS]), offset(room, table[D_OUT]), offset(room, table[D_CELL])
    above, zero = offset(room, table[ABOVE]), offset(room, table[ZERO])
    projected, packed = offset(room, table[D_PROJECTED]), offset(room, table[PACK])
    if n == 0:
        clear(projected, (used + HEIGHT - 1) // HEIGHT * HEIGHT * wide)
    for t in range(times - 1, -1, -1):
        row = base[t]
        gates = offset(room, layer[GATES] + row * wide)
        if n < depth - 1:
            add_to(d_out, offset(above, row * lanes), counts[t] * lanes)
        else:
            for r in range(min(counts[t], count)):
                if np.int64(last[r]) == t:
                    for c in range(classes):
                        for k in range(lanes):
                            d_out[r * lanes + k] += z[r * classes + c] * p[table[W_OUT] + c * lanes + k]
        before = zero
        if t > 0:
            before = offset(room, layer[CELL] + base[t - 1] * lanes)
        deactivate(
            gates, before, offset(room, layer[TANH] + row * lanes), cells, lanes, wide, counts[t], mask, d_out, d_cell
        )
        if n == 0:
            scatter(gates, offset(tokens, row), wide, counts[t], projected)
        else:
            add_rows(gates, wide, counts[t], offset(g, layer[B_IH]))
            x = offset(room, offset(layers, (n - 1) * COLUMNS)[OUT] + row * lanes)
            to_weights(x, lanes, cells, gates, cells, wide, counts[t], offset(g, layer[W_IH]), packed)
            from_gates(
                gates, cells, wide, offset(room, layer[T_IH]), zero, counts[t], offset(above, row * lanes), lanes
            )
        if t > 0:
            h = offset(room, layer[OUT] + base[t - 1] * lanes)
            to_weights(h, lanes, cells, gates, cells, wide, counts[t], offset(g, layer[W_HH]), packed)
            from_gates(gates, cells, wide, offset(room, layer[T_HH]), zero, counts[t], d_out, lanes)
    if n > 0:
        add_to(offset(g, layer[B_HH]), offset(g, layer[B_IH]), wide)


@jit
def descend(
    net: Any, room: Any, where: Any, used: int, state: Any, vocabulary: int, rate: Any, clip: Any, t: int
) -> None:
    """One step of Adam, the t-th (from 1), the gradient cut to the norm ``clip`` first."""
    table, _layers, p, e = net
    m, v, em, ev, g = state
    width, d_x, scale = table[VECTOR_LANES], offset(room, table[D_X]), 1.0
    if clip > 0.0:
        norm = math.sqrt(squares(g, table[SIZE]) + squares(d_x, used * width))
        scale = min(1.0, clip / (norm + 1e-6)) if norm == norm else norm
    rule = _f(rate / (1.0 - 0.9**t)), _f(1.0 / math.sqrt(1.0 - 0.999**t))
    adam_dense(p, m, v, g, _f(scale), table[SIZE], rule)
    adam_rows(e, em, ev, where[0], vocabulary, width, d_x, _f(scale), rule)
