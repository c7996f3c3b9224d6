from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.kill import cases, child


@pytest.fixture(scope="session")
def start():
    """Return a function that runs a command in a folder, and returns the exit status of its process.

    The processes are forks of one that has done the slow imports.
    """
    context = multiprocessing.get_context("forkserver")
    modules = ["tests.kill.cases", "crossfade.lab.train.deep.run", "crossfade.lab.train.lstm.run", "crossfade.report",
               "crossfade.lab.paper.why.study", "crossfade.cli.compare", "crossfade.cli.run", "crossfade.cli.why",
               "crossfade.lab.paper.table4_page", "crossfade.lab.train.tables.run", "sklearn.compose",
               "crossfade.lab.paper.figure2", "crossfade.lab.comparison", "crossfade.stats.compare"]  # fmt: skip
    context.set_forkserver_preload(modules)

    def start(command, folder, **options):
        process = context.Process(target=child.run, args=(command, folder), kwargs=options)
        process.start()
        process.join(240)
        assert process.exitcode is not None, f"it didn't end: {(folder / 'err').read_text()}"
        return process.exitcode

    return start


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    return cases.data(tmp_path_factory.mktemp("inputs") / "data")


@pytest.fixture(scope="session")
def undisturbed(start, inputs, tmp_path_factory):
    """Return a function that returns the folder of a case that nothing has struck."""
    done = {}

    def undisturbed(case):
        if case not in done:
            folder = tmp_path_factory.mktemp(case)
            assert start(cases.command(case, inputs), folder) == 0, (folder / "err").read_text()
            done[case] = folder
        return done[case]

    return undisturbed


@pytest.fixture(params=["same", pytest.param("other", marks=pytest.mark.kill)])
def place(request, tmp_path):
    """A folder in the file system of temporary files, or in another one."""
    if request.param == "same":
        yield tmp_path
        return
    elsewhere = [path for path in (Path("/dev/shm"), Path.home(), Path("/var/tmp")) if path.is_dir()]
    others = [path for path in elsewhere if path.stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev]
    if not others:
        pytest.skip("this machine has one file system alone")
    folder = Path(tempfile.mkdtemp(prefix="crossfade-", dir=others[0]))
    yield folder
    shutil.rmtree(folder)
