import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import integrate

import crossfade
from crossfade import objectives
from crossfade.errors import UserError
from crossfade.lab.methods import DEFAULT_METHODS, METHODS, Method, method
from crossfade.lab.own_loss import as_method, check_loss, check_method, load_loss
from crossfade.lab.train import Member, Recipe, Split, train_stack
from crossfade.schedules import gradual


def test_names_are_unique_and_the_papers_six_come_by_default():
    names = [m.name for m in METHODS]
    assert len(set(names)) == len(names)
    assert len({m.title for m in METHODS}) == len(names)
    assert DEFAULT_METHODS == ("ce", "f0", "f0-late", "gradual", "el", "focal")
    assert [method(name).name for name in DEFAULT_METHODS] == list(DEFAULT_METHODS)


def test_the_recipes_of_the_paper():
    at = {name: [tuple(method(name).schedule(k / 240)) for k in range(240)] for name in ("ce", "f0", "f0-late", "el")}
    assert set(at["ce"]) == {(1.0, 0.0)}
    assert set(at["f0"]) == {(1.0, 1.0)}
    assert set(at["el"]) == {(0.0, 1.0)}
    assert at["f0-late"][:228] == [(1.0, 1.0)] * 228
    assert at["f0-late"][228:] == [(0.0, 1.0)] * 12
    assert len({tuple(method("gradual").schedule(k / 240)) for k in range(240)}) == 6


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.5, 0.7, 0.95])
def test_matched_methods_have_the_volumes_of_equations_20_to_22(progress):
    """M is the ratio of the integrals of the gradients' sizes, integrated here by SciPy."""
    alpha, beta = gradual()(progress)
    on_target, _ = integrate.quad(lambda p: (1 - p) * (alpha + beta * p), 0, 1)
    off_target, _ = integrate.dblquad(lambda p, other: other * (alpha + beta * p), 0, 1, 0, 1)
    assert method("ce-matched").schedule(progress) == pytest.approx((on_target / 0.5, 0.0))
    assert method("ce-matched-off").schedule(progress) == pytest.approx((off_target / 0.5, 0.0))
    assert method("ce-rate-matched").factor(progress) == pytest.approx(on_target / 0.5)
    assert method("ce-rate-matched-off").factor(progress) == pytest.approx(off_target / 0.5)


