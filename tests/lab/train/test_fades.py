"""Methods whose loss has a schedule of its own: in every engine the constant loss's network at each progress."""

import math

import numpy as np
import pytest
import torch

from crossfade import CrossfadeLoss, Fade, compare, gradual, ramp
from crossfade.errors import UserError
from crossfade.lab.methods import method
from crossfade.lab.own_loss import as_method, load_loss
from crossfade.lab.train import Member, Recipe, train_stack
from crossfade.lab.train.tables.trace import traced
from crossfade.lab.trial import _method_content
from crossfade.objectives import focal, power, truncated
from tests.lab.train.test_engines import FAST, assert_agree, assert_engines_agree

ENGINES = [*FAST, "plain"]


def branching(q):
    """Return L_q by a decision that a compiler can't record."""
    return (lambda ce: ce) if q == 0 else (lambda ce: -torch.expm1(-q * ce) / q)


def late(progress):
    return 0.0 if progress < 0.5 else 0.7


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("granularity", ["epoch", "step"])
def test_before_and_after_a_step_it_is_the_constant_loss(make_split, engine, granularity):
    """CE's epochs to the last bit, then L_q's: a network that CE has begun, and no other."""
    split, recipe = make_split(rows=30), Recipe(epochs=6, granularity=granularity)
    fade = as_method(Fade(power, q=late))
    chosen = [method("ce"), fade, as_method(Fade(power, q=0.7)), method("gce")]
    ce, both, constant, gce = train_stack([Member(split, one, 0.05, 1) for one in chosen], recipe, engine=engine)
    assert {h.engine for h in (ce, both, constant, gce)} == {engine}
    assert_agree(split, constant, gce, 1e-6)
    np.testing.assert_allclose(both.curves["val_nll"][:3], ce.curves["val_nll"][:3], rtol=0, atol=1e-6)
    assert np.abs(both.curves["val_nll"] - ce.curves["val_nll"])[3:].min() > 1e-4
    assert np.abs(both.curves["val_nll"] - gce.curves["val_nll"]).min() > 1e-4


@pytest.mark.parametrize("net", ["linear", "mlp"])
@pytest.mark.parametrize("granularity", ["epoch", "step"])
def test_any_fade_walks_like_the_plain_loop(make_split, net, granularity):
    fades = [
        Fade(power, q=ramp(0.0, 0.7)),
        Fade(truncated, k=ramp(0.1, 0.4), q=0.7),
        Fade(focal, gamma=ramp(3.0, 0.0), alpha=1.0),
        Fade(lambda c, root: lambda ce: (1 + c * ce) ** root, root=ramp(0.5, 0.9, steps=3), c=2.0),
        Fade(lambda: lambda ce: torch.log1p(ce)),
    ]
    members = [Member(make_split(rows=30), as_method(fade), 0.05, seed) for seed, fade in enumerate(fades)]
    members.append(Member(members[0].split, method("gradual"), 0.05, 9))
    assert_engines_agree(members, Recipe(net=net, epochs=6, granularity=granularity), 1e-5)


def test_what_cannot_be_compiled_trains_in_the_batched_engine(make_split, caplog):
    split, recipe = make_split(rows=30), Recipe(epochs=6)
    other = as_method(Fade(branching, q=ramp(0.0, 0.7, steps=3)))
    (history,) = train_stack([Member(split, other, 0.05, 1)], recipe)
    assert history.engine == "batched"
    assert "branching trains in the batched engine" in caplog.text
    same = as_method(Fade(power, q=ramp(0.0, 0.7, steps=3)))
    assert_agree(split, history, train_stack([Member(split, same, 0.05, 1)], recipe, engine="plain")[0], 1e-5)


def test_parameters_are_read_when_the_loss_is_called():
    values = ((0.0,), (0.35,), (0.7,))
    assert traced(power, ("q",), values).address == traced(power, ("q",), values).address != 0
    names = tuple(f"c{k}" for k in range(9))
    many = traced(lambda **parameters: lambda ce: ce * sum(parameters.values()), names, ((1.0,) * 9,))
    assert (many.address, many.reason) == (0, "it has more than 8 parameters")


def test_the_rising_method_and_its_key():
    rising, recipe = method("gce-rising"), Recipe()
    assert rising.values() == tuple((pytest.approx(0.14 * k),) for k in range(6))
    ce = torch.linspace(0.1, 3, 5)
    assert torch.equal(rising.transform((0.7,))(ce), power(0.7)(ce))
    assert torch.equal(method("log-ce").transform(())(ce), torch.log1p(ce))
    assert _method_content(rising, recipe) == {"name": "gce-rising"}
    keys = [_method_content(as_method(Fade(power, q=ramp(0.0, end))), recipe) for end in (0.7, 0.7, 0.8)]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0]["g"] == keys[2]["g"]
    mixture, schedule = as_method(CrossfadeLoss(gradual())), as_method(gradual())
    assert (mixture.g_of, mixture.values()) == (None, schedule.values())


def test_fades_that_cannot_be_compared(tmp_path):
    with pytest.raises(UserError, match="a Fade must have no weight, label_smoothing"):
        as_method(Fade(power, q=0.5, label_smoothing=0.1))
    path = tmp_path / "mine.py"
    path.write_text("from crossfade import *\nbad = Fade(lambda c: lambda ce: c * ce, c=ramp(1.0, -1.0, steps=2))\n")
    with pytest.raises(UserError, match="bad must never fall as ce grows"):
        load_loss(f"{path}:bad")


def test_a_fade_in_a_comparison(tmp_path):
    X = np.random.default_rng(0).normal(size=(80, 3))
    fade = Fade(power, q=ramp(0.0, 0.7, steps=6))
    result = compare(X, X[:, 0] > 0, methods=["ce", "gce-rising", fade], repeats=2, epochs=6, store=tmp_path / "s.db")
    accuracy = result.results.pivot_table("accuracy", "method", "repeat").loc[["power", "gce-rising"]].to_numpy()
    np.testing.assert_array_equal(*accuracy)
    assert math.isfinite(accuracy.sum())
