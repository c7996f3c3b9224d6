"""`crossfade run table4` as a user runs it, on real sets in the published layout, here and on a Ray cluster."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from crossfade.cli import main
from crossfade.lab import frames
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import METHODS
from crossfade.lab.paper import figure2
from crossfade.lab.paper.image_studies import IMAGE_STUDIES
from crossfade.lab.paper.study import Request, Study, plan
from crossfade.lab.paper.table3 import STUDY as TABLE3
from crossfade.lab.paper.table4 import STUDY
from crossfade.lab.paper.table4_page import NETS, PAPER
from crossfade.lab.run import Summary, run
from crossfade.lab.store import Outcome, Store
from crossfade.lab.train.executor import Batch, Executor, Tick
from crossfade.lab.train.tables.run import executor
from crossfade.lab.trial import Trial
from tests.lab.uci_copy import write_uci

COLLECT = Path(__file__).parents[2] / "results" / "collect_table4.py"

SETS = ("iris", "wine", "breast-cancer-wisc-diag")
TRIALS = 3 * 2 * 6 * 2  # data sets, networks, methods, seeds
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_uci(tmp_path_factory.mktemp("data"))


def command(data: Path, store: Path, *more: str, scale: str = "short") -> list[str]:
    page = store.with_suffix(".html")
    given = ["--data-dir", str(data), "--store", str(store), "--report", str(page), "--scale", scale, *more]
    return ["run", "table4", *given]


def results(path: Path) -> pd.DataFrame:
    with Store(path, "read") as store:
        return frames.results(store).drop(columns="seconds").sort_values("key", ignore_index=True)


class Whole(NamedTuple):
    """A run that nothing has disturbed: its store and what it printed."""

    store: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    store = tmp_path_factory.mktemp("whole") / "t.db"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main(command(data, store))
    assert stopped.value.code == 0, err.getvalue()
    return Whole(store, out.getvalue(), err.getvalue())


def test_end_to_end(call: Call, data: Path, whole: Whole) -> None:
    assert "3 of 121 UCI sets" in whole.err
    assert "miniboone" in whole.err
    for heading in (*NETS.values(), "Friedman", "2.12"):  # the paper's mean rank of the gradual fade
        assert heading in whole.out
    page = whole.store.with_suffix(".html").read_text()
    assert "miniboone" in page
    assert "<svg" in page
    assert all(f"{net}, seed {seed}" in page for seed in (0, 1) for net in NETS.values())  # Figure 3's panels
    assert whole.out.count("Temperature") == len(NETS)
    assert "before and after one temperature" in page
    frame = results(whole.store)
    assert len(frame) == TRIALS
    assert frame["temperature"].gt(0).all()
    assert set(frame["n_test"].groupby(frame["dataset"]).nunique()) == {1}
    code, again, err = call(*command(data, whole.store))
    assert code == 0
    assert "0 trials computed" in err
    assert again == whole.out


@pytest.mark.parametrize(
    ("study", "given", "scale"),
    [
        (STUDY, {}, "paper"),
        (STUDY, {"recipe": {"momentum": 0.0}}, "paper"),  # the other reading of what isn't printed
        (STUDY, {"recipe": {"learning_rates": (0.1,)}}, "own"),
        (STUDY, {"recipe": {"learning_rates": (0.1,)}, "scale": "smoke"}, "smoke"),
        (TABLE3, {"epochs": 10}, "paper"),
        (TABLE3, {"epochs": 3}, "own"),
        (TABLE3, {"recipe": {"batch_size": 32}}, "own"),
        (figure2.study(), {"recipe": {"learning_rate": 2e-5, "accumulate": 1}}, "paper"),
        (figure2.study(), {"recipe": {"learning_rate": 1e-3}}, "own"),
        (IMAGE_STUDIES["table1"], {"epochs": 12}, "own"),
        (IMAGE_STUDIES["table1"], {"epochs": 12, "scale": "short"}, "short"),
        (IMAGE_STUDIES["table5"], {"recipe": {"precision": "bf16-mixed"}}, "paper"),
    ],
)
def test_scales_are_named_alike_in_every_study(study: Study, given: dict[str, object], scale: str) -> None:
    assert study.scale_label(Request(Path(), **given)) == scale


def test_a_loss_of_one_s_own_is_a_row(call: Call, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("import torch\n\ndef cubic(ce):\n    return (1 - torch.exp(-ce)) ** 3\n")
    more = ["--loss", f"{own}:cubic", "--methods", "gradual", "--net", "linear", "--sets", "iris,wine"]
    code, out, err = call(*command(data, tmp_path / "t.db", *more))
    assert code == 0, err
    assert "cubic" in out
    assert set(results(tmp_path / "t.db")["method"]) == {"ce", "gradual", "cubic"}


def test_rivals_and_both_matched_controls_are_rows_like_the_others(call: Call, data: Path, tmp_path: Path) -> None:
    names = ["ce", "mpce", "mmc", "cot", "ce-matched", "ce-rate-matched", "ce-rate-matched-off"]
    more = ["--methods", ",".join(names), "--net", "linear", "--sets", "iris,wine"]
    code, out, err = call(*command(data, tmp_path / "t.db", *more))
    assert code == 0, err
    frame = results(tmp_path / "t.db")
    assert set(frame["method"]) == set(names)
    assert set(frame["engine"]) == {"kernel"}
    assert all(re.search(rf"^ *{name} ", out, re.M) for name in names)
    assert frame.groupby("method")["nll"].mean().nunique() == len(names)


@pytest.mark.parametrize("net", ["both", "linear,mlp"])
def test_both_networks_can_be_named(call: Call, data: Path, tmp_path: Path, net: str) -> None:
    code, _, err = call(*command(data, tmp_path / "t.db", "--net", net, "--sets", "iris", "--plan"))
    assert code == 0, err
    assert "Linear classifier" in err
    assert "One hidden layer" in err


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--seeds", "0"], "--seeds"),
        (["--splits", "5"], "--splits"),
        (["--net", "deep"], "--net"),
        (["--methods", "ce"], "needs one beside ce"),
        (["--methods", "ce,gradul"], "gradual"),
        (["--sets", "irs"], "iris"),
        (["--workers", "0"], "--workers"),
        (["--scale", "tiny"], "scale"),
        (["--ray", "127.0.0.1:1"], "no cluster answers"),
    ],
)
def test_bad_requests_are_one_line(call: Call, data: Path, tmp_path: Path, more: list[str], line: str) -> None:
    if "--ray" in more:
        pytest.importorskip("ray")
    code, _, err = call(*command(data, tmp_path / "t.db", *more))
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert line in last
    assert "Traceback" not in err


def _run(data: Path, path: Path, execute: Executor | None = None, *, seeds: int = 2, splits: int = 1) -> Summary:
    names = tuple(method.name for method in METHODS if method.name in ("ce", "gradual", "focal"))
    request = Request(data, "smoke", datasets=SETS, methods=names, repeats=seeds)
    planned = plan(replace(STUDY, splits=splits), request, "test")
    with Store(path) as store:
        for one in planned.runs:
            store.save(one)
        return run(planned.trials, store, execute=execute)


def test_seeds_and_splits_extend_what_is_known(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    assert _run(data, path, seeds=1).done == 18
    more = _run(data, path, seeds=2, splits=2)
    assert (more.known, more.done) == (18, 54)


def test_other_ties_come_from_the_curves(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    _run(data, path)
    with Store(path, "read") as store:
        found, curves = frames.results(store), frames.curves(store)
    with_tie = runpy.run_path(str(COLLECT))["with_tie"]
    key = ["dataset", "method", "repeat", "net"]
    first = with_tie(found, curves, "first").sort_values(key, ignore_index=True)
    expected = found.sort_values(key, ignore_index=True)
    pd.testing.assert_series_equal(first["epoch"], expected["epoch"], check_dtype=False)
    pd.testing.assert_series_equal(first["accuracy"], expected["accuracy"])
    last = with_tie(found, curves, "last").sort_values(key, ignore_index=True)
    assert (last["epoch"] >= first["epoch"]).all()
    assert (last["epoch"] > first["epoch"]).any()


def test_the_printed_numbers() -> None:
    for net in NETS:
        assert list(PAPER[net]) == ["ce", "f0", "f0-late", "gradual", "el", "focal"]
        assert min(PAPER[net], key=lambda name: PAPER[net][name].rank) == "gradual"


@pytest.mark.slow
def test_on_a_ray_cluster_with_a_node_killed(data: Path, tmp_path: Path) -> None:
    """Three nodes on this machine; one dies while it works; the numbers are those of a run here."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from crossfade.lab.ray import on_ray

    _run(data, tmp_path / "here.db", executor(Hardware(threads=1)))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        cluster.wait_for_nodes()
        there = Hardware(threads=1, ray=cluster.address)
        distributed = on_ray(there, lambda hardware, work, keep: executor(hardware), tmp_path / "work")
        killed = []

        def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
            small = [(trial,) for batch in batches for trial in batch]
            for count, pair in enumerate(distributed(small, tick)):
                if count == 3:
                    cluster.remove_node(nodes[0], allow_graceful=False)
                    killed.append(count)
                yield pair

        summary = _run(data, tmp_path / "ray.db", execute)
    finally:
        cluster.shutdown()
    assert killed
    assert summary.failed == 0
    pd.testing.assert_frame_equal(results(tmp_path / "ray.db"), results(tmp_path / "here.db"))
