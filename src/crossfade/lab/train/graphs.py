"""Steps of training as CUDA graphs."""

from __future__ import annotations

import gc
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

_WARM_UP = 2  # calls, of any of those that are alike, that compile and load what a capture must find there


class Graphs:
    """CUDA graphs of calls that read and write memory which stays where it is.

    Graphs of several objects can run side by side: each has a stream, and random numbers of its own once it is seeded.
    On other devices every call runs as it is.

    Args:
        device: Where.
        state: All that a call changes and a later one depends on. What only prepares a capture leaves no trace in it.
        seen: Which calls were prepared how often: the same object for those whose calls of a key are alike.
        stream: Where to run; default: on one of its own.
    """

    def __init__(
        self,
        device: torch.device,
        state: Callable[[], Iterable[Tensor]],
        seen: Counter[object] | None = None,
        stream: Any = None,
    ) -> None:
        self.device, self.stream, self.captures = device, stream, device.type == "cuda"
        self._state = state
        self._seen: Counter[object] = Counter() if seen is None else seen
        self._known: dict[object, Any] = {}
        self._pool: Any = None
        self._random: Any = None  # a generator on a GPU, elsewhere the state of one
        if self.captures and stream is None:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def seed(self, seed: int) -> None:
        """Let the following calls draw from a generator of their own, in place of the global one."""
        if self.stream is None:
            self._random = torch.Generator().manual_seed(seed).get_state()
            return
        if self._random is None:
            self._random = self._default().clone_state()
        self._random.manual_seed(seed)

    def run(self, key: object, call: Callable[[], None]) -> None:
        """Run the call, as it was captured when it came with this key first."""
        with torch.cuda.stream(self.stream):
            if not self.captures:
                with self._drawing():
                    call()
                return
            if key not in self._known:
                self._prepare(key, call)
                self._known[key] = self._captured(call)
            self._known[key].replay()

    def _prepare(self, key: object, call: Callable[[], None]) -> None:
        if self._seen[key] >= _WARM_UP:
            return
        kept = [(tensor, tensor.clone()) for tensor in self._state()]
        own = self._random
        if own is not None:
            self._random = own.clone() if self.stream is None else own.clone_state()
        try:
            while self._seen[key] < _WARM_UP:
                self._seen[key] += 1
                try:
                    with self._drawing(), _nothing_drawn_here() if self.stream is not None else nullcontext():
                        call()
                finally:  # after each: the next step is of another shape, maybe
                    with torch.no_grad():
                        for tensor, before in kept:
                            tensor.copy_(before)
        finally:
            self._random = own

    def _captured(self, call: Callable[[], None]) -> Any:
        graph = torch.cuda.CUDAGraph()
        with _uninterrupted(), self._drawing(), torch.cuda.graph(graph, pool=self._pool, stream=self.stream):
            call()
        self._pool = self._pool or graph.pool()
        return graph

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


def begun(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer with its state as it is before a first step: what a graph writes must be there already.

    Either its rate is zero, or a step without a gradient changes nothing, as SGD's and Adam's without weight decay.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    for tensor in optimizer_state(optimizer):
        tensor.zero_()
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the tensors in which an optimizer remembers earlier steps."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether a device's memory was full; in a capture another error can take the first one's place."""
    while error is not None and not isinstance(error, torch.cuda.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def empty_memory() -> None:
    """Give back the device's memory that nothing uses any more."""
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def _nothing_drawn_here() -> Iterator[None]:
    """Raise RuntimeError if the call draws random numbers on the host: a graph would repeat what was drawn once."""
    before = torch.get_rng_state(), random.getstate()
    yield
    if not torch.equal(torch.get_rng_state(), before[0]) or random.getstate() != before[1]:
        raise RuntimeError("a step draws random numbers on the host, and can't be a CUDA graph")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off: in the middle of a capture it can end the process without a word."""
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
