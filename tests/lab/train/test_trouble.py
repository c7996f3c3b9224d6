"""Networks that diverge, requests that can't be met, runs that are interrupted."""

import json
import signal
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest
import torch

from crossfade.errors import UserError
from crossfade.lab.methods import Method, method
from crossfade.lab.train import Member, Recipe, Split, train_stack
from crossfade.lab.train.tables import kernel, threads
from crossfade.lab.train.tables.setup import Record

ENGINES = ("kernel", "batched", "plain")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_divergence_is_reported_not_raised(make_split, engine, net):
    split = make_split()
    wild = Member(
        split, Method("wild", "wild", schedule=lambda progress: (1.0 if progress < 0.5 else 1e30, 0.0)), 1.0, 0
    )
    calm = Member(split, method("f0"), 0.01, 0)
    h, beside = train_stack([wild, calm], Recipe(net=net, epochs=8), engine=engine)
    assert not h.finite
    assert 0 <= h.chosen < 4
    assert np.isfinite(h.curves["train_loss"][:4]).all()
    assert np.isnan(h.curves["train_loss"][-1])
    assert np.isnan(h.curves["val_nll"][-1])
    assert h.curves["val_accuracy"][-1] == h.curves["test_accuracy"][-1] == 0
    assert np.isfinite(h.probabilities).all()
    assert all(np.isfinite(weight).all() for weight in h.weights.values())
    assert beside.finite


@pytest.mark.parametrize("engine", ENGINES)
def test_never_finite(make_split, engine):
    split = make_split()
    split.x_train[:] = np.nan
    members = [Member(split, method("ce"), 0.01, 0), Member(make_split(seed=1), method("ce"), 0.01, 0)]
    h, fine = train_stack(members, Recipe(epochs=3), engine=engine)
    assert (h.chosen, h.finite) == (-1, False)
    assert np.isnan(h.probabilities).all()
    assert all(np.isnan(weight).all() for weight in h.weights.values())
    assert fine.finite


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_val": np.zeros((0, 4)), "y_val": np.zeros(0)}, "validation part has no rows"),
        ({"x_train": np.zeros((0, 4)), "y_train": np.zeros(0)}, "training part has no rows"),
        ({"y_train": np.full(50, 3)}, r"y_train must hold class numbers in \[0, 3\), got 3 to 3"),
        ({"y_test": np.full(17, -1)}, "y_test must hold class numbers"),
        ({"x_test": np.zeros((17, 5))}, "same features"),
        ({"x_val": np.zeros(21)}, "x_val must be"),
        ({"y_val": np.zeros(20)}, "x_val must be"),
        ({"classes": 0}, "classes must be at least 1"),
    ],
)
def test_splits_that_do_not_fit(make_split, change, message):
    with pytest.raises(UserError, match=message):
        Split(**{**vars(make_split()), **change})


@pytest.mark.parametrize(
    "wrong",
    [
        {"net": "conv"}, {"width": 0}, {"width": 2.0}, {"depth": 0}, {"epochs": 0}, {"epochs": True}, {"batch_size": 0},
        {"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}, {"weight_decay": float("nan")},
        {"learning_rates": ()}, {"learning_rates": (0.0,)}, {"learning_rates": (float("inf"),)}, {"granularity": "day"},
        {"tie": "random"}, {"protocol": 0}, {"lr_schedule": "linear"},
    ],
)  # fmt: skip
def test_recipes_out_of_range(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_recipe_is_plain_data():
    for recipe in (Recipe(width=5, learning_rates=[0.1, 0.2]), Recipe(lr_schedule="cosine")):
        twin = Recipe(**json.loads(json.dumps(recipe.to_dict())))
        assert twin == recipe
        assert hash(twin) == hash(recipe)
    assert list(Recipe().to_dict())[-1] == "protocol"  # what came later isn't in the keys of what was stored before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "gpu"}, "engine must be one of"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"device": "abacus"}, "can't be used here"),
        ({"device": "meta", "engine": "kernel"}, "runs on the CPU"),
    ],
)
def test_requests_that_cannot_be_met(make_split, options, message):
    with pytest.raises(UserError, match=message):
        train_stack([Member(make_split(), method("ce"), 0.01, 0)], Recipe(epochs=1), **options)


