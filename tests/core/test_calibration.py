"""The temperature against an optimum that SciPy finds in float64, and where there is none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from crossfade import fit_temperature
from crossfade.diagnostics import calibration
from crossfade.lab.scores import calibrated_scores
from tests.examples import examples


def nll(logits, target, temperature, weight=None):
    """The mean NLL as its definition says, in NumPy."""
    log_p = log_softmax(np.asarray(logits, np.float64) / temperature, axis=1)
    return np.average(-log_p[np.arange(len(target)), target], weights=weight)


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(30, 300), classes=st.integers(2, 12),
    log_scale=st.floats(-4, 4), sure=st.floats(-1, 1), weighted=st.booleans(),
)  # fmt: skip
def test_the_temperature_has_the_least_nll_of_all(seed, rows, classes, log_scale, sure, weighted):
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(rows, classes))
    target = np.array([generator.choice(classes, p=p) for p in softmax(z * np.exp(sure), axis=1)])
    logits = (z * np.exp(log_scale)).astype(np.float32)
    weight = generator.uniform(0.1, 3, rows) if weighted else None
    found = fit_temperature(
        torch.from_numpy(logits), torch.from_numpy(target), None if weight is None else torch.from_numpy(weight)
    )
    if found.bounded:  # a few rows may be answered worse than by a guess
        assert (1 / found.value) * np.abs(logits).max() <= 0.02
        assert nll(logits, target, found.value, weight) < nll(logits, target, found.value / 10, weight)
        return
    best = minimize_scalar(
        lambda log_t: nll(logits, target, np.exp(log_t), weight), bounds=(log_scale - 8, log_scale + 8),
        options={"xatol": 1e-10},
    )  # fmt: skip
    # near its minimum NLL is flat: a search by values finds half the digits
    assert nll(logits, target, found.value, weight) <= best.fun + 1e-12
    assert found.value == pytest.approx(np.exp(best.x), rel=1e-4)


@examples(30)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_no_answer_changes_and_nll_does_not_rise(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(50, 4, generator=generator)).to(dtype)
    target = torch.randint(4, (50,), generator=generator)
    found = fit_temperature(logits, target)
    assert torch.equal((logits.double() / found.value).argmax(1), logits.argmax(1))
    assert nll(logits.double(), target, found.value) <= nll(logits.double(), target, 1.0) + 1e-12


def test_a_scaled_network_has_a_scaled_temperature():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(200, 5, generator=generator), torch.randint(5, (200,), generator=generator)
    logits[torch.arange(200), target] += 1
    one = fit_temperature(logits, target)
    for factor in (1e-6, 1e-3, 1e3, 1e15):
        found = fit_temperature(logits.double() * factor, target)
        assert not found.bounded
        assert found.value == pytest.approx(one.value * factor, rel=1e-9)


def test_a_part_without_a_mistake_has_no_minimum():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 8.0]])
    target = torch.tensor([0, 1, 2])
    assert fit_temperature(logits, target) == (0.5, True)
    assert nll(logits, target, 0.5) < nll(logits, target, 1.0)
    assert fit_temperature(logits[:1], target[:1]) == (0.5, True)  # one class alone
    assert not fit_temperature(logits, torch.tensor([0, 1, 1])).bounded


def test_logits_that_are_worse_than_a_guess_become_equal():
    logits = torch.tensor([[1e6, 0.0], [0.0, 1e6], [1e6, 0.0]])
    found = fit_temperature(logits, torch.tensor([1, 0, 1]))
    assert found.bounded
    p = (logits / found.value).softmax(1)
    assert float((p - 0.5).abs().max()) < 0.01


@pytest.mark.parametrize("logits", [torch.zeros(3, 2), torch.full((3, 2), 7.0), torch.randn(3, 1)])
def test_equal_logits_have_any_temperature(logits):
    assert fit_temperature(logits, torch.zeros(3, dtype=torch.int64)) == (1.0, True)


def test_bad_arguments_are_named():
    zero = torch.zeros(0, dtype=torch.int64)
    for logits, target in ((torch.zeros(0, 2), zero), (torch.zeros(3), zero), (torch.zeros(3, 2), zero)):
        with pytest.raises(ValueError, match=r"expected logits \(N, C\) and target \(N,\), got"):
            fit_temperature(logits, target)
    logits, target = torch.randn(3, 2), torch.tensor([0, 1, 0])
    for weight in (
        torch.ones(2),
        torch.ones(3, 1),
        torch.zeros(3),
        torch.tensor([1.0, -1.0, 1.0]),
        torch.full((3,), torch.nan),
    ):
        with pytest.raises(ValueError, match="weight must be"):
            fit_temperature(logits, target, weight)
    for ignored in (-100, 2):
        with pytest.raises(ValueError, match=rf"target must be in \[0, 2\), got .*{ignored}"):
            fit_temperature(logits, torch.tensor([0, ignored, 1]))
    for bad in (torch.inf, torch.nan):
        with pytest.raises(ValueError, match="expected finite logits"):
            fit_temperature(torch.tensor([[bad, 0.0]]), torch.tensor([0]))


def test_nothing_is_written_into_what_requires_gradients():
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = logits.detach().clone()
    fit_temperature(logits, torch.arange(20) % 3)
    assert torch.equal(logits, before)
    assert logits.grad is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_a_network_whose_logits_are_not_finite_has_no_calibrated_scores(value):
    logits, target = torch.tensor([[0.0, 1.0], [value, 0.0]]), torch.tensor([1, 0])
    finite = torch.zeros(2, 2)
    assert calibrated_scores((logits, target), (finite, target)) == {}
    assert calibrated_scores((finite, target), (logits, target)) == {}
    assert math.isnan(calibration(logits, target).ece)
