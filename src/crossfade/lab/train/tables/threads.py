"""The kernel engine: many networks trained by the compiled kernel on several threads.

Mixtures of CE and EL with the same weights in their first epochs train the same network up to there, given the same
rows, seed and learning rate. Those epochs are trained once: where two methods differ for the first time, the second one
continues from a copy of the state (weights, velocity, the best epoch's weights, measures). Its result is the same, to
the last bit, as if it were trained alone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from crossfade.lab.data.split import Split
from crossfade.lab.methods import TwoPass, starts
from crossfade.lab.train.outcome import Floats, History
from crossfade.lab.train.tables.kernel import TIES, Arguments, Rows, compiled
from crossfade.lab.train.tables.panels import Layout, aligned, layout
from crossfade.lab.train.tables.recipe import Member, Recipe
from crossfade.lab.train.tables.setup import Record, cost, initial_weights, row_orders, schedule_table, steps_in_epoch
from crossfade.lab.train.tables.simd import ROWS

_log = logging.getLogger(__name__)
_POLL = 0.2  # seconds between reports of progress, and at most from a signal to the reaction


def train_kernel(
    members: Sequence[Member],
    addresses: Sequence[int],
    recipe: Recipe,
    threads: int,
    on_progress: Callable[[float], None],
) -> list[History]:
    """Train all members, given the address of each one's compiled loss, or its number in ``setup.LOSSES``."""
    preparation, train = Preparation(recipe, 2 * threads), compiled()
    progress = np.zeros((len(members), 1), dtype=np.int64)
    records = [Record(recipe) for _ in members]
    networks = [_Network(*each) for each in zip(members, addresses, progress, records, strict=True)]
    _share_beginnings(networks, recipe)
    costs = np.array([cost(member, recipe) for member in members])
    begins = np.array([network.begin for network in networks])
    whole = float(costs @ (recipe.epochs - begins))
    # The largest first, and networks with the same rows in the same order next to each other: they share preparations.
    order = sorted(range(len(members)), key=lambda i: (-costs[i], id(members[i].split), members[i].seed))
    waiting = deque(networks[i] for i in order if not networks[i].begin)
    running: dict[Future[int], _Network] = {}
    compile_kernel(train, waiting[0].call(preparation))
    with ThreadPoolExecutor(threads, thread_name_prefix="crossfade") as pool:
        try:
            while waiting or running:
                while waiting and len(running) < 2 * threads:
                    network = waiting.popleft()
                    running[pool.submit(train, *network.call(preparation))] = network
                done, _ = wait(running, _POLL, FIRST_COMPLETED)
                for future in done:
                    ready = running.pop(future).finish_call(future.result(), preparation)
                    waiting.extendleft(reversed(ready))
                on_progress(float(costs @ (progress[:, 0] - begins)) / whole)
        finally:
            preparation.stop[0] = 1  # for what is still running if an exception came
    return [network.history for network in networks if network.history is not None]


@dataclass(eq=False)
class _Network:
    """A member in training.

    Attributes:
        progress: The number of finished epochs, which the kernel counts.
        record: The measurements of these epochs.
        begin: How many epochs it takes over from another network.
        followers: The networks that continue from a copy of its state.
        end: The epoch at which the current call of the kernel stops.
    """

    member: Member
    address: int
    progress: NDArray[np.int64]
    record: Record
    begin: int = 0
    followers: list[_Network] = field(default_factory=list)
    end: int = 0
    arguments: Arguments | None = None
    history: History | None = None

    def call(self, preparation: Preparation) -> tuple[Arguments, int, int, int]:
        """Return the kernel's arguments for the epochs until another network takes over the state, or all."""
        at, epochs = int(self.progress[0]), preparation.recipe.epochs
        self.end = min((other.begin for other in self.followers if other.begin > at), default=epochs)
        return self._prepared(preparation), at, self.end, self.record.chosen

    def finish_call(self, chosen: int, preparation: Preparation) -> list[_Network]:
        """Take over the results of a call, pass the state on to followers, and return the networks that can go on."""
        arguments, epochs = self._prepared(preparation), preparation.recipe.epochs
        if self.progress[0] < self.end:  # it diverged: nothing is left to train for it and its followers
            self.progress[0] = epochs
        self.record.chosen, at = chosen, int(self.progress[0])
        forked = [other for other in self.followers if other.begin <= at]
        self.followers = [other for other in self.followers if other.begin > at]
        for other in forked:
            other.progress[0], other.record.chosen = at, chosen
            theirs = other._prepared(preparation)
            for name in ("weights", "velocity", "best", "measures"):
                getattr(theirs, name)[:] = getattr(arguments, name)
        if at < epochs:
            return [self, *forked]
        weights = preparation.layout(self.member.split).unpack(arguments.best)
        probabilities = arguments.probabilities[: len(self.member.split.y_test)].copy()
        self.history = self.record.history(self.member.split, probabilities, weights, "kernel")
        self.arguments = None  # frees the memory
        return forked

    def _prepared(self, preparation: Preparation) -> Arguments:
        if self.arguments is None:
            self.arguments = preparation.arguments(self.member, self.address, self.progress, self.record)
        return self.arguments


