"""One tiny network from its first step to its last epoch, without leaving the processor's cache.

A batch goes through in blocks of eight rows; a shorter block is filled up with rows that weigh nothing. The loops over
the weights are in ``panels``; here are the loss, the step and the epoch. Arguments that come back in every function:

* ``net`` = (layers, number of layers, p, v): the table of ``layout``, the weights and their velocity;
* ``room`` = (x, walked, y, h, z, dh, row), what a block needs: inputs [row, feature] and [feature, row], labels, each
  layer's inputs [row, unit] with ``STRIDE`` between layers, logits and then their gradient [class, row], the hidden
  units' gradient, and ce, g, g' of each row for a loss that is called by its address;
* ``part`` = (inputs, width, labels, rows): training, validation or test.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import numba
import numpy as np

from crossfade.lab.train.tables.panels import (
    BIAS,
    COLUMNS,
    LANES,
    WALK,
    WEIGHTS,
    back,
    contract,
    descend,
    first_hidden,
    to_rows,
    to_units,
)
from crossfade.lab.train.tables.record import TEST_CORRECT, TEST_NLL, TIES, TRAIN_LOSS, VAL_CORRECT, VAL_NLL
from crossfade.lab.train.tables.rows import add, call_loss, load_rows8
from crossfade.lab.train.tables.simd import (
    ROWS,
    WIDE,
    equal,
    fma,
    greater,
    jit,
    load8,
    offset,
    pointer,
    splat8,
    store,
    total,
)
from crossfade.lab.train.tables.vecmath import exp8, log8

_f = np.float32
_LAST, _LOSS = TIES.index("last"), TIES.index("loss")
_NO_CLASS = _f(-1.0)  # the label of a row that fills up a block


@jit
def _gather(part: Any, order: Any, start: int, count: int, depth: int, room: Any) -> None:
    """Rows order[start : start + count] into the room."""
    inputs, width, labels, _rows = part
    x, walked, y = room[0], room[1], room[2]
    zero = splat8(_f(0.0))
    for b in range(ROWS):
        if b < count:
            row = np.int64(order[start + b])
            for j in range(0, width, 8):
                store(x, b * width + j, load8(inputs, row * width + j))
            y[b] = labels[row]
        else:
            for j in range(0, width, 8):
                store(x, b * width + j, zero)
            y[b] = _NO_CLASS
    if depth > 1:
        to_units(width, x, walked)


@jit
def _forward(net: Any, room: Any, stride: int) -> None:
    """The logits to z."""
    layers, depth, p, _v = net
    x, walked, _y, h, z, _dh, _row = room
    at, bias, lanes, walk = layers[WEIGHTS], layers[BIAS], layers[LANES], layers[WALK]
    if depth == 1:
        contract(p, at, bias, lanes, walk, x, z)
        return
    first_hidden(p, at, bias, lanes, walk, walked, h)
    zero = splat8(_f(0.0))
    for n in range(1, depth):
        c = n * COLUMNS
        walk, values = layers[c + WALK], offset(h, (n - 1) * stride)
        contract(p, layers[c + WEIGHTS], layers[c + BIAS], layers[c + LANES], walk, values, z)
        if n < depth - 1:
            for k in range(walk):
                unit = load8(z, ROWS * k)
                store(z, ROWS * k, greater(zero, unit, zero, unit))
            to_rows(walk, z, offset(h, n * stride), walk)


@jit
def _backward(net: Any, room: Any, stride: int, rate: Any, mu: Any, wd: Any) -> None:
    """From the logits' gradient in z, one step of SGD for every layer."""
    layers, depth, p, v = net
    x, walked, _y, h, z, dh, _row = room
    for n in range(depth - 1, -1, -1):
        c = n * COLUMNS
        at, bias, lanes, walk = layers[c + WEIGHTS], layers[c + BIAS], layers[c + LANES], layers[c + WALK]
        if n == 0 and depth > 1:
            descend(p, v, at, lanes, walk, walked, dh, rate, mu, wd)
            for m in range(0, lanes, 8):
                _move(p, v, bias + m, add(load_rows8(dh, m, lanes)), rate, mu, wd)
            return
        values = x
        if n > 0:
            values = offset(h, (n - 1) * stride)
            back(p, at, lanes, walk, z, values, dh)  # before these weights move
        descend(p, v, at, lanes, walk, z, values, rate, mu, wd)
        for k in range(walk):
            i = bias + k
            v[i] = mu * v[i] + (total(load8(z, ROWS * k)) + wd * p[i])
            p[i] -= rate * v[i]
        if n > 1:
            to_units(lanes, dh, z)


