import math
from functools import partial

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade import functional, schedules
from crossfade.diagnostics import criterion_curve, gradient_curve, numeric_peak, peak, row_weight

P = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


def mixture(alpha, beta):
    return lambda ce: alpha * ce - beta * torch.expm1(-ce)


def test_equations_8_10_and_13():
    torch.testing.assert_close(gradient_curve(mixture(1, 0), P), 1 - P)
    torch.testing.assert_close(gradient_curve(mixture(0, 1), P), P * (1 - P))
    alpha, beta = 1.0, 2.5
    printed = -(beta * P**2 + P * (alpha - beta) - alpha)
    torch.testing.assert_close(gradient_curve(mixture(alpha, beta), P), printed)
    p_j = (1 - P) * 0.3
    torch.testing.assert_close(gradient_curve(mixture(alpha, beta), P, p_j), p_j * (beta * P + alpha))


def test_extremes_that_the_paper_states():
    ends = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert gradient_curve(mixture(1, 0), ends).tolist() == [1.0, 0.5, 0.0]
    assert gradient_curve(mixture(0, 1), ends).tolist() == [0.0, 0.25, 0.0]
    assert numeric_peak(mixture(0, 1)) == (0.5, 0.25)
    assert numeric_peak(mixture(1, 0)) == (0.0, 1.0)


@given(st.floats(0, 10), st.floats(0.01, 10))
def test_the_closed_peak_is_the_numeric_one(alpha, beta):
    closed, found = peak(alpha, beta), numeric_peak(mixture(alpha, beta), points=20_001)
    assert closed.height == pytest.approx(found.height, rel=1e-6)
    assert closed.p == pytest.approx(found.p, abs=0.02 if abs(alpha - beta) < 1e-3 else 1e-3)


@pytest.mark.parametrize("focus", [0.0, 0.1, 0.2, 0.3, 0.4, 0.499, 0.5])
@pytest.mark.parametrize("scale", ["paper", "unit"])
def test_the_peak_sits_at_the_focus_with_the_stated_height(focus, scale):
    found = peak(*schedules.weights(focus, scale))
    assert found.p == pytest.approx(focus, abs=1e-12)
    expected = (1 - focus) ** 2
    if scale == "paper":
        expected = 0.25 if focus == 0.5 else expected / (1 - 2 * focus)
    assert found.height == pytest.approx(expected)


@pytest.mark.parametrize(
    ("criterion", "exact"),
    [
        (functional.focal_loss, lambda p: mpmath.mpf("0.25") * (1 - p) ** 2 * -mpmath.log(p)),
        (functional.mae_loss, lambda p: 2 * (1 - p)),
        (functional.generalized_cross_entropy, lambda p: (1 - p ** mpmath.mpf("0.7")) / mpmath.mpf("0.7")),
        (functional.tamed_cross_entropy, lambda p: 2 * mpmath.sqrt(1 - mpmath.log(p))),
        (functional.poly_loss, lambda p: -mpmath.log(p) + 1 - p),
        (functional.mpce_loss, lambda p: -mpmath.log(p) * (max(p, 1 - p) - p)),
    ],
)
def test_any_criterion_against_a_derivative_in_fifty_digits(criterion, exact):
    p = torch.tensor([0.03, 0.2, 0.45, 0.55, 0.9], dtype=torch.float64)
    curve = criterion_curve(lambda q, y: criterion(q, y, reduction="none"), p)
    with mpmath.workdps(50):
        # Two classes: dp/dq_y = p (1 - p), so dL/dq_y = L'(p) p (1 - p).
        truth = [float(abs(mpmath.diff(exact, mpmath.mpf(x))) * x * (1 - x)) for x in p.tolist()]
    assert curve.tolist() == pytest.approx(truth, rel=1e-9, abs=1e-12)


def test_a_function_of_ce_gives_the_same_curve_as_its_criterion_for_any_number_of_classes():
    through_logits = criterion_curve(lambda q, y: functional.probability_loss(torch.sqrt, q, y, reduction="none"), P, 7)
    torch.testing.assert_close(through_logits, gradient_curve(torch.sqrt, P))


def test_row_weight_at_infinite_cross_entropy():
    infinite = torch.tensor([math.inf])
    assert row_weight(mixture(1, 3), infinite).tolist() == [1.0]
    assert row_weight(mixture(0, 3), infinite).tolist() == [0.0]
    assert row_weight(lambda ce: torch.zeros_like(ce), infinite).tolist() == [0.0]


@pytest.mark.parametrize("p", [torch.tensor([1.2]), torch.tensor([-0.1]), torch.tensor([math.nan]), torch.tensor([1])])
def test_not_a_probability(p):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        gradient_curve(mixture(1, 0), p)


def test_an_infinite_slope_at_certainty_is_stopped():
    assert gradient_curve(torch.sqrt, torch.ones(1)).tolist() == [0.0]
    found = numeric_peak(torch.sqrt)
    assert 0 < found.p < 1
    assert 0.3 < found.height < 0.35  # (1 - p) / (2 sqrt(ce)): 0.318 at p = 1/4


def test_one_class_has_no_curve():
    with pytest.raises(ValueError, match="at least 2"):
        criterion_curve(lambda q, y: q[:, 0], torch.tensor([0.5]), classes=1)


def test_a_criterion_gets_its_target_where_p_is():
    criterion = partial(torch.nn.functional.cross_entropy, reduction="none")
    p = torch.tensor([0.25])
    with torch.device("meta"):
        found = criterion_curve(criterion, p)
    assert found.tolist() == pytest.approx([0.75])


def test_bad_input():
    with pytest.raises(ValueError, match="p_j must be"):
        gradient_curve(mixture(1, 0), torch.tensor([0.5]), torch.tensor([-0.1]))
    with pytest.raises(ValueError, match="at most 1 - p"):
        gradient_curve(mixture(1, 0), torch.tensor([0.5]), torch.tensor([0.6]))
    with pytest.raises(ValueError, match="elementwise"):
        row_weight(lambda ce: ce.sum(), P)
    with pytest.raises(ValueError, match="one loss an example"):
        criterion_curve(torch.nn.functional.cross_entropy, P)
    with pytest.raises(ValueError, match="strictly between"):
        criterion_curve(torch.nn.functional.cross_entropy, torch.tensor([0.0]))
    for bad in [(-1.0, 1.0), (0.0, 0.0), (math.nan, 1.0)]:
        with pytest.raises(ValueError, match="alpha and beta"):
            peak(*bad)
