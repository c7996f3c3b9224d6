import mpmath
import pytest
import torch

from crossfade.diagnostics import check_claims, remainder, remainder_bounds, xi


@pytest.mark.parametrize("p", [1e-300, 1e-9, 0.1, 0.5, 0.75, 0.98, 0.9899999, 0.9900001, 0.999, 1 - 1e-9])
def test_remainder_has_all_digits(p):
    with mpmath.workdps(60):
        q = mpmath.mpf(p)
        truth = float(-mpmath.log(q) - (1 - q))
    assert remainder(torch.tensor(p, dtype=torch.float64)).item() == pytest.approx(truth, rel=1e-12)


def test_ends():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert remainder(ends).tolist() == [float("inf"), 0.0]
    assert xi(torch.tensor(1.0)).item() == 1.0


def test_the_exact_xi_is_in_the_interval_everywhere_and_the_printed_one_is_not():
    p = torch.linspace(0, 1, 10_001, dtype=torch.float64)[1:]
    exact = xi(p)
    assert (exact >= p).all()
    assert (exact <= 1).all()
    torch.testing.assert_close((1 - p) ** 2 / (2 * exact**2), remainder(p))
    printed = xi(p, printed=True)
    torch.testing.assert_close((1 - p) ** 2 / printed**2, remainder(p))
    with mpmath.workdps(30):  # where xi = 1 solves the printed formula
        edge = float(mpmath.findroot(lambda t: -mpmath.log(t) - (1 - t) - (1 - t) ** 2, 0.3))
    assert (printed[p < edge] <= 1).all()
    assert (printed[p > edge] > 1).all()


def test_bounds_by_interval():
    assert remainder_bounds(0.75, 1.0) == pytest.approx((0.0, float(mpmath.log(4) - mpmath.log(3)) - 0.25))
    assert remainder_bounds(0.0, 0.25) == pytest.approx((float(mpmath.log(4)) - 0.75, float("inf")))
    with pytest.raises(ValueError, match="low <= high"):
        remainder_bounds(0.5, 0.2)


def test_which_claims_hold():
    verdicts = [claim.holds for claim in check_claims(points=10_001)]
    assert verdicts == [False, True, False, False, True, True, True, True]
    measured = [claim.measured for claim in check_claims(points=10_001)]
    assert measured[1:5] == ["0.0377", "0.6363", "0.3863", "0.2500"]


def test_outside_of_the_unit_interval():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        remainder(torch.tensor([1.5]))