@pytest.mark.parametrize("member", [{"seed": -1}, {"seed": 2**63}, {"learning_rate": 0.0}])
def test_members_out_of_range(make_split, member):
    with pytest.raises(UserError, match=next(iter(member))):
        Member(**{"split": make_split(), "method": method("ce"), "learning_rate": 0.01, "seed": 0, **member})


def test_a_schedule_must_give_two_numbers(make_split):
    for schedule in (lambda progress: (1.0,), lambda progress: (float("nan"), 1.0)):
        with pytest.raises(UserError, match="two finite numbers"):
            train_stack([Member(make_split(), Method("bad", "bad", schedule=schedule), 0.01, 0)], Recipe(epochs=1))


def test_the_stop_flag_ends_the_kernel(make_split):
    """What an interruption sets: no epoch is finished after it."""
    recipe = Recipe(epochs=1000)
    preparation = threads.Preparation(recipe, 1)
    progress = np.zeros(1, dtype=np.int64)
    preparation.stop[0] = 1
    arguments = preparation.arguments(Member(make_split(), method("ce"), 0.01, 0), 0, progress, Record(recipe))
    assert kernel.compiled()(arguments, 0, 1000, -1) == -1
    assert progress[0] == 0


@pytest.mark.parametrize("engine", ["kernel", "batched"])
def test_an_exception_in_progress_ends_the_run(make_split, engine):
    def interrupt(fraction):
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        train_stack(
            [Member(make_split(rows=500), method("ce"), 0.01, seed) for seed in range(40)], Recipe(epochs=50),
            engine=engine, on_progress=interrupt,
        )  # fmt: skip
    assert torch.get_num_threads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crossfade")]


HOURS = """
import numpy as np
from crossfade.lab.methods import method
from crossfade.lab.train import Member, Recipe, Split, train_stack
from crossfade.lab.train.tables.kernel import compiled
x, y = np.random.default_rng(0).normal(size=(2000, 600)), np.arange(2000) % 2
split = Split(x, y, x[:9], y[:9], x[:9], y[:9], 2)
members = [Member(split, method("ce"), 0.001, seed) for seed in range(400)]
report = lambda fraction: print(fraction, len(compiled().stats.cache_misses), flush=True)
train_stack(members, Recipe(epochs=500), on_progress=report)
"""


def test_a_signal_ends_hours_of_work_and_a_second_process_compiles_nothing(make_split):
    train_stack([Member(make_split(), method("ce"), 0.01, 0)], Recipe(epochs=1))  # now the kernel is kept on disk
    with subprocess.Popen([sys.executable, "-c", HOURS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        fraction, compilations = process.stdout.readline().split()
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail("still running a minute after the signal")
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    assert float(fraction) < 0.1
    assert int(compilations) == 0


def test_without_a_folder_to_cache_in(monkeypatch):
    """A read-only installation without a home: the kernel is compiled anew, nothing fails."""
    monkeypatch.setattr(numba.core.caching.CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError):
        numba.njit(cache=True)(test_without_a_folder_to_cache_in)
    assert isinstance(kernel.compiled.__wrapped__()._cache, numba.core.caching.NullCache)


def test_a_full_disk_costs_only_the_cache(make_split, monkeypatch, caplog):
    class Full:
        signatures = ()

        def compile(self, signature):
            raise OSError(28, "No space left on device")

    threads.compile_kernel(Full(), (1, 2))
    assert "No space left" in caplog.text


def test_one_compilation_serves_all(make_split):
    """Shapes, losses and recipes are arguments of one compiled function, never types of another."""
    for features, classes, recipe in ((3, 2, Recipe(epochs=1)), (20, 9, Recipe(net="linear", epochs=1, batch_size=3))):
        train_stack([Member(make_split(features, classes), m, 0.01, 0) for m in map(method, ("ce", "focal"))], recipe)
    assert len(kernel.compiled().signatures) == 1