@pytest.mark.parametrize("chosen", METHODS, ids=lambda m: m.name)
def test_methods_travel_to_other_processes(chosen):
    twin = pickle.loads(pickle.dumps(chosen))
    assert twin == chosen or twin.name == chosen.name  # partials are equal only to themselves
    assert twin.schedule(0.3) == chosen.schedule(0.3)
    if chosen.g is not None:
        ce = torch.linspace(0.1, 3, 5)
        torch.testing.assert_close(twin.g(ce), chosen.g(ce), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gradul", "did you mean 'gradual'"),
        ("CE", "did you mean 'ce'"),
        ("focl", "'focal'"),
        ("?", "there are ce, f0,"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UserError, match=message):
        method(name)


LOSSES = """
import torch

def squared(ce):
    return torch.expm1(-ce) ** 2

def ce(ce):
    return ce

def mean(ce):
    return ce.mean()

def falls(ce):
    return -ce

def hole(ce):
    return torch.where(ce > 3, torch.nan, ce)

def overflows(ce):
    return torch.exp(10 * ce)

def root(ce):
    return ce.sqrt()

def constant(ce):
    return 0 * ce + 1

def late(ce):
    return torch.where(ce > 20, 40 - ce, ce)

def leaves(ce):
    raise SystemExit(3)

number = 3
"""


@pytest.fixture
def losses(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(LOSSES)
    (tmp_path / "broken.py").write_text("def g(ce:\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "exits.py").write_text("raise SystemExit('bye')\n")
    (tmp_path / "needs.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_losses", None)


@pytest.mark.parametrize("reference", ["my_losses:squared", "my_losses.py:squared", "./my_losses.py:squared"])
def test_a_loss_by_module_or_file(losses, reference):
    own = load_loss(reference)
    assert (own.name, own.title) == ("squared", "squared")
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 3)), generator.integers(0, 2, 30)
    (h,) = train_stack([Member(Split(x, y, x, y, x, y, 2), own, 0.01, 0)], Recipe(epochs=2))
    assert h.engine == "kernel"
    assert 0 < h.curves["train_loss"][-1] < 1  # (1 - p)^2


def test_a_loss_by_absolute_path_from_elsewhere(losses, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load_loss(f"{losses / 'my_losses.py'}:squared").g(torch.tensor([1.0])).item() == pytest.approx(
        0.39958, abs=1e-5
    )


def test_a_name_that_is_taken_gets_an_addition(losses):
    assert load_loss("my_losses:ce").name == "ce-custom"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("squared", "must be module:function"),
        ("my_losses:", "must be module:function"),
        ("my_losses:a b", "must be module:function"),
        ("no_such_module:g", "no module 'no_such_module'"),
        ("no_such_file.py:g", "is not there"),
        ("my_losses:absent", "absent is not there"),
        ("my_losses.py:number", "number is not a function"),
        ("my_losses:mean", "mean: g must give a loss for each cross entropy"),
        ("my_losses:falls", "falls must never fall as ce grows: its slope is -1"),
        ("my_losses:late", "late must never fall .* at ce = 20"),
        ("my_losses:hole", "hole must be finite .* its value is nan at ce = 3"),
        ("my_losses:overflows", "overflows must be finite .* its value is inf"),
        ("my_losses:root", "root must have a finite slope .* at ce = 0;"),
        ("my_losses:constant", "constant must grow somewhere"),
        ("my_losses:leaves", "leaves failed .* SystemExit: 3"),
        ("exits.py:g", "failed to load: SystemExit: bye"),
        ("broken.py:g", "failed to load: SyntaxError"),
        ("raises.py:g", "failed to load: ZeroDivisionError"),
        ("needs.py:g", "needs the module 'no_such_module_anywhere'"),
    ],
)
def test_losses_that_cannot_be_loaded(losses, reference, message):
    with pytest.raises(UserError, match=message) as caught:
        load_loss(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("known", METHODS, ids=lambda m: m.name)
def test_the_losses_here_can_be_trained_on(known):
    if known.g is not None:
        check_loss(known.g)


def test_the_cosine_is_for_tables():
    with pytest.raises(UserError, match="'ce-cosine' is for tables"):
        method("ce-cosine", tables=False)
    for name in ("ce-cosin", "?"):
        with pytest.raises(UserError) as hint:
            method(name, tables=False)
        assert "ce-cosine" not in str(hint.value)
    assert method("ce-cosine").factor(0.5) == pytest.approx(0.5)


def test_listing_methods_imports_no_torch():
    code = "import sys, crossfade.lab.methods as m; assert len(m.METHODS) > 10 and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_method_is_an_object():
    assert Method("mine", "Mine").schedule(0.5) == (1.0, 0.0)


def test_an_objective_that_looks_at_its_row_is_a_method() -> None:
    """Its key is that of its formula and its parameters, and it trains as a loss of the network's outputs."""
    from crossfade.lab.trial import _source

    deft, once, again, twice = (
        as_method(g) for g in (objectives.deft(), *(objectives.entropy_gated(exponent) for exponent in (1.0, 1.0, 2.0)))
    )
    check_method(deft)
    assert deft.g is None
    assert deft.name == "deft"
    assert _source(once.own) == _source(again.own) != _source(twice.own) != _source(deft.own)  # type: ignore[arg-type]
    logits, target = torch.randn(6, 4), torch.arange(6) % 4
    loss = deft.criterion(logits, target, reduction="none")  # type: ignore[misc]
    torch.testing.assert_close(loss, crossfade.probability_loss(objectives.deft(), logits, target, reduction="none"))
