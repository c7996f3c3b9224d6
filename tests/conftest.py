from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import socket
import threading
import traceback

import pytest
from hypothesis import HealthCheck, settings

# Tests run side by side, and a small network gains nothing from threads that wait for each other: one each, in the
# processes that tests start as well. It must be said before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Everybody tries the same examples; HYPOTHESIS_PROFILE=explore draws ten times as many, and other ones every time.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **UNTIMED)
settings.register_profile("explore", max_examples=1000, print_blob=True, **UNTIMED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A shell that starts the tests in the background has SIGINT ignored, and so would every command that a test interrupts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def frozen_imports():
    """Exempt what has been imported from garbage collection, which the frameworks' trainers start again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def processes():
    """Return a function that calls another in several gloo processes: ``processes(world, function, *arguments)``.

    It returns the result of rank 0. The processes are forks of one that has imported what they all need, so that they
    start quickly. A process that waits for ever is killed, and the test fails.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["crossfade.losses", "torch.distributed.tensor.parallel", "accelerate", "transformers.trainer"]
    )

    def run(world, function, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        answers = context.SimpleQueue()
        started = [
            context.Process(target=gloo_process, args=(rank, world, port, answers, function, *arguments))
            for rank in range(world)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(timeout=300)
        codes = [process.exitcode for process in started]
        for process in started:
            if process.is_alive():
                process.kill()
        failed = codes != [0] * world
        assert not failed, f"exit codes {codes}" if answers.empty() else answers.get()
        return answers.get()

    return run


def gloo_process(rank, world, port, answers, function, *arguments):
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
    )
    import torch

    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group("gloo")
        answer = function(*arguments)
        if rank == 0:
            answers.put(answer)
        torch.distributed.destroy_process_group()
    except BaseException:
        answers.put(f"process {rank}: {traceback.format_exc()}")
        os._exit(1)  # the others wait for this one and are killed


@pytest.fixture
def call(capsys):
    """Run a command in this process: (exit status, standard output, standard error)."""

    from crossfade.cli import main

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return call


@pytest.fixture
def replayed():
    """``Graphs`` that prepares, captures and replays on the CPU, too: a capture is the call itself."""
    from types import SimpleNamespace

    from crossfade.kernels.graphs import Graphs

    class Replayed(Graphs):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.captures = True

        def _captured(self, call):
            return SimpleNamespace(replay=lambda: self._drawn(call))

        def _drawn(self, call):
            with self._drawing():
                call()

    return Replayed
