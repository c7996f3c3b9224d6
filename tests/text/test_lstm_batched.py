"""The stack for GPUs, on whatever there is, against the plain loop."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import UserError
from crossfade.lab.methods import Method, method
from crossfade.lab.train.epochs import epoch_batches, scoring_batches
from crossfade.lab.train.lstm import batched as lstm_batched
from crossfade.lab.train.lstm import run as text_run
from crossfade.lab.train.lstm.batched import Batches, train_batched
from crossfade.lab.train.lstm.recipe import LstmMember, LstmRecipe
from tests.examples import examples
from tests.text.lstm_cases import close, draw, reference, same

HERE = Path(__file__).parent
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def whole_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def together(members, recipe, device="cpu"):
    return train_batched(members, recipe, device, lambda part: None)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "recipe",
    [
        LstmRecipe(10, 12, 1, epochs=2, batch_size=16, select="last"),
        LstmRecipe(16, 8, 2, epochs=2, batch_size=7, granularity="step", select="last"),
        LstmRecipe(5, 19, 3, epochs=2, batch_size=16, clip=0.05, select="last"),
        LstmRecipe(50, 50, 1, epochs=2, batch_size=200, granularity="step"),
    ],
)
def test_each_is_what_the_plain_loop_makes_of_it(recipe, device):
    """Methods, seeds, splits with other words and sizes: all at once."""
    splits = [draw(), draw(1, vocabulary=40, val=12, test=9, longest=20), draw(2, train=60)]
    members = [LstmMember(s, method(name), seed) for s in splits for name in ("ce", "gradual") for seed in (1, 2)]
    members += [LstmMember(splits[0], method(name), 1) for name in ("focal", "gce-rising")]
    for member, ours in zip(members, together(members, recipe, device), strict=True):
        assert ours.engine == "batched"
        close(ours, reference(member, recipe), atol=1e-5 if device == "cpu" else 1e-4)


def test_preparing_a_capture_leaves_no_trace(monkeypatch, replayed):
    recipe = LstmRecipe(10, 12, epochs=3, batch_size=16, granularity="step")
    members = [LstmMember(draw(longest=40), method(name), seed) for name in ("ce", "gradual") for seed in (1, 2)]
    expected = together(members, recipe)
    monkeypatch.setattr(lstm_batched, "Graphs", replayed)
    for one, other in zip(together(members, recipe), expected, strict=True):
        same(one, other)


@pytest.mark.parametrize("device", DEVICES)
def test_one_that_diverges_leaves_the_others_alone(device):
    def huge(progress):
        return (3e38, 3e38) if progress >= 0.5 else (1.0, 0.0)

    recipe = LstmRecipe(6, 8, epochs=4, batch_size=16)
    late, never = Method("late", "late", schedule=huge), Method("never", "never", schedule=lambda p: (3e38, 3e38))
    members = [LstmMember(draw(), chosen, 1) for chosen in (method("ce"), late, never)]
    good, late_one, bad = together(members, recipe, device)
    close(good, reference(members[0], recipe), atol=1e-4)
    assert np.isfinite(late_one.curves["val_nll"][:2]).all()
    assert np.isnan(late_one.curves["val_nll"][2:]).all()
    assert late_one.chosen in (0, 1)
    assert np.isfinite(late_one.weights["embedding.weight"]).all()
    assert bad.chosen == -1
    assert all(np.isnan(weight).all() for weight in bad.weights.values())


@pytest.mark.parametrize("slots", [1, 3])
def test_stacks_of_few(slots, monkeypatch):
    """What doesn't fit at once comes one stack after the other, in the members' order."""
    recipe, told = LstmRecipe(6, 8, epochs=2, batch_size=16), []
    members = [LstmMember(draw(seed), method("gradual"), seed) for seed in range(4)]
    monkeypatch.setattr(lstm_batched, "SLOTS", slots)
    histories = train_batched(members, recipe, "cpu", told.append)
    for member, ours in zip(members, histories, strict=True):
        close(ours, reference(member, recipe))
    assert told == sorted(told)
    assert told[-1] == 1.0


@examples(30)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 40), st.integers(0, 3))
def test_batches_hold_every_text_once(sizes, rows, longest, seed):
    """Each network's, whole, in its order; what fills a batch isn't real; values come back in the part's order."""
    parts = [draw(at, train=size, longest=longest).train for at, size in enumerate(sizes)]
    batches = Batches(parts, rows, torch.device("cpu"))
    for orders in (
        [scoring_batches(part.lengths, rows) for part in parts],
        [epoch_batches(seed, 0, part.lengths, rows) for part in parts],
    ):
        lengths = batches.lay(orders)
        seen = [[] for _ in parts]
        numbers = torch.full((len(lengths), len(parts), rows), -1)
        for step, length in enumerate(lengths):
            tokens, own_lengths, labels, real = batches.batch(torch.tensor([step]), length)
            for at, row in real.nonzero().tolist():
                seen[at].append((tokens[at, row, : own_lengths[at, row]].tolist(), int(labels[at, row])))
                numbers[step, at, row] = len(seen[at]) - 1
        for at, (part, mine) in enumerate(zip(parts, orders, strict=True)):
            order = np.concatenate(mine)
            texts = [part.tokens[a:b].tolist() for a, b in pairwise(part.offsets)]
            assert seen[at] == [(texts[i], int(part.labels[i])) for i in order]
            np.testing.assert_array_equal(batches.own(numbers[:, at], at)[order], np.arange(len(part)))


