"""Objectives against their authors' published formulas and code, written again in float64, in every form of a loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf
from crossfade import _heart, objectives
from crossfade._reduction import CrossEntropyOptions
from crossfade.objectives import Row
from crossfade.testing import check_loss


def shown(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p_y and p_y, both differentiable, and the softmax without gradient."""
    log_p = torch.log_softmax(logits, 1).gather(1, target.unsqueeze(1)).squeeze(1)
    return log_p, log_p.exp(), logits.detach().softmax(1)


def dft(logits: Tensor, target: Tensor, least: float = 0.0) -> Tensor:
    """Wu et al., code: loss * softmax.gather(label).detach(); with a floor as proposed there for small p."""
    log_p, p, _ = shown(logits, target)
    return -log_p * p.detach().clamp(min=least)


def general_family(logits: Tensor, target: Tensor, q: float) -> Tensor:
    """Li et al., Beyond Log Likelihood, code: -(exp(q log p) - 1) / q."""
    return -((q * shown(logits, target)[0]).exp() - 1) / q


def only_top_p(logits: Tensor, target: Tensor, k: float) -> Tensor:
    """Li et al., code: (1 - p) times the mask p >= k."""
    p = shown(logits, target)[1]
    return (1 - p) * (p >= k)


def deft(logits: Tensor, target: Tensor) -> Tensor:
    """Wang et al., DEFT, code, without the 1e-6 that it adds to the divisor."""
    log_p, _, softmax = shown(logits, target)
    concentration = softmax.pow(2).sum(1)
    return -((concentration * log_p).exp() - 1) / concentration


def cayley(logits: Tensor, target: Tensor, floor: float) -> Tensor:
    """Wang et al., Cayley_Trans, code: distance r = 1 - p, (1 - r) / (1 + r), raised by the floor, at least 0.001."""
    log_p, p, _ = shown(logits, target)
    distance = 1 - p.detach()
    local = (1 - distance) / (1 + distance)
    alpha = (floor + (1 - floor) * local).clamp(min=0.001, max=1.0)
    return -((alpha * log_p).exp() - 1) / alpha


def eaft(logits: Tensor, target: Tensor, exponent: float = 1.0) -> Tensor:
    """Diao et al., EAFT, as merged into LLaMA-Factory, where 3.0 stands for log 20: up to 20 classes, all of them."""
    log_p, _, softmax = shown(logits, target)
    entropy = -(softmax * softmax.log()).sum(1)
    return -log_p * (entropy / math.log(20)) ** exponent


def sigmoid_shifted(logits: Tensor, target: Tensor, focus: float) -> Tensor:
    """1 - p after log kappa was added to the target's logit."""
    moved = logits + F.one_hot(target, logits.shape[1]).double() * math.log((1 - focus) / focus)
    return 1 - moved.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)


def of_p(formula: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda logits, target: formula(shown(logits, target)[1])


PUBLISHED: dict[str, tuple[Any, Callable[[Tensor, Tensor], Tensor]]] = {
    "expectation": (objectives.expectation(), of_p(lambda p: 1 - p)),
    "mixture": (objectives.mixture(0.5, 2.0), of_p(lambda p: -0.5 * p.log() + 2 * (1 - p))),
    "dft": (objectives.dft(), dft),
    "floored": (objectives.floored(), partial(dft, least=0.1)),
    "power": (objectives.power(0.7), partial(general_family, q=0.7)),
    "power-10": (objectives.power(10.0), partial(general_family, q=10.0)),
    "square-root": (objectives.power(0.5), of_p(lambda p: 2 * (1 - p.sqrt()))),
    "power-0": (objectives.power(0.0), of_p(lambda p: -p.log())),
    "logarithmic": (objectives.logarithmic(2.0), of_p(lambda p: (1 - 2 * p.log()).log() / 2)),
    "thresholded": (objectives.thresholded(0.2), partial(only_top_p, k=0.2)),
    "shifted": (objectives.shifted(0.2), partial(sigmoid_shifted, focus=0.2)),
    "shifted-half": (objectives.shifted(0.5), of_p(lambda p: 1 - p)),
    "deft": (objectives.deft(), deft),
    "cayley": (objectives.cayley(), partial(cayley, floor=0.0)),
    "cayley-floor": (objectives.cayley(0.3), partial(cayley, floor=0.3)),
    "entropy-gated": (objectives.entropy_gated(), eaft),
    "entropy-gated-2": (objectives.entropy_gated(2.0), partial(eaft, exponent=2.0)),
    "focal": (objectives.focal(2.0, 1.0), of_p(lambda p: -((1 - p) ** 2) * p.log())),
    "inverse-focal": (objectives.inverse_focal(2.0), of_p(lambda p: -((1 + p) ** 2) * p.log())),
    "mae": (objectives.mae(), of_p(lambda p: 2 * (1 - p))),
    "poly": (objectives.poly(2.0), of_p(lambda p: -p.log() + 2 * (1 - p))),
    "tamed": (objectives.tamed(0.5), of_p(lambda p: ((1 - p.log()) ** 0.5 - 2) / 0.5)),
    "truncated": (objectives.truncated(0.7, 0.2), of_p(lambda p: (1 - p.clamp(min=0.2) ** 0.7) / 0.7)),
}
DETACHED = {"dft", "floored", "deft", "cayley", "cayley-floor", "entropy-gated", "entropy-gated-2"}


def batch(rows: int, classes: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 2).to(dtype)
    return logits.requires_grad_(), torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize("rows", [6, 4000])
@pytest.mark.parametrize("name", PUBLISHED)
def test_values_and_gradients_are_the_published_ones(name: str, rows: int) -> None:
    g, published = PUBLISHED[name]
    logits, target = batch(rows)
    loss, expected = cf.probability_loss(g, logits, target, reduction="none"), published(logits, target)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    gradient, wanted = (torch.autograd.grad(x.sum(), logits)[0] for x in (loss, expected))
    torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)


