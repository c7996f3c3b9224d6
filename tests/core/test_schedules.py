from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import crossfade as cf
from crossfade import schedules
from crossfade.schedules import Weights


def phases(schedule: schedules.Schedule, epochs: int) -> list[tuple[Weights, int]]:
    runs: list[tuple[Weights, int]] = []
    for epoch in range(epochs):
        weights = schedule(epoch / epochs)
        if runs and runs[-1][0] == weights:
            runs[-1] = weights, runs[-1][1] + 1
        else:
            runs.append((weights, 1))
    return runs


@pytest.mark.parametrize("epochs", [60, 90, 240, 6, 90_000])
def test_recipe_three_has_six_equal_phases(epochs: int) -> None:
    runs = phases(cf.gradual(), epochs)
    assert [count for _, count in runs] == [epochs // 6] * 6
    expected = [(1, 1), (1, 1 / 0.8), (1, 1 / 0.6), (1, 1 / 0.4), (1, 1 / 0.2), (0, 1)]
    for (weights, _), (alpha, beta) in zip(runs, expected, strict=True):
        assert weights.alpha == alpha
        assert weights.beta == pytest.approx(beta, rel=1e-12)


@pytest.mark.parametrize("epochs", [20, 60, 100, 240, 100_000])
def test_recipe_two_drops_ce_in_the_last_five_percent(epochs: int) -> None:
    assert phases(cf.switch(), epochs) == [((1.0, 1.0), epochs * 95 // 100), ((0.0, 1.0), epochs * 5 // 100)]


def test_recipe_one_and_the_ends() -> None:
    assert phases(cf.constant(0.0), 50) == [((1.0, 1.0), 50)]
    assert phases(cf.cross_entropy(), 50) == [((1.0, 0.0), 50)]
    assert phases(cf.expectation(), 50) == [((0.0, 1.0), 50)]


@given(st.floats(0, 0.5), st.sampled_from(["paper", "unit"]))
def test_weights_put_the_peak_at_the_focus(focus: float, scale: schedules.Scale) -> None:
    alpha, beta = cf.weights(focus, scale)
    assert 0.5 * (1 - alpha / beta) == pytest.approx(focus, abs=1e-9)


@given(st.floats(0, 1), st.sampled_from(["paper", "unit"]), st.integers(1, 9))
def test_every_schedule_gives_finite_weights(progress: float, scale: schedules.Scale, count: int) -> None:
    focuses = [0.5 * i / count for i in range(count + 1)]
    for schedule in (cf.gradual(scale), cf.staircase(focuses, scale), cf.switch(scale=scale), cf.linear()):
        weights = schedule(progress)
        assert isinstance(weights, Weights)
        assert 0 <= weights.alpha <= 1
        assert 0 < weights.beta < 1e9
        assert schedule(progress) == weights == pickle.loads(pickle.dumps(schedule))(progress)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_the_linear_fade_is_monotone(two: list[float]) -> None:
    early, late = sorted(two)
    fade = cf.linear(0.0, 0.5)
    assert fade(early).alpha >= fade(late).alpha
    assert fade(0.0) == (1.0, 1.0)
    assert fade(1.0) == (0.0, 1.0)


@given(st.integers(1, 2000), st.data())
def test_an_accumulated_progress_stays_in_its_phase(total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total))
    assert cf.gradual()(step * (1 / total)) == cf.gradual()(step / total)


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan"), float("inf"), 5])
def test_progress_outside_is_refused(progress: float) -> None:
    for schedule in (cf.gradual(), cf.constant(), cf.switch(), cf.linear(), cf.expectation()):
        with pytest.raises(ValueError, match="progress must be in"):
            schedule(progress)


def test_bad_schedules_are_refused() -> None:
    for call in (lambda: cf.weights(0.6), lambda: cf.constant(-0.1), lambda: cf.linear(0, 0.7)):
        with pytest.raises(ValueError, match="focus must be in"):
            call()
    with pytest.raises(ValueError, match="scale must be"):
        cf.gradual("big")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at must be in"):
        cf.switch(at=95)
    with pytest.raises(ValueError, match="at least one focus"):
        cf.staircase([])


class TestCriterion:
    def test_matches_the_function_at_every_progress(self) -> None:
        criterion = cf.CrossfadeLoss()
        for rows in (8, 3000):
            logits, target = torch.randn(rows, 10, dtype=torch.float64), torch.randint(10, (rows,))
            for progress in (0.0, 0.2, 0.5, 0.9, 1.0):
                alpha, beta = cf.gradual()(progress)
                expected = cf.crossfade_loss(logits, target, alpha=alpha, beta=beta)
                torch.testing.assert_close(criterion.at(progress)(logits, target), expected, rtol=1e-12, atol=0)

    def test_a_cross_entropy_checkpoint_loads_strictly(self) -> None:
        for weight in (None, torch.rand(4)):
            old, new = torch.nn.CrossEntropyLoss(weight=weight), cf.CrossfadeLoss(weight=weight)
            new.load_state_dict(old.state_dict(), strict=True)
            assert new.state_dict().keys() == old.state_dict().keys()

    def test_weights_survive_casts_and_copies(self) -> None:
        import copy

        criterion = cf.CrossfadeLoss().at(0.2)
        for other in (copy.deepcopy(criterion).half(), copy.deepcopy(criterion).to(torch.bfloat16).double()):
            assert (other.alpha.item(), other.beta.item()) == cf.weights(0.1)
        assert pickle.loads(pickle.dumps(criterion)).beta.item() == 1.25
        assert copy.deepcopy(criterion).to("meta").beta.device.type == "meta"

    def test_losses_of_several_steps_can_wait_for_one_backward(self) -> None:
        criterion = cf.CrossfadeLoss(cf.switch(0.0, 0.5, at=0.5))
        logits, target = torch.randn(6, 3, requires_grad=True), torch.randint(3, (6,))
        total = criterion.at(0.0)(logits, target) + criterion.at(1.0)(logits, target)
        expected = cf.crossfade_loss(logits, target) + cf.expectation_loss(logits, target)
        torch.testing.assert_close(torch.autograd.grad(total, logits), torch.autograd.grad(expected, logits))

    def test_one_graph_through_the_whole_schedule(self) -> None:
        import torch._dynamo.testing

        counter = torch._dynamo.testing.CompileCounter()
        torch.compiler.reset()
        criterion = cf.CrossfadeLoss(cf.linear())
        compiled = torch.compile(criterion, backend=counter, fullgraph=True)
        logits, target = torch.randn(6, 3, requires_grad=True), torch.randint(3, (6,))
        for step in range(21):
            criterion.at(step / 20)
            torch.testing.assert_close(compiled(logits, target), criterion(logits, target))
        assert counter.frame_count == 1

    def test_bad_arguments(self) -> None:
        with pytest.raises(TypeError, match="schedule must be a function"):
            cf.CrossfadeLoss(0.5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"schedule must return Weights\(alpha, beta\), got 0\.0"):
            cf.CrossfadeLoss(cf.ramp(0.0, 1.0))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="reduction must be"):
            cf.CrossfadeLoss(reduction="average")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="progress must be in"):
            cf.CrossfadeLoss().at(3)


@pytest.mark.parametrize("maker", [cf.gradual, cf.linear, cf.constant, cf.staircase])
def test_a_function_that_makes_a_schedule_is_no_schedule(maker: object) -> None:
    with pytest.raises(TypeError, match=r"makes a schedule and is none; call it, as in \w+\(\)"):
        cf.CrossfadeLoss(maker)  # type: ignore[arg-type]
