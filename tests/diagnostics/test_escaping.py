"""The estimators against dense matrices. Averaging a probe over *all* sign vectors gives its expectation exactly."""

from collections import Counter
from functools import partial

import curvlinops
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crossfade import crossfade_loss, focal_loss
from crossfade.diagnostics import escaping, escaping_efficiency, noise_and_curvature
from crossfade.diagnostics.passes import Problem
from tests.diagnostics.dense_truth import all_signs, centred_covariance, small_network

CE = partial(F.cross_entropy, reduction="none")
LOSSES = {
    "ce": CE,
    "mixture": partial(crossfade_loss, alpha=1.0, beta=2.5, reduction="none"),
    "el": partial(crossfade_loss, alpha=0.0, beta=1.0, reduction="none"),
    "focal": partial(focal_loss, reduction="none"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_expectation_of_a_probe_is_the_dense_trace(small, monkeypatch, name):
    gradients, hessian = small.dense(LOSSES[name])
    covariance = centred_covariance(gradients)
    probes = all_signs(monkeypatch, len(small.x))
    found = noise_and_curvature(small.model, small.batches, LOSSES[name], probes=probes, batch_size=4)
    assert found.trace_noise.value == pytest.approx(float(covariance.trace()) / 4)
    assert found.trace_product.value == pytest.approx(float((hessian @ covariance).trace()) / 4)
    assert abs(found.trace_hessian.value - float(hessian.trace())) < 5 * found.trace_hessian.se
    assert found.gradient_norm2 == pytest.approx(float(gradients.mean(0).square().sum()))
    assert found.dimension == hessian.shape[0]


def test_the_standard_error_covers_the_truth_as_often_as_it_should(small):
    gradients, hessian = small.dense(CE)
    truth = float((hessian @ centred_covariance(gradients)).trace())
    scores = []
    for seed in range(60):
        found = noise_and_curvature(small.model, [(small.x, small.y)], CE, probes=40, seed=seed).trace_product
        scores.append((found.value - truth) / found.se)
    z = torch.tensor(scores)
    assert 0.75 < float(z.std()) < 1.4
    assert abs(float(z.mean())) < 4 / 60**0.5


def test_hessian_products_and_trace_against_curvlinops(small):
    parameters = list(small.model.parameters())
    operator = curvlinops.HessianLinearOperator(small.model, nn.CrossEntropyLoss(), parameters, small.batches)
    problem = Problem(small.model, small.batches, CE)
    vectors = [torch.randn(problem.dimension, dtype=torch.float64) for _ in range(3)]
    # curvlinops weighs batches by their share of the data with a "mean" loss, as the mean over the data does.
    torch.testing.assert_close(
        problem.hessian_products(vectors)[0], torch.stack([operator @ v for v in vectors]), rtol=1e-9, atol=1e-11
    )
    ours = noise_and_curvature(small.model, small.batches, CE, probes=400).trace_hessian
    identity = torch.eye(problem.dimension, dtype=torch.float64)
    assert abs(ours.value - float((operator @ identity).trace())) < 5 * ours.se


def test_batches_do_not_matter(small):
    whole = noise_and_curvature(small.model, [(small.x, small.y)], CE, probes=5)
    pieces = noise_and_curvature(small.model, list(zip(small.x.split(2), small.y.split(2), strict=True)), CE, probes=5)
    assert whole.trace_product.value == pytest.approx(pieces.trace_product.value, rel=1e-10)
    assert whole.trace_hessian.value == pytest.approx(pieces.trace_hessian.value, rel=1e-10)


def test_gradients_are_taken_where_the_caller_has_turned_them_off(small):
    expected = noise_and_curvature(small.model, small.batches, CE, probes=2)
    with torch.no_grad():
        assert noise_and_curvature(small.model, small.batches, CE, probes=2) == expected


def test_the_cost_of_probes_is_one_gradient_and_one_product_for_each_vector(small, monkeypatch):
    calls, vectors = Counter(), Counter()
    for name in ("reweighted", "hessian_products"):
        original = getattr(Problem, name)

        def counted(self, given, name=name, original=original):
            calls[name] += 1
            vectors[name] += len(given)
            return original(self, given)

        monkeypatch.setattr(Problem, name, counted)
    noise_and_curvature(small.model, small.batches, CE, probes=10)
    assert vectors == {"reweighted": 1 + 10, "hessian_products": 2 * 10}
    assert calls == {"reweighted": 1 + 3, "hessian_products": 3}  # a batch's graph serves four probes


def test_probes_together_are_those_of_each_alone(small, monkeypatch):
    found = [noise_and_curvature(small.model, small.batches, CE, probes=7, seed=1)]
    monkeypatch.setattr(escaping, "TOGETHER", 1)
    found.append(noise_and_curvature(small.model, small.batches, CE, probes=7, seed=1))
    for name in ("trace_noise", "trace_hessian", "trace_product"):
        one, other = (getattr(each, name) for each in found)
        assert one.value == pytest.approx(other.value, rel=1e-6)
        assert one.se == pytest.approx(other.se, rel=1e-6)


class Convolutional(nn.Module):
    """Batch norm, dropout, a frozen layer, a tied weight and an output object: what real models have."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, pixels, scale):
        features = self.drop(F.relu(self.norm(self.conv(pixels)))).mean((2, 3))
        logits = self.second(torch.tanh(self.first(self.frozen(features)))) * scale
        return type("Output", (), {"logits": logits})()


def test_a_network_with_everything(monkeypatch):
    torch.manual_seed(0)
    model = Convolutional().double()
    model.train()
    pixels, target = torch.randn(5, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    batch = ({"pixels": pixels, "scale": torch.tensor(2.0, dtype=torch.float64)}, target)
    before = [buffer.clone() for buffer in model.buffers()]
    probes = all_signs(monkeypatch, 5)
    found = noise_and_curvature(model, [batch], CE, probes=probes)
    assert model.norm.training
    assert model.drop.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert all(p.grad is None for p in model.parameters())

    model.eval()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def losses(parameters):
        output = torch.func.functional_call(model, parameters, (), batch[0], tie_weights=True)
        return CE(output.logits, target)

    flat = torch.cat([p.detach().reshape(-1) for p in named.values()])

    def of_flat(vector):
        pieces = vector.split([p.numel() for p in named.values()])
        return losses({name: piece.view_as(named[name]) for name, piece in zip(named, pieces, strict=True)})

    gradients = torch.func.jacrev(of_flat)(flat)
    hessian = torch.func.hessian(lambda v: of_flat(v).mean())(flat)
    covariance = centred_covariance(gradients)
    assert found.dimension == len(flat)
    assert found.trace_noise.value == pytest.approx(float(covariance.trace()))
    assert found.trace_product.value == pytest.approx(float((hessian @ covariance).trace()))


def test_large_batches_take_the_fused_loss_path_with_a_second_derivative():
    """Above 16,384 logits the losses switch to a fused form on the CPU: it must give the same Hessian products."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 50).double(), torch.randn(400, 4, dtype=torch.float64), torch.randint(0, 50, (400,))
    whole = noise_and_curvature(model, [(x, y)], LOSSES["mixture"], probes=3)
    pieces = noise_and_curvature(model, list(zip(x.split(50), y.split(50), strict=True)), LOSSES["mixture"], probes=3)
    assert whole.trace_product.value == pytest.approx(pieces.trace_product.value, rel=1e-9)


def test_alignment_does_not_depend_on_the_scale_of_the_loss(small):
    one = noise_and_curvature(small.model, small.batches, CE, probes=6)
    three = noise_and_curvature(small.model, small.batches, lambda q, y: 3 * CE(q, y), probes=6)
    assert three.trace_product.value == pytest.approx(27 * one.trace_product.value)
    assert three.alignment == pytest.approx(one.alignment)


def test_bad_input(small):
    batches = small.batches
    with pytest.raises(ValueError, match="no iterator"):
        noise_and_curvature(small.model, iter(batches), CE)
    with pytest.raises(ValueError, match="data is empty"):
        noise_and_curvature(small.model, [], CE)
    inputs, target = batches[0]
    with pytest.raises(ValueError, match=r"pairs \(inputs, target\), got a tuple of 3"):
        noise_and_curvature(small.model, [(inputs, target, target)], CE)
    with pytest.raises(ValueError, match=r"pairs \(inputs, target\), got a dict of 2"):
        noise_and_curvature(small.model, [{"inputs": inputs, "target": target}], CE)
    with pytest.raises(ValueError, match="leave ignored examples out"):  # they would count as certain: M = 1
        escaping_efficiency(small.model, [(inputs, torch.full_like(target, -100))])
    with pytest.raises(ValueError, match='reduction="none"'):
        noise_and_curvature(small.model, batches, F.cross_entropy)
    with pytest.raises(ValueError, match="at least 1"):
        noise_and_curvature(small.model, batches, CE, probes=0)
    frozen = small_network().model.requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad"):
        noise_and_curvature(frozen, batches, CE)
    with pytest.raises(TypeError, match="must return logits"):
        noise_and_curvature(nn.LSTM(3, 3), [(torch.zeros(1, 1, 3), torch.tensor([0]))], CE)
