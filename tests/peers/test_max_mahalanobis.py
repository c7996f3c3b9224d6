"""Max-Mahalanobis centres and loss: Pang et al. 2018 and 2020, github.com/P2333/Max-Mahalanobis-Training."""

from __future__ import annotations

import math

import pytest
import torch

import crossfade as cf
from crossfade.losses import max_mahalanobis_centers


def largest_product(classes: int, dim: int) -> float:
    centers = max_mahalanobis_centers(classes, dim, 3.0)
    products = centers @ centers.T / 9.0
    torch.testing.assert_close(products.diagonal(), torch.ones(classes, dtype=torch.float64))
    return (products - 2 * torch.eye(classes)).max().item()


@pytest.mark.parametrize("classes", [4, 5, 7])
def test_approximate_centres_in_the_plane(classes: int) -> None:
    """The optimum in two dimensions is a regular polygon: the largest cosine is that of two neighbours."""
    assert math.isclose(largest_product(classes, 2), math.cos(2 * math.pi / classes), abs_tol=2e-3)


@pytest.mark.parametrize(("classes", "dim"), [(7, 5), (10, 5), (16, 8)])
def test_up_to_twice_as_many_classes_as_dimensions_are_orthogonal_at_best(classes: int, dim: int) -> None:
    """Rankin's bound for D + 2 <= C <= 2 D: 0, which the cross-polytope attains."""
    assert abs(largest_product(classes, dim)) < 2e-3


def test_approximate_centres_spread_better_than_the_authors_optimiser() -> None:
    """Their code minimises the largest product of unit columns by Adam; here with a larger step than its 1e-4."""
    torch.manual_seed(0)
    free = torch.randn(30, 6).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=1e-2)
    for _ in range(500):
        unit = torch.nn.functional.normalize(free, dim=1)
        worst = (unit @ unit.T - 2 * torch.eye(30)).max()
        optimizer.zero_grad()
        worst.backward()
        optimizer.step()
    assert largest_product(30, 6) < worst.item()


def test_approximate_centres_are_saved_and_a_simplex_is_not() -> None:
    approximate = cf.MaxMahalanobisCenterLoss(7, 5)
    assert list(approximate.state_dict()) == ["centers"]
    assert cf.MaxMahalanobisCenterLoss(6, 5).state_dict() == {}
    assert torch.equal(approximate.centers, cf.MaxMahalanobisCenterLoss(7, 5).centers)
    features, target = torch.randn(8, 5), torch.randint(7, (8,))
    expected = 0.5 * (features - approximate.centers[target]).square().sum(1).mean()
    torch.testing.assert_close(approximate(features, target), expected)
    with torch.no_grad():
        assert torch.equal(cf.MaxMahalanobisCenterLoss(7, 5).centers, approximate.centers)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_doesn_t_round_the_centres(half: torch.dtype) -> None:
    """The nearest of 100 centres of norm 10 is found with half-precision features, too."""
    criterion = cf.MaxMahalanobisCenterLoss(100, 128)
    exact = criterion.centers.clone()
    features = (exact + 0.01 * torch.randn(100, 128)).to(half)
    loss, logits = criterion(features, torch.arange(100)), criterion.logits(features)
    criterion.to(half)
    assert torch.equal(criterion.centers, exact)
    assert torch.equal(criterion(features, torch.arange(100)), loss)
    assert torch.equal(criterion.logits(features), logits)
    expected = 0.5 * (features.float() - exact).square().sum(1).mean()
    torch.testing.assert_close(loss, expected)
    assert criterion.double().centers.dtype == torch.float64
