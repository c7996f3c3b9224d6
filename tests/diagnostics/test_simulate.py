import math

import pytest
import torch

from crossfade import Weights
from crossfade.diagnostics import DoubleWell, simulate_escapes

CE, MIXTURE = Weights(1.0, 0.0), Weights(1.0, 2.0)
WELL = DoubleWell()


@pytest.mark.parametrize("weights", [CE, MIXTURE, Weights(0.0, 1.0)])
def test_gradients_are_the_derivatives_of_the_loss(weights):
    w = torch.linspace(-0.3, 1.5, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(WELL.loss(w, weights).sum(), w)
    torch.testing.assert_close(WELL.gradients(w, weights).mean(-1), slope)


@pytest.mark.parametrize("weights", [CE, MIXTURE, Weights(0.0, 1.0)])
def test_the_landscape_has_a_sharp_minimum_a_barrier_and_a_deeper_wide_one(weights):
    minimum, barrier = WELL.minimum_and_barrier(weights)
    assert abs(minimum) < 0.02
    assert minimum < barrier < 1
    at = WELL.loss(torch.tensor([minimum, barrier, 1.0], dtype=torch.float64), weights)
    assert at[1] > at[0]
    assert at[2] < at[0]
    sharp, _ = WELL.curvature_and_noise(minimum, weights)
    wide, _ = WELL.curvature_and_noise(1.0, weights)
    assert sharp > 3 * abs(wide)


def test_the_first_step_of_sgd_raises_the_loss_as_predicted():
    """E[L(W_1) - L(W*)] = eta^2 Tr(H Sigma) / 2 up to third order: the short-time approximation under eq. (17)."""
    found = simulate_escapes(WELL, CE, learning_rate=0.01, steps=1, walkers=100_000, batch_size=4)
    assert float(found.rise[1]) == pytest.approx(found.predicted_slope, rel=0.03)


def test_the_sde_settles_where_its_stationary_law_says():
    """dW = -H W dt + sqrt(eta S) dB has E[L] -> eta S / 4 (Tr(Sigma), not Tr(H Sigma), rules the long run)."""
    rate = 0.001
    found = simulate_escapes(WELL, CE, learning_rate=rate, steps=400, walkers=500, kind="sde", substeps=4)
    _, noise = WELL.curvature_and_noise(WELL.minimum_and_barrier(CE)[0], CE)
    assert float(found.rise[-50:].mean()) == pytest.approx(rate * noise / 2 / 4, rel=0.1)
    assert int(found.escaped[-1]) == 0


def test_scaling_the_loss_is_scaling_the_learning_rate():
    one = simulate_escapes(WELL, Weights(2.0, 0.0), learning_rate=0.05, steps=60, walkers=200)
    other = simulate_escapes(WELL, CE, learning_rate=0.1, steps=60, walkers=200)
    assert torch.equal(one.escaped, other.escaped)


def test_more_noise_more_escapes_and_counts_never_fall():
    counts = [simulate_escapes(WELL, MIXTURE, learning_rate=r, steps=150, walkers=400).escaped for r in (0.01, 0.05)]
    assert counts[1][-1] > counts[0][-1]
    assert (counts[1].diff() >= 0).all()
    assert int(counts[1][0]) == 0


def test_bad_input():
    with pytest.raises(ValueError, match="'sgd' or 'sde'"):
        simulate_escapes(WELL, CE, learning_rate=0.1, steps=1, kind="adam")
    with pytest.raises(ValueError, match="must be positive"):
        simulate_escapes(WELL, CE, learning_rate=math.nan, steps=1)
    with pytest.raises(ValueError, match="no sharp minimum"):
        DoubleWell(sharp=3.0, bonus=5.0, spread=0.0).minimum_and_barrier(CE)