def test_cuda_takes_the_stack_and_other_devices_the_plain_engine(monkeypatch):
    """Which engine serves a device, without the device, and whatever the loss."""
    asked = []
    monkeypatch.setattr(text_run, "check_device", lambda device: device != "cpu")
    monkeypatch.setattr(text_run, "train_batched", lambda some, *_: asked.append(("batched", len(some))))
    monkeypatch.setattr(text_run, "train_plain", lambda some, *_, threads, **__: asked.append(("plain", threads)))
    apart = Method("apart", "apart", lambda ce: torch.stack([value.square() for value in ce]))
    members = [LstmMember(draw(), chosen, 1) for chosen in (method("ce"), apart, method("focal"))]
    for device, engine in (("cuda", "auto"), ("cuda", "plain"), ("mps", "auto"), ("cpu", "auto"), ("cpu", "batched")):
        text_run.train(members, LstmRecipe(4, 4, epochs=1), engine=engine, device=device, threads=5)
    assert asked == [("batched", 3), ("plain", 1), ("plain", 1), ("plain", 5), ("batched", 3)]
    with pytest.raises(UserError, match="the batched engine can't use device 'mps': take 'cpu', 'cuda' or"):
        text_run.train(members, LstmRecipe(4, 4), engine="batched", device="mps")


def test_the_repeats_of_a_recipe_are_trained_together():
    class One:
        def __init__(self, recipe):
            self.recipe = recipe

    batches = [(One("a"),) * 30, (One("a"),) * 30, (One("a"),) * 30, (One("b"),), (One("b"),)]
    assert [len(batch) for batch in text_run.joined(batches, 64)] == [60, 30, 2]
    assert [len(batch) for batch in text_run.joined(batches, 2)] == [30, 30, 30, 2]


def test_kernels():
    """On the GPU where there is one, in the interpreter otherwise."""
    pytest.importorskip("triton")
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "recurrence_cases.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE.parents[1], check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert re.search(r"\b3 passed", result.stdout), result.stdout


@pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel"])
@pytest.mark.parametrize("precision", ["tf32", "ieee"])
@pytest.mark.parametrize("capability", [80, 90])
def test_compiles_for_nvidia(kernel, precision, capability):
    """In the shared memory that a consumer's card has, too."""
    pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from crossfade.kernels import triton_recurrence

    function = getattr(triton_recurrence, kernel)
    tile = {"_forward_kernel": triton_recurrence._FORWARD, "_backward_kernel": triton_recurrence._BACKWARD}[kernel]
    numbers, settings_ = ("t", "time", "rows", "cells"), tile | {"PRECISION": precision}
    options = {name: settings_.pop(name) for name in ("num_warps", "num_stages")}
    names = function.arg_names
    signature = {
        name: "constexpr" if name in settings_ else "i32" if name in numbers else "*fp32" for name in names
    }  # fmt: skip
    constants = {(names.index(name),): value for name, value in settings_.items()}
    aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if signature[name] == "*fp32"}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    made = triton_compile(source, GPUTarget("cuda", capability, 32), options)
    assert made.asm["ptx"]
    assert made.metadata.shared <= 99 * 1024


def triton_compile(source, target, options):
    import triton

    return triton.compile(source, target=target, options=options)
