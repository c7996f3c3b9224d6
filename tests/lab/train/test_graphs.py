"""What surrounds a captured step: random numbers, and Ctrl-C. Graphs themselves need a GPU; see the users' tests."""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest
import torch

from crossfade.lab.train import graphs
from crossfade.lab.train.graphs import Graphs


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
    one, other = Graphs(torch.device("cpu")), Graphs(torch.device("cpu"))
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
    Graphs(torch.device("cpu")).run("draw", lambda: seen.append(torch.rand(())))
    assert torch.equal(seen[0], expected)