def test_every_objective_is_tested_and_has_a_card() -> None:
    from pathlib import Path

    made = {name.replace("_", "-") for name in objectives.__all__} - {"Row", "weighted"}
    assert made <= set(PUBLISHED)
    page = (Path(__file__).parents[2] / "docs/cards/objectives.md").read_text()
    for name in objectives.__all__:
        assert f"`{name}(" in page or f"`{name}`" in page, name


@pytest.mark.parametrize("focus", [0.05, 0.25, 0.5, 0.8])
def test_the_shifted_gradient_peaks_at_the_focus_with_a_quarter(focus: float) -> None:
    p = torch.linspace(1e-4, 1 - 1e-4, 9999, dtype=torch.float64)
    logits = torch.stack([p.log() - (-p).log1p(), torch.zeros_like(p)], 1).requires_grad_()
    loss = cf.probability_loss(
        objectives.shifted(focus), logits, torch.zeros(len(p), dtype=torch.int64), reduction="sum"
    )
    size = torch.autograd.grad(loss, logits)[0][:, 0].abs()
    assert abs(p[size.argmax()].item() - focus) < 2e-4
    assert abs(size.max().item() - 0.25) < 1e-7


def own(ce: Tensor, row: Row) -> Tensor:
    """A g that asks for everything: two weights that sum to at most 3."""
    return ce * (row.entropy / 2 + row.collision) + -torch.expm1(-ce) * torch.where(row.is_max, row.max_p, 0.5)


OF_ROW = {"deft": objectives.deft(), "entropy-gated": objectives.entropy_gated(), "own": own}


