import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crossfade import Weights, crossfade_loss
from crossfade.diagnostics import concavity, escaping_efficiency
from crossfade.diagnostics.escaping import derived_coefficients, printed_coefficient
from tests.diagnostics.dense_truth import all_signs, centred_covariance

WEIGHTS = [Weights(1.0, 0.0), Weights(1.0, 1.0), Weights(1.0, 2.5), Weights(0.0, 1.0), Weights(0.4, 1.0)]


def test_every_mixture_from_one_set_of_probes_is_its_dense_value(small, monkeypatch):
    probes = all_signs(monkeypatch, len(small.x))
    found = escaping_efficiency(small.model, small.batches, probes=probes)
    for weights in WEIGHTS:
        losses = partial(crossfade_loss, alpha=weights.alpha, beta=weights.beta, reduction="none")
        gradients, hessian = small.dense(losses)
        covariance = centred_covariance(gradients)
        assert found.trace_product(weights).value == pytest.approx(float((hessian @ covariance).trace()))
        assert found.trace_noise(weights).value == pytest.approx(float(covariance.trace()))
        assert found.gradient_norm2(weights) == pytest.approx(float(gradients.mean(0).square().sum()))
        curvature = found.trace_hessian(weights)
        assert abs(curvature.value - float(hessian.trace())) < 5 * curvature.se


def test_both_sides_of_18(small, monkeypatch):
    probes = all_signs(monkeypatch, len(small.x))
    found = escaping_efficiency(small.model, small.batches, probes=probes)
    gradients, h_p = small.dense(partial(crossfade_loss, alpha=0.0, beta=1.0, reduction="none"))
    f_p = gradients.T @ gradients / len(gradients)
    p = small.model(small.x).detach().softmax(1)[torch.arange(len(small.x)), small.y]
    assert found.max_p == pytest.approx(float(p.max()))
    assert found.trace_hp_fp.value == pytest.approx(float((h_p @ f_p).trace()))
    assert found.trace_fp_fp.value == pytest.approx(float((f_p @ f_p).trace()))
    beta, m = 2.5, float(p.max())
    ff, hf = float((f_p @ f_p).trace()), float((h_p @ f_p).trace())
    printed = (beta**3 + 3 * beta**2 / m + beta * (2 / m**2 + 1 / m)) * (ff + 2 * hf)
    assert found.printed_bound(beta).value == pytest.approx(printed)
    derived = (beta**3 + 3 * beta**2 / m + 3 * beta / m**2) * hf + (beta**2 / m**2 + 2 * beta / m**3) * ff
    assert found.derived_bound(beta).value == pytest.approx(derived)
    margin = found.gain(Weights(1.0, beta)).value - printed
    assert found.printed_margin(beta).value == pytest.approx(margin)


class Pair(nn.Module):
    """The page's pair: two examples of one class with margins c + w and c - w. At w = 0 both have p = sigmoid(c)."""

    def __init__(self, p):
        super().__init__()
        self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.c = math.log(p / (1 - p))

    def forward(self, x):
        return torch.stack([self.c + self.w * x, torch.zeros_like(x)], 1)


PAIR = [(torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([0, 0]))]


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.25, 5 / 3, 2.0, 2.5, 5.0])
@pytest.mark.parametrize("p", [0.2, 0.3, 0.5, 0.7, 0.95])
def test_the_pair_of_the_page(p, beta, monkeypatch):
    """Everything in closed form: w = 0 is stationary for every mixture, the derived bound is attained."""
    found = escaping_efficiency(Pair(p), PAIR, probes=all_signs(monkeypatch, 2))
    q = 1 - p
    gain = p * q**3 * ((1 + beta * p) ** 2 * (1 - beta * (1 - 2 * p)) - 1)
    assert found.gradient_norm2(Weights(1.0, beta)) == pytest.approx(0, abs=1e-30)
    assert found.gain(Weights(1.0, beta)).value == pytest.approx(gain, rel=1e-9, abs=1e-15)
    assert found.derived_bound(beta).value == pytest.approx(gain, rel=1e-9, abs=1e-15)
    printed = printed_coefficient(beta, p) * p**3 * q**3 * (p * q + 2 * (2 * p - 1))
    assert found.printed_bound(beta).value == pytest.approx(printed, rel=1e-9, abs=1e-15)


