"""``Fade``: the loss of each progress is the constant loss with the schedule's values there, in every form."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import crossfade as cf
from crossfade._transforms import Mixture, Transform
from crossfade.objectives import focal, logarithmic, poly, power, tamed, truncated
from crossfade.testing import check_loss

FADES: dict[str, tuple[Callable[..., Transform], dict[str, float | cf.schedules.ParameterSchedule]]] = {
    "rising L_q": (power, {"q": cf.ramp(0.0, 0.7, steps=6)}),
    "L_q, a line": (power, {"q": cf.ramp(1.0, 0.0)}),
    "truncated": (truncated, {"q": cf.ramp(0.0, 0.7), "k": cf.ramp(0.1, 0.4, steps=3)}),
    "focal": (focal, {"gamma": cf.ramp(3.0, 0.0), "alpha": 1.0}),
    "logarithmic": (logarithmic, {"c": cf.ramp(0.1, 9.0)}),
    "tamed": (tamed, {"alpha": cf.ramp(0.9, 0.1)}),
    "poly": (poly, {"epsilon": cf.ramp(2.0, 0.0)}),
    "mixture": (Mixture, {"alpha": cf.ramp(1.0, 0.0), "beta": cf.ramp(0.0, 1.0)}),
    "no parameters": (cf.objectives.mae, {}),
}
PROGRESS = (0.0, 1 / 6, 0.3, 0.5, 0.99, 1.0)


def made(name: str, **options: object) -> cf.Fade:
    g_of, parameters = FADES[name]
    return cf.Fade(g_of, **parameters, **options)  # type: ignore[arg-type]


def constant(name: str, progress: float) -> Transform:
    g_of, parameters = FADES[name]
    return g_of(**{key: value(progress) if callable(value) else value for key, value in parameters.items()})


def both(loss: Callable[..., Tensor], logits: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and the gradient of the logits."""
    value = loss(logits, *others)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("name", FADES)
@pytest.mark.parametrize("rows", [8, 3000])
def test_each_progress_has_the_constant_loss(name: str, rows: int) -> None:
    options = {"weight": torch.rand(10) + 0.5, "ignore_index": 3, "z_loss": 1e-3}
    fade = made(name, **options)
    logits, target = torch.randn(rows, 10, requires_grad=True), torch.randint(10, (rows,))
    for progress in PROGRESS:
        expected = both(partial(cf.probability_loss, constant(name, progress), **options), logits, target)
        torch.testing.assert_close(both(fade.at(progress), logits, target), expected, rtol=0, atol=0)


def test_the_mixture_s_fade_is_a_special_case() -> None:
    criterion = cf.CrossfadeLoss(cf.gradual())
    same = cf.Fade(Mixture, alpha=lambda at: cf.gradual()(at).alpha, beta=lambda at: cf.gradual()(at).beta)
    assert isinstance(criterion, cf.Fade)
    logits, target = torch.randn(8, 5), torch.randint(5, (8,))
    for progress in PROGRESS:
        assert criterion.at(progress)(logits, target) == same.at(progress)(logits, target)
    assert str(criterion) == "CrossfadeLoss(schedule=staircase, alpha=0, beta=1)"
    assert str(made("rising L_q").at(0.5)) == "Fade(g_of=power, q=0.42)"


@pytest.mark.parametrize("name", FADES)
def test_one_graph_through_the_whole_schedule(name: str) -> None:
    torch.compiler.reset()
    fade = made(name)
    compiled = torch.compile(fade, backend="aot_eager", fullgraph=True)
    logits, target = torch.randn(6, 3, requires_grad=True), torch.randint(3, (6,))
    for step in range(13):
        fade.at(step / 12)
        expected = both(fade, logits, target)
        with torch._dynamo.config.patch(error_on_recompile=True):
            loss = compiled(logits, target)
        fade.at(1 - step / 12)  # the backward pass belongs to the values of the forward pass
        gradient = torch.autograd.grad(loss, logits)[0]
        torch.testing.assert_close((loss.detach(), gradient), expected)


@pytest.mark.parametrize("name", FADES)
def test_parameters_as_tensors_are_those_as_numbers(name: str) -> None:
    """As on a GPU, where the values are on the device; no row is promoted, also not one without a batch."""
    g_of, _ = FADES[name]
    fade = made(name)
    for progress in PROGRESS:
        tensors = {
            key: torch.tensor(value, dtype=torch.float64)
            for key, value in zip(fade.names, fade.schedule(progress), strict=True)
        }
        for shape in ((7, 4), (5000, 4), (4,)):
            logits, target = torch.randn(shape, requires_grad=True), torch.randint(4, shape[:-1])
            expected = both(partial(cf.probability_loss, constant(name, progress)), logits, target)
            got = both(partial(cf.probability_loss, g_of(**tensors)), logits, target)
            assert got[0].dtype == torch.float32
            torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-7)
        ce = torch.tensor([0.0, 1.0, 30.0, torch.inf])
        exact = cf._transforms.value_and_slope(constant(name, progress), ce)
        torch.testing.assert_close(cf._transforms.value_and_slope(g_of(**tensors), ce), exact, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", FADES)
def test_fused_with_the_output_projection(name: str) -> None:
    hidden, weight = torch.randn(9, 4, requires_grad=True), torch.randn(6, 4)
    target, fade = torch.randint(6, (9,)), made(name)
    for progress in PROGRESS:
        g = fade.at(progress).g()
        expected = both(lambda x: fade(F.linear(x, weight), target), hidden)
        got = both(partial(cf.linear_crossfade_loss, g=g), hidden, weight, target)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ["rising L_q", "truncated", "focal", "no parameters"])