@jit
def _move(p: Any, v: Any, i: int, gradient: Any, rate: Any, mu: Any, wd: Any) -> None:
    weight = load8(p, i)
    velocity = fma(splat8(mu), load8(v, i), fma(splat8(wd), weight, gradient))
    store(v, i, velocity)
    store(p, i, fma(splat8(-rate), velocity, weight))


@jit
def _softmax(z: Any, classes: int, y: Any) -> Any:
    """Leave exp(z - max z) in z; return their sum, the target's exp, ce = -log p_y, and which class is greatest."""
    zero, one = splat8(_f(0.0)), splat8(_f(1.0))
    greatest, winner, number = load8(z, 0), zero, zero
    target = equal(y, zero, greatest, zero)
    for c in range(1, classes):
        number = number + one
        logit = load8(z, ROWS * c)
        winner = greater(logit, greatest, number, winner)
        greatest = greater(logit, greatest, logit, greatest)
        target = equal(y, number, logit, target)
    whole = zero
    for c in range(classes):
        part = exp8(load8(z, ROWS * c) - greatest)
        store(z, ROWS * c, part)
        whole = whole + part
    distance = target - greatest
    return whole, exp8(distance), log8(whole) - distance, winner


@jit
def _loss(room: Any, classes: int, alpha: Any, beta: Any, address: int, scale: Any) -> Any:
    """The logits z become their gradient: row weight * (softmax - onehot) * scale. Returns the sum of the losses."""
    z, row, y = room[4], room[6], load8(room[2], 0)
    zero, one, filled = splat8(_f(0.0)), splat8(_f(1.0)), splat8(_NO_CLASS)
    whole, target, ce, _winner = _softmax(z, classes, y)
    inverse = one / whole
    if address == 0:
        p = target * inverse
        weight = fma(splat8(beta), p, splat8(alpha))
        loss = fma(splat8(alpha), ce, splat8(beta) * (one - p))
    else:
        store(row, 0, equal(y, filled, zero, ce))
        call_loss(address, row)
        loss, weight = load8(row, 8), load8(row, 16)
    weight = equal(y, filled, zero, weight * splat8(scale))
    share, number = weight * inverse, zero
    for c in range(classes):
        gradient = load8(z, ROWS * c) * share
        store(z, ROWS * c, gradient - equal(y, number, weight, zero))
        number = number + one
    return float(total(equal(y, filled, zero, loss)))


@jit
def _evaluate(net: Any, classes: int, part: Any, order: Any, room: Any, stride: int, out: Any, wanted: bool) -> Any:
    """How many rows are classified right, and their mean ce; the probabilities to ``out`` if wanted."""
    zero, one, filled = splat8(_f(0.0)), splat8(_f(1.0)), splat8(_NO_CLASS)
    y_room, z = room[2], room[4]
    right, nll, rows = 0.0, 0.0, part[3]
    for start in range(0, rows, ROWS):
        count = min(ROWS, rows - start)
        _gather(part, order, start, count, net[1], room)
        _forward(net, room, stride)
        y = load8(y_room, 0)
        whole, _target, ce, winner = _softmax(z, classes, y)
        right += total(equal(y, winner, one, zero))
        nll += total(equal(y, filled, zero, ce))
        if wanted:
            store(y_room, 0, one / whole)
            for b in range(count):
                for c in range(classes):
                    out[(start + b) * classes + c] = z[ROWS * c + b] * y_room[b]
    return right, nll / rows


