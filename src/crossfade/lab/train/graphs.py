"""Steps of training as CUDA graphs."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

__all__ = ["Graphs"]

_WARM_UP = 2  # calls, of any of those that are alike, that compile and load what a capture must find there


class Graphs:
    """Runs calls that read and write memory that stays where it is: at first as they are, then as CUDA graphs.

    Graphs of several objects can run side by side: each has a stream, and random numbers of its own once it is seeded.
    On other devices every call runs as it is.

    Args:
        device: Where.
        seen: Which calls were made how often: the same object for those whose calls of a key are alike.
    """

    def __init__(self, device: torch.device, seen: Counter[object] | None = None) -> None:
        self.device, self.stream = device, None
        self._known: dict[object, Any] = {}
        self._seen: Counter[object] = Counter() if seen is None else seen
        self._began = False
        self._pool: Any = None
        self._random: Any = None  # a generator on a GPU, elsewhere the state of one
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def seed(self, seed: int) -> None:
        """What the following calls draw from the global generator is theirs alone, and moves no other's."""
        if self.stream is None:
            self._random = torch.Generator().manual_seed(seed).get_state()
        elif self._random is None:
            self._random = self._default().clone_state()
        if self.stream is not None:
            self._random.manual_seed(seed)

    def run(self, key: object, call: Callable[[], None]) -> None:
        """Run the call, or what was captured of it when it came with this key before."""
        with torch.cuda.stream(self.stream):
            # The first call of all makes what stays: an optimizer's state.
            if self.stream is None or not self._began or self._seen[key] < _WARM_UP:
                self._began = True
                self._seen[key] += 1
                with self._drawing(), nullcontext() if self.stream is None else _nothing_drawn_here():
                    call()
                return
            if key not in self._known:
                graph = torch.cuda.CUDAGraph()
                with (
                    _uninterrupted(),
                    self._drawing(),
                    torch.cuda.graph(graph, pool=self._pool, stream=self.stream),
                ):
                    call()
                self._pool, self._known[key] = self._pool or graph.pool(), graph
            self._known[key].replay()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        if self._random is None:
            yield
        elif self.stream is None:
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self._random)
                yield
                self._random = torch.get_rng_state()
        else:
            default = self._default()
            before = default.graphsafe_get_state()
            default.graphsafe_set_state(self._random.graphsafe_get_state())
            try:
                yield
            finally:
                default.graphsafe_set_state(before)

    def _default(self) -> torch.Generator:
        index = self.device.index
        return torch.cuda.default_generators[torch.cuda.current_device() if index is None else index]


@contextmanager
def _nothing_drawn_here() -> Iterator[None]:
    """Raises RuntimeError if the call draws random numbers on the host: a graph would repeat what was drawn once."""
    before = torch.get_rng_state(), random.getstate()
    yield
    if not torch.equal(torch.get_rng_state(), before[0]) or random.getstate() != before[1]:
        raise RuntimeError("a step draws random numbers on the host, and can't be a CUDA graph")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C comes afterwards: in the middle of a capture it can end the process without a word."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