def test_what_the_page_concludes_from_the_pair():
    def gain_and_printed(p, beta):
        q = 1 - p
        gain = p * q**3 * ((1 + beta * p) ** 2 * (1 - beta * (1 - 2 * p)) - 1)
        return gain, printed_coefficient(beta, p) * p**3 * q**3 * (p * q + 2 * (2 * p - 1))

    for beta in (0.5, 1.0, 1.6, 1.7, 2.5, 5.0):  # p = 1/2: (18) as printed holds below sqrt(7) - 1 = 1.646
        gain, printed = gain_and_printed(0.5, beta)
        assert (gain > printed) == (beta < math.sqrt(7) - 1)
    for beta in (0.5, 1.0, 2.5, 5.0):  # p near 1: it asks for twice what there is
        gain, printed = gain_and_printed(1 - 1e-6, beta)
        assert printed / gain == pytest.approx(2, rel=1e-4)
    gain, _ = gain_and_printed(0.3, 2.0)  # a minimum of the mixture: 1 - beta (1 - 2p) = 0.2 > 0
    assert gain < 0


def test_the_derived_bound_holds_where_its_assumptions_do():
    """Linear logits with every margin positive and small weights: every p_y is concave in w, and w is stationary."""
    generator = torch.Generator().manual_seed(0)
    checked = 0
    for _ in range(300):
        margins = 0.3 + 2.0 * torch.rand(6, generator=generator, dtype=torch.float64)
        slopes = torch.randn(6, generator=generator, dtype=torch.float64)
        beta = float(5 * torch.rand(1, generator=generator, dtype=torch.float64))
        p = torch.sigmoid(margins)
        pull = (1 + beta * p) * (1 - p)
        slopes -= pull * (pull @ slopes) / (pull @ pull)  # the mixture's mean gradient is now 0
        dp, d2p = slopes * p * (1 - p), slopes**2 * p * (1 - p) * (1 - 2 * p)
        ce_g, ce_h = -slopes * (1 - p), slopes**2 * p * (1 - p)

        def product(gradient, curvature):
            return curvature.mean() * gradient.var(unbiased=False)

        gain = product(ce_g - beta * dp, ce_h - beta * d2p) - product(ce_g, ce_h)
        f_p, h_p, m = dp.square().mean(), -d2p.mean(), float(p.max())
        of_hf, of_ff = derived_coefficients(beta, m)
        assert (d2p <= 0).all()
        assert gain >= of_hf * h_p * f_p + of_ff * f_p**2 - 1e-12
        checked += 1
    assert checked == 300


def test_concavity_against_the_dense_second_derivative(small):
    generator = torch.Generator().manual_seed(3)
    _, hessian = small.dense(lambda q, y: -F.cross_entropy(q, y, reduction="none").neg().exp())
    direction = torch.randn(len(hessian), generator=generator, dtype=torch.float64)
    found = concavity(small.model, small.batches, direction)
    assert found.shape == small.y.shape
    assert float(found.mean()) == pytest.approx(float(direction @ hessian @ direction))
    step = 1e-4

    def p_at(move):
        offset = 0
        with torch.no_grad():
            for parameter in small.model.parameters():
                parameter += move * direction[offset : offset + parameter.numel()].view_as(parameter)
                offset += parameter.numel()
            return small.model(small.x).softmax(1).gather(1, small.y[:, None])[:, 0]

    low, middle, high = p_at(-step), p_at(step), p_at(step)
    torch.testing.assert_close(found, -(low - 2 * middle + high) / step**2, rtol=1e-4, atol=1e-5)


def test_matched_ratio_takes_the_scale_out(small):
    found = escaping_efficiency(small.model, small.batches, probes=20)
    assert found.matched_ratio(Weights(3.0, 0.0)) == pytest.approx(1.0)
    assert found.matched_ratio(Weights(0.5, 1.0)) == pytest.approx(found.matched_ratio(Weights(1.0, 2.0)))


def test_one_example_has_no_noise_to_match():
    data = [(torch.ones(1, 2), torch.tensor([0]))]
    found = escaping_efficiency(torch.nn.Linear(2, 3), data, probes=2)
    assert math.isnan(found.matched_ratio(Weights(1.0, 1.0)))


def test_batches_without_examples():
    data = [(torch.ones(0, 2), torch.zeros(0, dtype=torch.int64))]
    with pytest.raises(ValueError, match="no example"):
        escaping_efficiency(torch.nn.Linear(2, 3), data, probes=2)


def test_bad_input(small):
    with pytest.raises(ValueError, match="at least 1"):
        escaping_efficiency(small.model, small.batches, probes=0)
    with pytest.raises(ValueError, match="direction must have shape"):
        concavity(small.model, small.batches, torch.zeros(3))
