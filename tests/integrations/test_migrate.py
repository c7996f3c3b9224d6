"""Gradients of the losses that users come from, against their own implementations."""

import pickle

import pytest
import torch
import torch.nn.functional as F

import crossfade
from crossfade import migrate


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    # Probabilities of the target from 1e-9 to 1 - 1e-5: small p is where the losses differ.
    logits = torch.randn(64, 7, generator=generator, dtype=torch.float64) * 5
    return logits.requires_grad_(), torch.randint(7, (64,), generator=generator)


def target_probability(logits, target):
    return torch.softmax(logits, 1)[torch.arange(len(target)), target]


def dft(logits, target):  # the formula of the paper, with its stopped gradient
    p = target_probability(logits, target)
    return (-p.detach() * p.log()).mean()


def focal(logits, target):
    p = target_probability(logits, target)
    return (0.25 * (1 - p) ** 3 * -p.log()).mean()


def gce(logits, target):
    return ((1 - target_probability(logits, target) ** 0.4) / 0.4).mean()


def poly(logits, target):
    return (F.cross_entropy(logits, target, reduction="none") + 2.5 * (1 - target_probability(logits, target))).mean()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (dft, migrate.from_dft()),
        (poly, migrate.from_poly(2.5)),
        (focal, migrate.from_focal(gamma=3.0, alpha=0.25)),
        (gce, migrate.from_gce(0.4)),
    ],
    ids=["dft", "poly", "focal", "gce"],
)
def test_gradients_are_those_of_the_loss_left_behind(batch, theirs, ours):
    logits, target = batch
    (expected,) = torch.autograd.grad(theirs(logits, target), logits)
    (gradient,) = torch.autograd.grad(ours(logits, target), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    restored = pickle.loads(pickle.dumps(ours))
    assert restored(logits, target) == ours(logits, target)


@pytest.mark.parametrize("soft", [False, True])
def test_poly_is_timms_poly(batch, soft):
    timm_loss = pytest.importorskip("timm.loss")
    logits, target = batch
    logits = logits.detach().float().requires_grad_()
    theirs = timm_loss.PolyCrossEntropy(epsilon=2.0, smoothing=0.0 if soft else 0.1)
    ours = migrate.from_poly(2.0, label_smoothing=0.0 if soft else 0.1)
    if soft:
        target = torch.softmax(torch.randn_like(logits), 1)
    values = theirs(logits, target), ours(logits, target)
    torch.testing.assert_close(values[1], values[0])
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_timms_default_is_an_epsilon_of_two(batch):
    timm_loss = pytest.importorskip("timm.loss")
    logits, target = batch
    torch.testing.assert_close(
        migrate.from_poly(2.0)(logits, target).float(), timm_loss.PolyCrossEntropy()(logits, target)
    )


def test_the_weighting_of_abhuses_polyloss(batch):
    """abhuse/polyloss-pytorch: ce with class weights, plus epsilon (1 - p_y) without, and a plain mean."""
    logits, target = batch
    weight = torch.rand(7, dtype=torch.float64)
    p = target_probability(logits, target)
    theirs = F.cross_entropy(logits, target, weight=weight, reduction="none") + 1.5 * (1 - p)
    ours = crossfade.crossfade_loss(logits, target, beta=0.0, weight=weight, reduction="none")
    ours = ours + 1.5 * crossfade.expectation_loss(logits, target, reduction="none")
    torch.testing.assert_close(ours, theirs)
    both = weight[target] * (-p.log() + 1.5 * (1 - p))
    torch.testing.assert_close(migrate.from_poly(1.5, weight=weight)(logits, target), both.sum() / weight[target].sum())


def test_trl_dft_is_the_expectation_loss(batch):
    """TRL's own lines: per_token_loss = -log_probs * log_probs.exp().detach(); its trainer is tested in test_trl.py."""
    logits, target = batch
    log_probs = torch.log_softmax(logits, 1)[torch.arange(len(target)), target]
    (expected,) = torch.autograd.grad((-log_probs * log_probs.exp().detach()).sum() / 50, logits)
    (gradient,) = torch.autograd.grad(migrate.from_dft(reduction="sum")(logits, target) / 50, logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_sigmoid_focal_is_ours_for_one_binary_logit_only():
    ops = pytest.importorskip("torchvision.ops")
    logit = (torch.randn(32, dtype=torch.float64) * 4).requires_grad_()
    label = torch.randint(2, (32,))
    theirs = ops.sigmoid_focal_loss(logit, label.double(), alpha=0.25, gamma=2.0, reduction="sum")
    weight = torch.tensor([0.75, 0.25], dtype=torch.float64)
    two = torch.stack([torch.zeros_like(logit), logit], dim=1)
    ours = migrate.from_focal(2.0, weight=weight, reduction="sum")(two, label)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(value, logit)[0] for value in (ours, theirs)))

    logits, target = torch.randn(8, 3, dtype=torch.float64), torch.randint(3, (8,))
    many = ops.sigmoid_focal_loss(logits, F.one_hot(target, 3).double(), alpha=-1, gamma=2.0, reduction="sum")
    assert not torch.isclose(many, migrate.from_focal(2.0, reduction="sum")(logits, target))


def test_options_pass_through(batch):
    logits, target = batch
    weight = torch.rand(7, dtype=torch.float64)
    for make in (migrate.from_dft, migrate.from_poly, migrate.from_focal, migrate.from_gce):
        rows = make(weight=weight, ignore_index=3, reduction="none")(logits, target)
        assert rows.shape == target.shape
        assert (rows[target == 3] == 0).all()
        assert (rows[target != 3] > 0).all()
