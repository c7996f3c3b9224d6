import multiprocessing
import runpy

import pytest

from tests.diagnostics.dense_truth import Small, small_network


@pytest.fixture
def small() -> Small:
    return small_network()


@pytest.fixture(scope="session")
def fork_server():
    """Multiprocessing's context that forks processes off a server, in which the slow imports are done already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "sklearn.datasets",
            "scipy.sparse.linalg",
            "torch._dynamo",
            "crossfade.cli.why",
            "crossfade.lab.paper.why.study",
            "crossfade.lab.train.tables.plain",
        ]
    )
    return context


@pytest.fixture
def start_script(fork_server, tmp_path):
    """Start a script's text in a process off the fork server, and return the process."""

    def start(text):
        script = tmp_path / "script.py"
        script.write_text(f"import os, sys\nsys.stdout = sys.stderr = open(os.devnull, 'w')\n{text}")
        process = fork_server.Process(target=runpy.run_path, args=(str(script),), kwargs={"run_name": "__main__"})
        process.start()
        return process

    return start
