"""A comparison that is stopped or killed at any moment, and run again, ends with the numbers of an undisturbed one."""

import json
import multiprocessing
import os
import random
import re
import runpy
import signal
import time

import pytest
from sklearn.datasets import load_wine

from crossfade.lab.store import Store

KILLS = 8
# A repeat a batch, so that there are many moments between two of them.
SCRIPT = """
import os, sys
import crossfade.lab.run
from crossfade.cli import main
crossfade.lab.run._BUDGET = 1.0
os.chdir(os.path.dirname(__file__))
sys.stdout = sys.stderr = open(os.devnull, "w")
main(["compare", "../wine.csv", "--target", "target", "--methods", "ce,gradual,el", "--repeats", "12", "--epochs", "5",
      "--learning-rates", "0.01,0.001", "--workers", "1", "--json", "out.json"])
"""
TRIALS = 36

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork server, to start many processes quickly")


@pytest.fixture(scope="module")
def start():
    """Start the command in a fresh process that has its imports already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "torch", "sklearn.compose", "sklearn.impute", "sklearn.model_selection", "sklearn.preprocessing",
            "crossfade.lab.comparison", "crossfade.lab.data.table", "crossfade.lab.train.tables.threads",
            "crossfade.report", "crossfade.stats.compare",
        ]
    )  # fmt: skip

    def start(folder):
        process = context.Process(
            target=runpy.run_path, args=(str(folder / "run.py"),), kwargs={"run_name": "__main__"}
        )
        process.start()
        return process

    return start


def prepared(folder):
    folder.mkdir()
    (folder / "run.py").write_text(SCRIPT)
    return folder


def known(folder) -> int:
    if not (folder / "crossfade.db").exists() or not (folder / "crossfade.db").stat().st_size:
        return 0
    with Store(folder / "crossfade.db") as store:
        return len(list(store.rows()))


def numbers(folder):
    found = json.loads((folder / "out.json").read_text())
    for row in found["results"]:
        del row["seconds"]
    return found["results"], found["comparison"], found["verdict"]


def test_killed_at_random_moments_and_run_again(start, tmp_path):
    load_wine(as_frame=True).frame.to_csv(tmp_path / "wine.csv", index=False)
    quiet, killed = prepared(tmp_path / "quiet"), prepared(tmp_path / "killed")
    first = start(quiet)
    first.join()  # pays for what a cache keeps
    assert first.exitcode == 0
    expected = numbers(quiet)
    (quiet / "crossfade.db").unlink()
    started = time.monotonic()
    again = start(quiet)
    again.join()
    took = time.monotonic() - started
    assert again.exitcode == 0
    assert numbers(quiet) == expected

    draw = random.Random(os.getpid())
    died, halfway = 0, 0
    for _ in range(20 * KILLS):  # an attempt that ends before its moment proves nothing, and isn't counted
        if died >= KILLS and halfway:
            break
        process = start(killed)
        process.join(draw.uniform(0.0, took))
        process.kill()
        process.join()
        died += process.exitcode == -9
        done = known(killed)
        halfway += 0 < done < TRIALS
        if done == TRIALS:  # the next attempt shall have something left to do
            (killed / "crossfade.db").unlink()
            (killed / "out.json").unlink(missing_ok=True)
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    assert died >= KILLS
    assert halfway > 0
    assert numbers(killed) == expected
    left = {name for name in os.listdir(killed) if not name.startswith(".")}  # a page, if killed while writing it
    assert left == {"crossfade.db", "out.json", "report.html", "run.py"}


STOPPED = """
import os, sys
from crossfade.cli import main
os.chdir(os.path.dirname(__file__))
sys.stdout, sys.stderr = open("../out.txt", "w"), open("../err.txt", "w", buffering=1)
main(["compare", "--epochs", "40", "--methods", "ce,gradual"])
"""


def test_interrupted_it_says_how_to_go_on_and_does(start, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "run.py").write_text(STOPPED)
    told = tmp_path / "err.txt"
    process = start(place)
    deadline = time.monotonic() + 60
    while not (told.exists() and "\n" in told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert told.read_text().startswith("iris, wine")  # what it is going to do: it is under way
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=60)
    assert process.exitcode == 130
    assert not (tmp_path / "out.txt").read_text()
    err = told.read_text()
    assert re.search(r"crossfade: stopped; \d+ of 80 trials are in crossfade.db. Run the same command again", err), err
    assert "Traceback" not in err
    assert sorted(os.listdir(place)) == ["crossfade.db", "run.py"]
