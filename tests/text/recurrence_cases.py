"""The recurrence's kernels against PyTorch in float64, and a stack trained with them: on a GPU, or in the interpreter.

``test_lstm_batched.py`` runs these in a process of their own, as ``TRITON_INTERPRET=1`` must be set before Triton is
imported. On a machine with a GPU: ``python -m pytest tests/text/recurrence_cases.py``.
"""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade import kernels
from crossfade.kernels import recurrence as lstm_recurrence
from crossfade.lab.methods import method
from crossfade.lab.train.lstm.batched import train_batched
from crossfade.lab.train.lstm.recipe import LstmMember, LstmRecipe
from tests.examples import examples
from tests.text.lstm_cases import CURVES, draw, reference

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
pytestmark = pytest.mark.skipif(
    not GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="needs a GPU or TRITON_INTERPRET=1"
)


@examples(60 if GPU else 8)
@given(
    count=st.integers(1, 4 if GPU else 2),
    time=st.integers(1, 6 if GPU else 3),
    rows=st.sampled_from([1, 5, 16, 63, 64, 70]),
    cells=st.sampled_from([1, 15, 16, 33, 50, 75, *([100, 130] if GPU else [])]),
    seed=st.integers(0, 99),
)
def test_outputs_and_gradients(count, time, rows, cells, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return (torch.randn(shape, generator=generator) * scale).to(DEVICE)

    gates, weight = draw(count, time, rows, 4 * cells), draw(count, 4 * cells, cells, scale=cells**-0.5)
    upstream = draw(count, time, rows, cells)
    assert kernels.usable(gates)
    leaves = [gates.requires_grad_(), weight.requires_grad_()]
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    ours, theirs = lstm_recurrence.recurrence(*leaves), lstm_recurrence.reference(*doubles)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=3e-6)
    gradients = torch.autograd.grad(ours, leaves, upstream)
    for mine, exact in zip(gradients, torch.autograd.grad(theirs, doubles, upstream.double()), strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-4, atol=3e-6 * max(1.0, float(exact.abs().max())))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_stack(layers, monkeypatch):
    """Several epochs, so that on a GPU steps of all lengths run in graphs; float32 products, to compare."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if not GPU:  # the interpreter takes long for what only pads
        monkeypatch.setattr("crossfade.lab.train.lstm.batched._BUCKET", 2)
    size = {"train": 90, "longest": 40} if GPU else {"train": 20, "val": 5, "test": 4, "longest": 4}
    recipe = LstmRecipe(10, 12, layers, epochs=4 if GPU else 1, batch_size=16, granularity="step", select="last")
    splits = [draw(seed, **size) for seed in range(2 if GPU else 1)]
    members = [LstmMember(split, method(name), 3) for split in splits for name in ("gradual", "focal")]
    for member, ours in zip(members, train_batched(members, recipe, DEVICE, lambda part: None), strict=True):
        theirs = reference(member, recipe)
        for curve in CURVES:
            torch.testing.assert_close(
                torch.tensor(ours.curves[curve]), torch.tensor(theirs.curves[curve]), rtol=1e-4, atol=1e-5
            )
