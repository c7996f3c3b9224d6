from __future__ import annotations

import os
import signal
import threading

import pytest
from hypothesis import HealthCheck, settings

# Everybody tries the same examples; HYPOTHESIS_PROFILE=explore draws ten times as many, and other ones every time.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **UNTIMED)
settings.register_profile("explore", max_examples=1000, print_blob=True, **UNTIMED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A shell that starts the tests in the background has SIGINT ignored, and so would every command that a test interrupts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
