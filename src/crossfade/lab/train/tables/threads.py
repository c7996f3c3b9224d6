"""Run the kernel over members on several threads, the largest first, with progress and interruption."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from crossfade.lab.train.tables.kernel import compiled
from crossfade.lab.train.tables.layout import aligned, layout
from crossfade.lab.train.tables.panels import LANES, WALK
from crossfade.lab.train.tables.record import TIES, empty_curves, history
from crossfade.lab.train.tables.setup import cost, initial_weights, mixture_table, row_orders
from crossfade.lab.train.tables.simd import ROWS
from crossfade.lab.train.tables.types import History, Member, Recipe, Split

_log = logging.getLogger(__name__)
_Arguments: TypeAlias = tuple[Any, ...]
_POLL = 0.2  # seconds between reports of progress, and at most until a signal is answered


def train_kernel(
    members: Sequence[Member],
    addresses: Sequence[int],
    recipe: Recipe,
    threads: int,
    on_progress: Callable[[float], None],
) -> list[History]:
    """Train all members. ``addresses``: of each member's compiled loss, 0 for the mixture of CE and EL."""
    preparation = _Preparation(recipe, 2 * threads)
    costs = [cost(member, recipe) for member in members]
    # Members with the same rows in the same order follow each other, so that one set of orders is alive at a time.
    queue = iter(sorted(range(len(members)), key=lambda i: (-costs[i], id(members[i].split), members[i].seed, i)))
    out: dict[int, History] = {}
    running: dict[Future[History], int] = {}
    progress = np.zeros((len(members), 1), dtype=np.int64)
    train = compiled()
    with ThreadPoolExecutor(threads, thread_name_prefix="crossfade") as pool:
        try:
            while True:
                for i in _take(queue, 2 * threads - len(running)):
                    arguments = preparation.arguments(members[i], addresses[i], progress[i])
                    if not out and not running:
                        _compile(train, arguments)
                    running[pool.submit(_run, train, arguments)] = i
                if not running:
                    break
                done, _ = wait(running, _POLL, FIRST_COMPLETED)
                for future in done:
                    i = running.pop(future)
                    out[i] = future.result()
                    progress[i] = recipe.epochs
                on_progress(float(progress[:, 0] @ np.array(costs)) / (recipe.epochs * sum(costs)))
        except BaseException:
            preparation.stop[0] = 1
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [out[i] for i in range(len(members))]


def _take(queue: Iterator[int], count: int) -> Iterator[int]:
    for _ in range(count):
        item = next(queue, None)
        if item is None:
            return
        yield item


class _Preparation:
    """The kernel's arguments; what members share is made once. Used from one thread."""

    def __init__(self, recipe: Recipe, in_flight: int) -> None:
        self.recipe = recipe
        self.stop = np.zeros(1, dtype=np.uint8)
        self.data = lru_cache(in_flight)(_padded)
        self.orders = lru_cache(2)(lambda seed, rows: row_orders(seed, rows, recipe.epochs))
        self.weights = lru_cache(in_flight)(initial_weights)
        self.tables: dict[tuple[int, int], Any] = {}  # by the schedule's id: a user's callable may not be hashable

    def arguments(self, member: Member, address: int, progress: NDArray[np.int64]) -> _Arguments:
        """Everything for one call, and the layout to read the result with."""
        recipe, split, rows = self.recipe, member.split, len(member.split.y_train)
        plan = layout(recipe.sizes(split.features, split.classes))
        p, v = plan.pack(self.weights(member.seed, plan.sizes))
        *data, straight = self.data(split)
        sgd = np.array([member.learning_rate, recipe.momentum, recipe.weight_decay], dtype=np.float32)
        schedule, steps = member.method.schedule, rows if recipe.granularity == "step" else 1
        if (id(schedule), steps) not in self.tables:
            self.tables[id(schedule), steps] = mixture_table(schedule, recipe, steps)
        table = self.tables[id(schedule), steps]
        widest = max(int(plan.layers[:, [LANES, WALK]].max()), data[0][0].shape[1])
        widest += -widest % 8
        room = aligned(ROWS * widest * (5 + len(plan.layers)))
        probabilities = np.zeros((len(split.y_test), split.classes), dtype=np.float32)
        return (
            plan,
            tuple(data),
            self.orders(member.seed, rows),
            (plan.layers, p, v, p.copy()),
            (table, address),
            (recipe.batch_size, sgd, TIES.index(recipe.tie)),
            (room, widest),
            (empty_curves(recipe.epochs), probabilities, straight),
            (progress, self.stop),
        )


def _compile(train: Any, arguments: _Arguments) -> None:
    try:
        train.compile(tuple(numba.typeof(argument) for argument in arguments[1:]))
    except OSError as error:  # it is compiled by now; what failed is keeping it for the next time
        _log.warning("the compiled kernel could not be kept on disk: %s", error)


def _padded(split: Split) -> tuple[Any, ...]:
    """Rows of a whole number of vectors, labels as float32, and the order 0, 1, 2, ... for evaluation."""
    fill = ((0, 0), (0, -split.features % 8))
    parts = [
        (np.ascontiguousarray(np.pad(x, fill)), y.astype(np.float32))
        for x, y in ((split.x_train, split.y_train), (split.x_val, split.y_val), (split.x_test, split.y_test))
    ]
    return (*parts, np.arange(max(len(y) for _, y in parts), dtype=np.int32))


def _run(train: Callable[..., int], arguments: _Arguments) -> History:
    plan, *rest = arguments
    chosen = train(*rest)
    (_layers, _p, _v, best), (curves, probabilities, _straight) = rest[2], rest[6]
    return history(curves, chosen, probabilities, plan.unpack(best), "kernel")
