import contextlib
import multiprocessing
import os
import runpy

import pytest

from tests.diagnostics.dense_truth import Small, small_network


@pytest.fixture
def small() -> Small:
    return small_network()


@pytest.fixture
def start_script(tmp_path):
    """Start a script's text in a process that has its imports already, forked off a server; return the process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch.func", "crossfade.cli.why", "crossfade.lab.paper.why.study", "crossfade.lab.train.tables.plain"]
    )

    def start(text):
        script = tmp_path / "script.py"
        script.write_text(text)
        process = context.Process(target=_quietly, args=(str(script),))
        process.start()
        return process

    return start


def _quietly(script):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        runpy.run_path(script, run_name="__main__")