@jit
def _epoch(
    part: Any, order: Any, net: Any, mixture: Any, moves: int, address: int, classes: int, batch: int, sgd: Any,
    room: Any, stride: int, stop: Any,
) -> Any:  # fmt: skip
    """One pass over the training rows; their mean loss."""
    loss, rows, rate, mu, wd = 0.0, part[3], sgd[0], sgd[1], sgd[2]
    for step in range((rows + batch - 1) // batch):
        if stop[0] != 0:
            break
        size, now = min(batch, rows - step * batch), 2 * min(step, moves - 1)
        for first in range(0, size, ROWS):
            _gather(part, order, step * batch + first, min(ROWS, size - first), net[1], room)
            _forward(net, room, stride)
            loss += _loss(room, classes, mixture[now], mixture[now + 1], address, _f(1.0) / _f(size))
            # Blocks of one batch add up in the velocity; momentum and decay count once, and the weights move once.
            _backward(
                net, room, stride, rate if first + ROWS >= size else _f(0.0),
                mu if first == 0 else _f(1.0), wd if first == 0 else _f(0.0),
            )  # fmt: skip
    return loss / rows


@jit
def _finite(p: Any, size: int) -> bool:
    sums = splat8(_f(0.0))
    for i in range(0, size, 8):
        sums = fma(load8(p, i), splat8(_f(0.0)), sums)  # 0 * inf is NaN
    return bool(total(sums) == 0.0)


@jit
def _part(data: Any) -> Any:
    return pointer(data[0]), data[0].shape[1], pointer(data[1]), len(data[1])


@jit
def _train(data: Any, orders: Any, weights: Any, loss: Any, rule: Any, space: Any, out: Any, flags: Any) -> int:
    train, val, test = _part(data[0]), _part(data[1]), _part(data[2])
    layers, p, v, best, size = (
        weights[0],
        pointer(weights[1]),
        pointer(weights[2]),
        pointer(weights[3]),
        len(weights[1]),
    )
    net, chosen_net = (pointer(layers), len(layers), p, v), (pointer(layers), len(layers), best, v)
    mixture, address = loss
    batch, sgd, tie = rule
    workspace, widest = space
    stride, w = ROWS * widest, pointer(workspace)
    room = (
        w, offset(w, stride), offset(w, 2 * stride), offset(w, 5 * stride), offset(w, 3 * stride),
        offset(w, 4 * stride), offset(w, 2 * stride + ROWS),
    )  # fmt: skip
    curves, probabilities, identity = out
    progress, stop = flags[0], pointer(flags[1])
    classes, shown, straight, chosen = probabilities.shape[1], pointer(probabilities), pointer(identity), -1
    for epoch in range(len(orders)):
        lost = _epoch(
            train, pointer(orders[epoch]), net, pointer(mixture[epoch]), mixture.shape[1], address, classes, batch,
            sgd, room, stride, stop,
        )  # fmt: skip
        if stop[0] != 0:
            return chosen
        right, nll = _evaluate(net, classes, val, straight, room, stride, shown, False)
        test_right, test_nll = _evaluate(net, classes, test, straight, room, stride, shown, False)
        if not (_finite(p, size) and np.isfinite(nll) and np.isfinite(lost)):
            break
        curves[epoch, TRAIN_LOSS], curves[epoch, VAL_CORRECT], curves[epoch, VAL_NLL] = lost, right, nll
        curves[epoch, TEST_CORRECT], curves[epoch, TEST_NLL] = test_right, test_nll
        gain = 1.0 if chosen < 0 else right - curves[chosen, VAL_CORRECT]
        if tie == _LOSS and gain == 0.0:
            gain = curves[chosen, VAL_NLL] - curves[epoch, VAL_NLL]
        if gain > 0.0 or (gain == 0.0 and tie == _LAST):
            chosen = epoch
            for i in range(0, size, ROWS):
                store(best, i, load8(p, i))
        progress[0] = epoch + 1
    if chosen >= 0:
        _evaluate(chosen_net, classes, test, straight, room, stride, shown, True)
    return chosen


@lru_cache(maxsize=1)
def compiled() -> Callable[..., int]:
    """The compiled ``train(data, orders, weights, loss, rule, space, out, flags)``, from numba's cache if it can be.

    It trains one member in place and returns the best epoch, or -1 if the weights were never finite. ``progress[0]``
    counts the finished epochs: fewer than asked for if the weights diverged or ``stop[0]`` was set.
    """
    # numba's cache watches one file and the processor it compiles for; what a closure holds is part of its key, too,
    # and this number follows all the files and the width that layouts are made for.
    files = [
        Path(__file__).with_name(f"{name}.py") for name in ("kernel", "panels", "record", "rows", "simd", "vecmath")
    ]
    sources = crc32(b"".join(file.read_bytes() for file in files), WIDE)

    def train(data: Any, orders: Any, weights: Any, loss: Any, rule: Any, space: Any, out: Any, flags: Any) -> int:
        return _train(data, orders, weights, loss, rule, space, out, flags) if sources >= 0 else -1

    try:
        return cast("Callable[..., int]", numba.njit(nogil=True, cache=True)(train))
    except RuntimeError:  # no folder to cache in
        return cast("Callable[..., int]", numba.njit(nogil=True)(train))