def test_contract(name: str) -> None:
    for progress in (0.0, 0.5, 1.0):
        assert check_loss(made(name).at(progress)).passed
        assert check_loss(partial(cf.probability_loss, constant(name, progress))).passed


def test_l_q_rises_from_the_cross_entropy() -> None:
    """float64 formulas; near q = 0 nothing cancels, and the row weight is p^q."""
    logits, target = torch.randn(50, 4, dtype=torch.float64, requires_grad=True), torch.randint(4, (50,))
    fade = cf.Fade(power, q=cf.ramp(0.0, 1.0))
    p = logits.softmax(1)[torch.arange(50), target].detach()
    plain = torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), logits)[0]
    for q in (0.0, 1e-12, 1e-6, 0.3, 1.0):
        value, gradient = both(fade.at(q), logits, target)
        expected = -p.log() if q == 0 else -torch.expm1(q * p.log()) / q
        torch.testing.assert_close(value, expected.mean(), rtol=1e-14, atol=0)
        torch.testing.assert_close(gradient, plain * (p**q).unsqueeze(1) / 50, rtol=1e-12, atol=1e-16)


def test_copies_casts_and_checkpoints() -> None:
    fade = made("truncated", weight=torch.rand(5)).at(0.5)
    assert fade.state_dict().keys() == torch.nn.CrossEntropyLoss(weight=torch.rand(5)).state_dict().keys()
    values = {"q": 0.35, "k": pytest.approx(0.25)}
    for other in (
        copy.deepcopy(fade).half(),
        copy.deepcopy(fade).bfloat16().double(),
        pickle.loads(pickle.dumps(fade)),
    ):
        assert {name: getattr(other, name).item() for name in other.names} == values
        assert other.at(1.0).q == 0.7
        assert fade.q == 0.35
    assert copy.deepcopy(fade).to("meta").q.device.type == "meta"
    assert made("no parameters").to("meta").double().names == ()
    with torch.inference_mode():
        moved = copy.deepcopy(fade).to("cpu").at(0.0)
    assert moved.at(1.0).q == 0.7
    # Resumed anywhere: nothing but the progress counts.
    logits, target = torch.randn(4, 5), torch.randint(5, (4,))
    assert made("rising L_q").at(0.8)(logits, target) == made("rising L_q").at(0.1).at(0.8)(logits, target)


@given(st.floats(-9, 9), st.floats(-9, 9), st.none() | st.integers(2, 9), st.floats(0, 1))
def test_a_ramp_moves_one_way_from_its_start_to_its_end(
    start: float, end: float, steps: int | None, progress: float
) -> None:
    ramp = pickle.loads(pickle.dumps(cf.ramp(start, end, steps)))
    assert ramp(0.0) == start
    assert ramp(1.0) == end
    assert min(start, end) <= ramp(progress) <= max(start, end)
    assert abs(ramp(progress) - start) <= abs(ramp(min(progress + 0.1, 1.0)) - start) + 1e-12


@pytest.mark.parametrize("steps", [2, 6, 7])
def test_a_ramp_of_steps_has_equal_phases(steps: int) -> None:
    values = [cf.ramp(0.0, 0.7, steps)(epoch / (10 * steps)) for epoch in range(10 * steps)]
    assert [values.count(value) for value in dict.fromkeys(values)] == [10] * steps
    assert sorted(set(values)) == pytest.approx(torch.linspace(0, 0.7, steps).tolist())


@pytest.mark.parametrize(
    ("make", "error", "finding"),
    [
        (lambda: cf.ramp(0.0, float("inf")), ValueError, "end must be a finite number, got inf"),
        (lambda: cf.ramp(0.0, 1.0, steps=1), ValueError, "steps must be at least 2 whole phases"),
        (lambda: cf.ramp(0.0, 1.0, steps=2.5), ValueError, "2 whole phases.*got 2.5"),  # type: ignore[arg-type]
        (lambda: cf.ramp(0.0, 1.0)(1.5), ValueError, "progress must be in"),
        (lambda: cf.Fade(power, q=0.7).at(1.5), ValueError, "progress must be in"),
        (lambda: cf.Fade(power, q=cf.ramp(0.0, -0.2)), ValueError, r"q must be a finite number >= 0.*got -0.2"),
        (lambda: cf.Fade(power, q="0.7"), TypeError, "q must be a number or a function of progress.*got '0.7'"),
        (lambda: cf.Fade(power, q=cf.ramp), TypeError, r"ramp makes a schedule and is none; call it"),
        (lambda: cf.Fade(power, q=cf.gradual()), TypeError, "q must be one number at progress 1.*got Weights"),
        (lambda: cf.Fade(power, p=0.7), TypeError, r"g_of must take the parameters \(p\).*unexpected keyword"),
        (lambda: cf.Fade(power(0.7)), TypeError, r"g_of must take the parameters \(\)"),
        (lambda: cf.Fade(lambda q: q, q=0.7), TypeError, "g_of must return a function g.*got float"),
        (lambda: cf.Fade(power, q=0.7, reduction="all"), ValueError, "reduction must be"),
        (lambda: cf.Fade(lambda train: power(train), train=0.7), TypeError, "train can't name a parameter"),
    ],
)
def test_bad_arguments(make: Callable[[], object], error: type[Exception], finding: str) -> None:
    with pytest.raises(error, match=finding):
        make()
