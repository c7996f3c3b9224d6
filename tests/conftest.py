from __future__ import annotations

import gc
import signal
import threading

import pytest

# A shell that starts the tests in the background has SIGINT ignored, and so would every command that a test interrupts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    """Exempt the imported modules from garbage collection, which trainers ask for again and again."""
    gc.collect()
    gc.freeze()


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

    from crossfade.lab.train.graphs import Graphs

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