@pytest.mark.parametrize("name", OF_ROW)
@pytest.mark.parametrize(("rows", "classes"), [(5, 7), (3000, 7), (300, 90)])
def test_all_forms_agree(name: str, rows: int, classes: int) -> None:
    """The readable forms by row and by class, the one that is chosen, one-hot probabilities, and the fused one."""
    g = OF_ROW[name]
    logits, target = batch(rows, classes)
    target[1] = -100
    hot = F.one_hot(target.clamp(min=0), classes).double()
    hot[1] = 0.0
    none = {"reduction": "none"}
    forms = [
        _heart.by_row(g, logits, target, CrossEntropyOptions(reduction="none")),
        _heart.by_class(g, logits, target, CrossEntropyOptions(reduction="none")),
        cf.probability_loss(g, logits, target, **none),
        cf.probability_loss(g, logits, hot, **none),
        cf.probability_loss(g, logits.unsqueeze(2), target.unsqueeze(1), **none).squeeze(1),
        torch.stack([cf.probability_loss(g, z, y) for z, y in zip(logits[2:5], target[2:5], strict=True)]),
    ]
    expected = torch.autograd.grad(forms[0].sum(), logits, retain_graph=True)[0]
    for form in forms[1:]:
        rows_of = slice(2, 5) if len(form) == 3 else slice(None)
        torch.testing.assert_close(form, forms[0][rows_of], rtol=1e-9, atol=1e-12)
        gradient = torch.autograd.grad(form.sum(), logits, retain_graph=True)[0]
        torch.testing.assert_close(gradient[rows_of], expected[rows_of], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OF_ROW)
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"reduction": "none"}, {"softcap": 3.0, "z_loss": 0.1}]
)
def test_fused_with_the_projection(name: str, options: dict[str, Any]) -> None:
    g = OF_ROW[name]
    generator = torch.Generator().manual_seed(1)
    hidden, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in ((40, 6), (80, 6))
    )
    target = torch.randint(80, (40,), generator=generator)
    target[::7] = -100
    reference, stats = cf.probability_loss(g, hidden @ weight.t(), target, return_stats=True, **options)
    fused, same = cf.linear_crossfade_loss(
        hidden, weight, target, g=g, memory_budget_mb=0.01, return_stats=True, **options
    )
    torch.testing.assert_close(fused, reference)
    for got, wanted in zip(vars(same).values(), vars(stats).values(), strict=True):
        torch.testing.assert_close(got, wanted)
    for got, wanted in zip(
        *(torch.autograd.grad(loss.sum(), (hidden, weight)) for loss in (fused, reference)), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_the_row_weight_is_what_the_statistics_say() -> None:
    logits, target = batch(3000)
    loss, stats = cf.probability_loss(objectives.deft(), logits, target, return_stats=True, reduction="sum")
    p = logits.detach().softmax(1)
    expected = (p - F.one_hot(target, 7)) * stats.row_weight.unsqueeze(1)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected, rtol=1e-9, atol=1e-12)
    p_y = p.gather(1, target.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(stats.row_weight, p_y ** p.square().sum(1))


def test_statistics_of_the_row() -> None:
    seen: dict[str, Tensor] = {}

    def g(ce: Tensor, row: Row) -> Tensor:
        seen.update({name: getattr(row, name) for name in ("entropy", "collision", "max_p", "is_max")})
        return ce

    for rows, classes in ((4, 5), (4000, 5), (300, 90)):
        logits, target = batch(rows, classes)
        with torch.no_grad():
            logits[0, 1] = float("-inf")
            logits[1] += 1e4  # a common offset, which the softmax doesn't see
        cf.probability_loss(g, logits, target.masked_fill(target == 1, 0))
        p = logits.detach().softmax(1)
        wanted = torch.distributions.Categorical(p).entropy()
        torch.testing.assert_close(seen["entropy"], wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(seen["collision"], p.square().sum(1))
        torch.testing.assert_close(seen["max_p"], p.amax(1))
        assert torch.equal(seen["is_max"], p.argmax(1) == target.masked_fill(target == 1, 0))


def test_nothing_is_computed_that_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfade import _row

    asked: list[str] = []
    for name, formula in _row._OF_P.items():
        monkeypatch.setitem(
            _row._OF_P, name, lambda p, dim, name=name, formula=formula: (asked.append(name), formula(p, dim))[1]
        )
    logits, target = batch(4000)
    cf.probability_loss(lambda ce: ce, logits, target).backward()
    cf.crossfade_loss(logits, target).backward()
    assert asked == []
    cf.probability_loss(objectives.deft(), logits, target).backward()
    assert set(asked) == {"collision"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_contract(name: str) -> None:
    report = check_loss(partial(cf.probability_loss, PUBLISHED[name][0]))
    assert report.skipped == (("second_derivative",) if name in DETACHED else ())


def test_parameters_are_checked() -> None:
    for make in (
        partial(objectives.power, -1.0),
        partial(objectives.thresholded, 1.5),
        partial(objectives.floored, -0.1),
        partial(objectives.logarithmic, 0.0),
        partial(objectives.shifted, 1.0),
        partial(objectives.cayley, 2.0),
        partial(objectives.entropy_gated, -1.0),
        partial(objectives.entropy_gated, 1.0, 1),
        partial(objectives.inverse_focal, float("nan")),
    ):
        with pytest.raises(ValueError, match=r"must be .*, got"):
            make()


def test_a_result_of_another_shape_is_refused() -> None:
    logits, target = batch(5)
    with pytest.raises(ValueError, match="elementwise"):
        cf.probability_loss(lambda ce, row: ce.sum(), logits, target)
    with pytest.raises(AttributeError, match="a row has entropy, collision, max_p, is_max, not 'variance'"):
        cf.probability_loss(lambda ce, row: ce * row.variance, logits, target)
