"""One LSTM classifier from its first step to its last epoch, compiled, on one thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import numba
import numpy as np

from crossfade.lab.train.lstm.kernel import (
    backward,
    descend,
    ends,
    forward,
    gather,
    losses,
    panels,
    release,
    softmax,
)
from crossfade.lab.train.lstm.layout import CLASSES, LOGITS
from crossfade.lab.train.lstm.setup import TEST_ACCURACY, TEST_NLL, TRAIN_LOSS, VAL_ACCURACY, VAL_NLL
from crossfade.lab.train.tables.simd import fma, jit, load8, offset, pointer, splat8, total

_f = np.float32


@jit
def _evaluate(net: Any, room: Any, where: Any, part: Any, shown: Any, stop: Any) -> Any:
    """Accuracy and mean ce; the probabilities to ``shown``."""
    order, starts, batches, examples = part[3], part[4], part[5], part[6]
    right, nll = 0, 0.0
    classes, z = net[0][CLASSES], offset(room, net[0][LOGITS])
    for i in range(batches):
        if stop[0] != 0:
            break
        start, count = starts[i], starts[i + 1] - starts[i]
        times, used, _rows = gather(net, room, where, part, order, start, count)
        ends(net, room, part, order, start, count)
        forward(net, room, where, times, used, count)
        release(where, used)
        for r in range(count):
            example = np.int64(order[start + r])
            ce, _p, winner = softmax(z, r * classes, classes, part[2][example])
            right += winner == part[2][example]
            nll += ce
            for c in range(classes):
                shown[example * classes + c] = z[r * classes + c]
    return right / examples, nll / examples


@jit
def _finite(values: Any, count: int) -> bool:
    sums = splat8(_f(0.0))
    for i in range(0, count, 8):
        sums = fma(load8(values, i), splat8(_f(0.0)), sums)  # 0 * inf is NaN
    return bool(total(sums) == 0.0)


@jit
def _part(data: Any) -> Any:
    tokens, offsets, labels, order, starts = data
    return (
        pointer(tokens), pointer(offsets), pointer(labels), pointer(order), pointer(starts), len(starts) - 1,
        len(labels),
    )  # fmt: skip


@jit
def _train(
    data: Any, batches: Any, weights: Any, loss: Any, rule: Any, space: Any, out: Any, flags: Any, span: Any
) -> Any:
    train, val, test = _part(data[0]), _part(data[1]), _part(data[2])
    orders, starts, steps = batches
    layout, dense, vectors = weights
    size, extent = len(dense[0]), len(vectors[0])
    p, e = pointer(dense[0]), pointer(vectors[0])
    net = pointer(layout[0]), pointer(layout[1]), p, e
    state = pointer(dense[1]), pointer(dense[2]), pointer(vectors[1]), pointer(vectors[2]), pointer(dense[3])
    room = pointer(space[0])
    where = pointer(space[1]), pointer(space[2]), pointer(space[3]), pointer(space[4]), pointer(space[5])
    mixture, address = loss
    rate, clip, last = rule
    curves, shown, now = out
    progress, stop = flags[0], pointer(flags[1])
    t, end, chosen = span
    for epoch in range(t // steps, (end + steps - 1) // steps):
        lost, order, begin = 0.0, pointer(orders[epoch]), t - epoch * steps
        if begin > 0:  # what another network had lost before this one went on from it
            lost, curves[epoch, TRAIN_LOSS] = curves[epoch, TRAIN_LOSS], np.nan
        for i in range(begin, min(steps, end - epoch * steps)):
            if stop[0] != 0:
                return chosen
            start, count = starts[epoch, i], starts[epoch, i + 1] - starts[epoch, i]
            moment = min(i, mixture.shape[1] - 1)
            times, used, rows = gather(net, room, where, train, order, start, count)
            ends(net, room, train, order, start, count)
            panels(net, room, True)
            forward(net, room, where, times, used, count)
            alpha, beta = mixture[epoch, moment, 0], mixture[epoch, moment, 1]
            lost += losses(net, room, train, order, start, count, alpha, beta, address)
            backward(net, room, where, times, used, rows, count, state[4])
            t += 1
            descend(net, room, where, used, state, len(space[1]), rate, clip, t)
            release(where, used)
        if t < (epoch + 1) * steps:
            progress[0], curves[epoch, TRAIN_LOSS] = t, lost
            return chosen
        panels(net, room, False)
        right, nll = _evaluate(net, room, where, val, pointer(now), stop)
        test_right, test_nll = _evaluate(net, room, where, test, pointer(now), stop)
        if not (np.isfinite(lost) and np.isfinite(nll) and _finite(p, size) and _finite(e, extent)):
            break
        curves[epoch, TRAIN_LOSS], curves[epoch, VAL_ACCURACY] = lost / train[6], right
        curves[epoch, VAL_NLL], curves[epoch, TEST_ACCURACY], curves[epoch, TEST_NLL] = nll, test_right, test_nll
        if last or chosen < 0 or right > curves[chosen, VAL_ACCURACY]:
            chosen = epoch
            dense[4][:], vectors[3][:] = dense[0], vectors[0]
            shown[:] = now[: len(shown)]
        progress[0] = t
    return chosen


@lru_cache(maxsize=1)
def compiled() -> Callable[..., int]:
    """The compiled ``train(data, batches, weights, loss, rule, space, out, flags, span)``, kept in numba's cache.

    It trains one member in place, the steps of ``span`` = (first, end, the epoch chosen so far), and returns the chosen
    epoch, or -1 if the weights were never finite. ``progress[0]`` counts steps, by whole epochs and at the end: fewer
    than asked for if the weights diverged or ``stop[0]`` was set.
    """
    # numba's cache watches one file; what a closure holds is part of its key, and this number follows all the files.
    names = ("loop", "kernel", "cells", "layout", "products", "tiles", "setup")
    files = [Path(__file__).with_name(f"{name}.py") for name in names]
    files += [Path(__file__).parents[1] / "tables" / f"{name}.py" for name in ("simd", "rows")]
    sources = crc32(b"".join(file.read_bytes() for file in files))

    def train(
        data: Any, batches: Any, weights: Any, loss: Any, rule: Any, space: Any, out: Any, flags: Any, span: Any
    ) -> Any:
        return _train(data, batches, weights, loss, rule, space, out, flags, span) if sources >= 0 else -1

    try:
        return cast("Callable[..., int]", numba.njit(nogil=True, cache=True)(train))
    except RuntimeError:  # no folder to cache in
        return cast("Callable[..., int]", numba.njit(nogil=True)(train))
