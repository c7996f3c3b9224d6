"""Killed with -9 at random moments and run again, a comparison ends with the numbers of an undisturbed one."""

import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import pytest

KILLS = 20
COMMAND = [
    "compare", "--methods", "ce,gradual,el", "--repeats", "4", "--epochs", "2", "--learning-rates", "0.01,0.001",
    "--net", "linear", "--json", "out.json", "--workers", "1",
]  # fmt: skip

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork server, to start many processes quickly")


def command(folder):
    """The whole command, as a process runs it."""
    os.chdir(folder)
    with open(os.devnull, "w") as silent:
        sys.stdout = sys.stderr = silent
        from crossfade.cli import main

        main(COMMAND)


@pytest.fixture(scope="module")
def start():
    """Start the command in a fresh process that has its imports already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["crossfade.lab.comparison", "crossfade.lab.train", "crossfade.stats", "crossfade.report"]
    )

    def start(folder: Path):
        process = context.Process(target=command, args=(folder,))
        process.start()
        return process

    return start


def numbers(folder):
    found = json.loads((folder / "out.json").read_text())
    for row in found["results"]:
        del row["seconds"]
    return found["results"], found["comparison"], found["verdict"]


def test_killed_at_random_moments_and_run_again(start, tmp_path):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    quiet.mkdir()
    killed.mkdir()
    started = time.monotonic()
    whole = start(quiet)
    whole.join()
    took = time.monotonic() - started
    assert whole.exitcode == 0

    draw = random.Random(os.getpid())
    died, unfinished = 0, 0
    for _ in range(KILLS):
        process = start(killed)
        process.join(draw.uniform(0.0, took))
        process.kill()
        process.join()
        died += process.exitcode == -9
        unfinished += not (killed / "out.json").exists()
        for leftover in killed.glob("*.json"):  # each attempt has something left to do
            leftover.unlink()
        if draw.random() < 0.3:
            for file in killed.glob("crossfade.db*"):
                file.unlink()
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    assert died > KILLS // 4  # or it proves nothing
    assert numbers(killed) == numbers(quiet)
    assert sorted(os.listdir(killed)) == sorted(os.listdir(quiet)) == ["crossfade.db", "out.json", "report.html"]
