"""What surrounds a captured step: random numbers, and Ctrl-C. Graphs themselves need a GPU; see the users' tests."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter

import pytest
import torch

from crossfade.kernels import graphs
from crossfade.kernels.graphs import Graphs, begun, optimizer_state, out_of_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), random.random, lambda: torch.zeros(3).bernoulli_()])
def test_what_draws_on_the_host_is_refused(draw):
    with graphs._nothing_drawn_here():
        torch.rand((), generator=torch.Generator().manual_seed(1))
    with pytest.raises(RuntimeError, match="draws random numbers on the host"), graphs._nothing_drawn_here():
        draw()


def interrupted(then):
    with graphs._uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        then()


def test_ctrl_c_waits_for_the_end_of_a_capture():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(lambda: reached.append(1))
    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_outlives_an_error_in_a_capture():
    def fail():
        raise RuntimeError("capture")

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted(fail)
    assert isinstance(caught.value.__context__, RuntimeError)


def test_on_another_thread_nothing_is_installed():
    def work():
        with graphs._uninterrupted():
            found.append(signal.getsignal(signal.SIGINT))

    found = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_draws_belong_to_each_and_to_its_seed():
    """And the caller's generator stays where it is."""

    def sequence(one, count):
        found = []
        for _ in range(count):
            one.run("draw", lambda: found.append(torch.rand(()).item()))
        return found

    before = torch.get_rng_state()
    one, other = Graphs(CPU, list), Graphs(CPU, list)
    one.seed(1)
    other.seed(2)
    first = sequence(one, 2)
    sequence(other, 3)
    first += sequence(one, 2)
    assert len(set(first)) == 4
    one.seed(1)
    assert sequence(one, 4) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_it_draws_from_the_global_generator():
    seen = []
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    Graphs(CPU, list).run("draw", lambda: seen.append(torch.rand(())))
    assert torch.equal(seen[0], expected)


def test_the_state_is_put_back_after_preparing(replayed):
    """And what is drawn for it is drawn again; calls that are alike are prepared twice in all, a key by itself."""
    calls, value, seen = [], torch.zeros(3), Counter()

    def call():
        calls.append(1)
        value.add_(torch.rand(3))

    one, other = (replayed(CPU, lambda: [value], seen) for _ in range(2))
    one.seed(4)
    one.run("a", call)
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(value, torch.rand(3, generator=generator))
    assert len(calls) == 3
    before = value.clone()
    one.run("a", call)
    assert torch.equal(value, before + torch.rand(3, generator=generator))
    other.seed(4)
    other.run("a", call)
    assert len(calls) == 5
    other.run("b", call)
    assert len(calls) == 8


def test_a_failed_preparation_leaves_no_trace_either(replayed):
    value = torch.zeros(3)

    def call():
        value.add_(1.0)
        raise RuntimeError("full")

    graphs_ = replayed(CPU, lambda: [value])
    with pytest.raises(RuntimeError, match="full"):
        graphs_.run("a", call)
    assert not value.any()


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: torch.optim.SGD(weights, torch.tensor(0.0), 0.9, weight_decay=0.1),
        lambda weights: torch.optim.AdamW(weights, torch.tensor(0.0), weight_decay=0.1),
        lambda weights: torch.optim.Adam(weights, 1e-3),
    ],
)
def test_an_optimizer_begun_is_a_new_one(make):
    """With all of its memory there, and the same steps afterwards."""
    initial = [torch.randn(4, 3), torch.randn(2)]
    mine, theirs = ([tensor.clone().requires_grad_() for tensor in initial] for _ in range(2))
    ours, fresh = begun(make(mine)), make(theirs)
    assert optimizer_state(ours)
    assert all(torch.equal(a, b) for a, b in zip(mine, initial, strict=True))
    assert all(weight.grad is None for weight in mine)
    places = [value.data_ptr() for value in optimizer_state(ours)]
    for step in range(3):
        for weights, optimizer in ((mine, ours), (theirs, fresh)):
            if isinstance(optimizer.param_groups[0]["lr"], torch.Tensor):
                optimizer.param_groups[0]["lr"].fill_(0.1)
            for weight in weights:
                weight.grad = torch.full_like(weight, step + 1.0)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert places == [value.data_ptr() for value in optimizer_state(ours)]


def test_a_full_memory_is_known_by_any_name():
    def capture():
        try:
            raise torch.cuda.OutOfMemoryError("full")
        finally:
            raise RuntimeError("capture failed")

    with pytest.raises(RuntimeError) as caught:
        capture()
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("else"))
