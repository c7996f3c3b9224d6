"""Run the LSTM kernel over members on several threads, with progress and interruption.

Mixtures of a split and a seed that have the same weights in their first steps are the same network so far: it is
trained once, and the others go on from where they part. To the last bit they are what they would be alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from crossfade.lab.train.lstm.arguments import Arguments, Preparation, kept
from crossfade.lab.train.lstm.layout import CLASSES
from crossfade.lab.train.lstm.loop import compiled
from crossfade.lab.train.lstm.setup import cost, history, mixture
from crossfade.lab.train.lstm.types import LstmHistory, LstmMember, LstmRecipe

_POLL = 0.2  # seconds between looks at the progress, and until Ctrl-C is noticed
_log = logging.getLogger(__name__)


def train_kernel(
    members: Sequence[LstmMember],
    addresses: Sequence[int],
    recipe: LstmRecipe,
    threads: int,
    on_progress: Callable[[float], None],
) -> list[LstmHistory]:
    """Train all members, one network a thread. ``addresses`` are those of compiled losses, 0 for the mixture."""
    networks = [_Network(*pair, recipe) for pair in zip(members, addresses, strict=True)]
    _join(networks)
    ready = sorted((one for one in networks if one.source is None), key=_Network.order)
    preparation, train = Preparation(recipe), compiled()
    whole = sum(one.cost * (one.steps - one.begin) for one in networks)
    running: dict[Future[int], _Network] = {}
    ready[0].prepare(preparation)
    _compile(train, ready[0].call())
    with ThreadPoolExecutor(threads, thread_name_prefix="crossfade") as pool:
        try:
            while ready or running:
                while ready and len(running) < threads:
                    network = ready.pop(0)
                    network.prepare(preparation)
                    running[pool.submit(train, *network.call())] = network
                finished, _ = wait(running, _POLL, FIRST_COMPLETED)
                for future in finished:
                    network = running.pop(future)
                    others = network.ended(future.result())
                    ready = [*([] if network.history else [network]), *sorted([*ready, *others], key=_Network.order)]
                trained = sum(one.cost * max(0, int(one.progress[0]) - one.begin) for one in networks)
                on_progress(min(trained / whole, 1.0))
        except BaseException:
            preparation.stop[0] = 1
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [one.history for one in networks if one.history is not None]


class _Network:
    """A member on its way: which step it begins at, who goes on from it, and its state."""

    def __init__(self, member: LstmMember, address: int, recipe: LstmRecipe) -> None:
        self.member, self.address = member, address
        self.mixture = mixture(member.method.schedule, recipe, len(member.split.train))
        self.steps = recipe.epochs * -(-len(member.split.train) // recipe.batch_size)
        self.cost = cost(member.split, recipe) * recipe.epochs / self.steps
        self.source: _Network | None = None
        self.begin, self.stop, self.chosen = 0, 0, -1
        self.others: list[_Network] = []
        self.progress = np.zeros(1, dtype=np.int64)
        self.given: tuple[NDArray[Any], ...] = ()
        self.arguments: Arguments = ()
        self.history: LstmHistory | None = None

    def order(self) -> tuple[Any, ...]:
        """The longest first; then those that share data."""
        return -self.cost * (self.steps - self.begin), id(self.member.split), self.member.seed

    def shared(self, other: _Network) -> int:
        """How many steps both train alike."""
        mine, its = self.member, other.member
        if self.address or other.address or mine.split is not its.split or mine.seed != its.seed:
            return 0
        differ = (self.mixture != other.mixture).any(axis=2).ravel()  # of each epoch or step
        return int(differ.argmax()) * self.steps // len(differ) if differ.any() else self.steps

    def prepare(self, preparation: Preparation) -> None:
        if not self.arguments:
            self.arguments = preparation.arguments(self.member, self.mixture, self.address, self.progress)
            for mine, given in zip(kept(self.arguments), self.given, strict=False):
                mine[:] = given
            self.given = ()

    def call(self) -> Arguments:
        """The kernel's arguments for the steps until another network goes on from here, or all."""
        begin = int(self.progress[0])
        self.stop = min([*(other.begin for other in self.others), self.steps])
        return (*self.arguments[1:], (begin, self.stop, self.chosen))

    def ended(self, chosen: int) -> list[_Network]:
        """A call has. Returns who can go on from here."""
        self.chosen, at = chosen, int(self.progress[0])
        over = at < self.stop or at == self.steps  # diverged, or all trained
        now = [other for other in self.others if over or other.begin == at]
        self.others = [other for other in self.others if other not in now]
        for other in now:
            if over:
                other.same_as(self)
            else:
                other.given, other.chosen = tuple(values.copy() for values in kept(self.arguments)), chosen
                other.progress[0] = at
        if over:
            self.history, self.progress[0] = self.result(), self.steps
            self.arguments = ()
        return [other for other in now if not other.history]

    def same_as(self, source: _Network) -> None:
        """Nothing parts the two."""
        self.history, self.progress[0] = source.result(), self.steps
        for other in self.others:
            other.same_as(source)

    def result(self) -> LstmHistory:
        plan, (_layout, dense, vectors), (curves, shown, _now) = (self.arguments[at] for at in (0, 3, 7))
        probabilities = shown.reshape(-1, int(plan.table[CLASSES]))
        return history(curves, self.chosen, probabilities, plan.unpack(dense[4], vectors[3]), "stacked")


def _join(networks: Sequence[_Network]) -> None:
    """Who goes on from whom, and when."""
    for at, network in enumerate(networks):
        for earlier in networks[:at]:
            steps = earlier.shared(network)
            if steps > network.begin and steps >= earlier.begin:
                network.source, network.begin = earlier, steps
        if network.source is not None:
            network.source.others.append(network)


def _compile(train: Any, arguments: Arguments) -> None:
    try:
        train.compile(tuple(numba.typeof(argument) for argument in arguments))
    except OSError as error:  # it is compiled by now; what failed is keeping it for the next time
        _log.warning("the compiled kernel could not be kept on disk: %s", error)