def _share_beginnings(networks: Sequence[_Network], recipe: Recipe) -> None:
    members = [network.member for network in networks]
    groups = [(id(member.split), member.seed, member.learning_rate) for member in members]
    moves = [steps_in_epoch(recipe, len(member.split.y_train)) for member in members]
    found = starts([member.method for member in members], groups, recipe.epochs, moves)
    for network, start in zip(networks, found, strict=True):
        if start.source is not None:
            network.begin = start.epoch
            networks[start.source].followers.append(network)


class Preparation:
    """The preparation of the kernel's arguments, with caches for what members share. For use from one thread."""

    def __init__(self, recipe: Recipe, in_flight: int) -> None:
        self.recipe = recipe
        self.stop = np.zeros(1, dtype=np.uint8)
        self.data = lru_cache(in_flight)(_padded)
        self.orders = lru_cache(2)(lambda seed, rows: row_orders(seed, rows, recipe.epochs))
        self.weights = lru_cache(in_flight)(initial_weights)
        self.schedules: dict[tuple[int, int], Floats] = {}  # by the method's id: a user's callable may not be hashable

    def layout(self, split: Split) -> Layout:
        """Return the layout of a network's weights."""
        return layout(self.recipe.sizes(split.features, split.classes))

    def arguments(self, member: Member, address: int, progress: NDArray[np.int64], record: Record) -> Arguments:
        """Return the arguments for a member, its initial weights among them."""
        recipe, split, rows = self.recipe, member.split, len(member.split.y_train)
        plan, method = self.layout(split), member.method
        p, v = plan.pack(self.weights(member.seed, plan.sizes))
        (train, val, test), identity = self.data(split)
        at = id(method), steps_in_epoch(recipe, rows)
        if at not in self.schedules:
            self.schedules[at] = schedule_table(method, recipe, rows)
        return Arguments(
            train=train,
            val=val,
            test=test,
            orders=self.orders(member.seed, rows),
            identity=identity,
            layers=plan.layers,
            weights=p,
            velocity=v,
            velocity2=np.zeros_like(v) if isinstance(method, TwoPass) else v[:0],
            best=p.copy(),
            schedule=self.schedules[at],
            address=address,
            batch_size=recipe.batch_size,
            sgd=np.array([member.learning_rate, recipe.momentum, recipe.weight_decay], dtype=np.float32),
            tie=TIES.index("end" if recipe.select == "last" else recipe.tie),
            judged=record.judged,
            workspace=aligned(ROWS * plan.widest * (5 + len(plan.layers))),
            widest=plan.widest,
            measures=record.measures,
            probabilities=np.zeros((max(len(split.y_val), len(split.y_test)), split.classes), dtype=np.float32),
            progress=progress,
            stop=self.stop,
        )


def _padded(split: Split) -> tuple[list[Rows], NDArray[np.int32]]:
    """Return rows padded to a whole number of vectors, labels as float32, and the order 0, 1, 2, ... for evaluation."""
    fill = ((0, 0), (0, -split.features % 8))
    parts = [(np.ascontiguousarray(np.pad(x, fill)), y.astype(np.float32)) for x, y in split.parts]
    return parts, np.arange(max(len(y) for _, y in parts), dtype=np.int32)


def compile_kernel(train: Any, arguments: tuple[object, ...]) -> None:
    """Compile the kernel for arguments like these, with a warning if the code can't be kept on disk."""
    try:
        train.compile(tuple(numba.typeof(argument) for argument in arguments))
    except OSError as error:  # raised after the compilation
        _log.warning("the compiled kernel could not be kept on disk: %s", error)
