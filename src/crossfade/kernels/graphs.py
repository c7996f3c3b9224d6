"""CUDA graphs of training steps."""

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

_WARM_UP = 2  # calls that compile and load kernels before a capture; similar calls share them


class Graphs:
    """CUDA graphs of calls that read and write memory at fixed addresses.

    The graphs of several objects can run side by side, as each object has its own stream and, once it is seeded, its
    own random numbers. On other devices every call runs directly.

    Args:
        device: Where the calls run.
        state: Returns all tensors that a call changes and a later one depends on. Warm-up calls leave them unchanged.
        seen: The number of warm-up calls by key. Objects whose calls run the same kernels share one counter.
        stream: The stream to run on; by default a new one.
    """

    def __init__(
        self,
        device: torch.device,
        state: Callable[[], Iterable[Tensor]],
        seen: Counter[object] | None = None,
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        self.device, self.stream, self.captures = device, stream, device.type == "cuda"
        self._state = state
        self._seen: Counter[object] = Counter() if seen is None else seen
        self._known: dict[object, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None
        self._random: torch.Generator | None = None  # None is the global one
        if self.captures and stream is None:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def seed(self, seed: int) -> None:
        """Let the following calls use a random generator of their own instead of the global one."""
        if self._random is None:
            self._random = self._default().clone_state()
        self._random.manual_seed(seed)

    def run(self, key: object, call: Callable[[], None]) -> None:
        """Run the call or, on CUDA, replay the graph of the first call with this key."""
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
        self._random = own and own.clone_state()
        try:
            while self._seen[key] < _WARM_UP:
                self._seen[key] += 1
                try:
                    with self._drawing(), _nothing_drawn_here() if self.stream is not None else nullcontext():
                        call()
                finally:  # after each call, as the next one may have another shape
                    with torch.no_grad():
                        for tensor, before in kept:
                            tensor.copy_(before)
        finally:
            self._random = own

    def _captured(self, call: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with _uninterrupted(), self._drawing(), torch.cuda.graph(graph, pool=self._pool, stream=self.stream):
            call()
        self._pool = self._pool or graph.pool()
        return graph

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        default = self._default()
        if self._random is None:
            yield
        elif self.stream is None:
            with torch.random.fork_rng(devices=[]):
                default.set_state(self._random.get_state())
                yield
                self._random.set_state(default.get_state())
        else:
            before = default.graphsafe_get_state()
            default.graphsafe_set_state(self._random.graphsafe_get_state())
            try:
                yield
            finally:
                default.graphsafe_set_state(before)

    def _default(self) -> torch.Generator:
        if self.stream is None:
            return torch.default_generator
        index = self.device.index
        return torch.cuda.default_generators[torch.cuda.current_device() if index is None else index]


def begun(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer with the state tensors of its first step, set to zero, since graphs can't create them.

    The weights must not change by a step without gradients: the rate or the weight decay is zero.
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
    """Return the tensors of an optimizer's state."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether a device's memory was full, also if another error followed within a capture."""
    while error is not None and not isinstance(error, torch.cuda.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def empty_memory() -> None:
    """Release the device's unused memory."""
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def _nothing_drawn_here() -> Iterator[None]:
    """Raise RuntimeError if the call draws random numbers on the host, which a graph would repeat in every step."""
    before = torch.get_rng_state(), random.getstate()
    yield
    if not torch.equal(torch.get_rng_state(), before[0]) or random.getstate() != before[1]:
        raise RuntimeError("a step draws random numbers on the host, and can't be a CUDA graph")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C and the like, which can end the process without a message during a capture."""
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    numbers = {getattr(signal, name, signal.SIGINT) for name in ("SIGINT", "SIGTERM", "SIGHUP") if here}
    before = {number: signal.getsignal(number) for number in numbers if callable(signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
