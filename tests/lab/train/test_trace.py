"""Losses compiled from what PyTorch does for them, against PyTorch and, for the built-in ones, against formulas."""

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import UserError
from crossfade.lab.methods import METHODS, Method, method
from crossfade.lab.own_loss import probe as check
from crossfade.lab.train import Member, Recipe, train_stack
from crossfade.lab.train.tables.trace import TEMPLATES, compiled_values, traced
from tests.examples import examples

P = [1e-30, 1e-20, 1e-8, 1e-3, 0.1, 0.3, 0.49, 0.51, 0.7, 0.9, 0.999, 1 - 1e-6]


def call(compiled, ce):
    """Value and derivative at each float32 of ``ce``, as the kernel gets them."""
    import ctypes

    out = []
    for value in np.asarray(ce, dtype=np.float32):
        row = np.full(24, value, dtype=np.float32)
        compiled.ctypes(row.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
        out.append((row[8], row[16]))
    return np.array(out).T


# g and g' as printed in the papers, in p
FORMULAS = {
    "focal": (
        lambda p: -((1 - p) ** 2) * mpmath.log(p) / 4,
        lambda p: ((1 - p) ** 2 - 2 * p * (1 - p) * mpmath.log(p)) / 4,
    ),
    "mae": (lambda p: 2 * (1 - p), lambda p: 2 * p),
    "gce": (lambda p: (1 - p**0.7) / 0.7, lambda p: p**0.7),
    "tgce": (lambda p: (1 - max(p, 0.5) ** 0.7) / 0.7, lambda p: p**0.7 if p > 0.5 else 0),
    "tce": (lambda p: 2 * ((1 - mpmath.log(p)) ** 0.5 - 2), lambda p: (1 - mpmath.log(p)) ** -0.5),
    "log-ce": (lambda p: mpmath.log1p(-mpmath.log(p)), lambda p: 1 / (1 - mpmath.log(p))),
    "poly": (lambda p: -mpmath.log(p) + 2 * (1 - p), lambda p: 1 + 2 * p),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_built_in_losses_are_compiled_and_are_the_published_ones(name):
    compiled = traced(method(name).g)
    assert compiled.address
    ce = np.array([-mpmath.log(p) for p in P], dtype=np.float32)
    for got, formula in zip(call(compiled.compiled, ce), FORMULAS[name], strict=True):
        expected = [float(formula(mpmath.exp(-mpmath.mpf(float(value))))) for value in ce]
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-12)


def test_every_built_in_loss_has_its_formula_here():
    assert {m.name for m in METHODS if m.g is not None} == set(FORMULAS)


COMPILED = {
    "softplus": lambda ce: F.softplus(ce - 1),
    "smooth_l1": lambda ce: F.smooth_l1_loss(ce, torch.zeros_like(ce), reduction="none"),
    "tanh and sigmoid": lambda ce: torch.tanh(ce) * torch.sigmoid(ce) + torch.erf(ce),
    "branches": lambda ce: torch.where(ce > 1, ce.sqrt(), ce**2),
    "bounds": lambda ce: ce.clamp(0.1, 3.0) + ce.clamp(max=1.0) + torch.clamp(1 - ce, min=-2),
    "logsigmoid": lambda ce: F.logsigmoid(-ce),
    "gelu": F.gelu,
    "relu": lambda ce: torch.relu(ce - 1),
    "elu": lambda ce: F.elu(1 - ce) + F.elu(2 - ce, 0.5) + F.celu(-ce, 2.0),
    "in place": lambda ce: ce.clone().mul_(2).add_(1),
    "half detached": lambda ce: ce * torch.exp(-ce).detach(),
    "constant tensor": lambda ce: torch.maximum(ce * torch.tensor(2.0), torch.tensor(1.0, dtype=ce.dtype)),
    "powers": lambda ce: 2.0**-ce + (ce + 1) ** 1.5 + (ce + 1) ** -1 + (1 + ce).rsqrt(),
    "through float32": lambda ce: (ce.float() * 2).to(ce.dtype),
    "rsub": lambda ce: torch.rsub(torch.exp(-ce), 2, alpha=3),
    "lerp": lambda ce: torch.lerp(ce, ce * ce, 0.3),
    "own autograd": lambda ce: Cube.apply(ce),
    "identity": lambda ce: ce,
    "overflow": lambda ce: ce**ce,
}


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ce):
        ctx.save_for_backward(ce)
        return ce**3

    @staticmethod
    def backward(ctx, grad):
        return grad * 3 * ctx.saved_tensors[0] ** 2


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_as_pytorch_computes_it(name):
    g = COMPILED[name]
    compiled = traced(g)
    assert compiled.address, compiled.reason
    ce = torch.tensor([0.0, 1e-7, 0.013, 0.7, 0.99, 1.01, 2.5, 3.3, 17.0, 69.0], dtype=torch.float64).requires_grad_()
    value = g(ce)
    (slope,) = torch.autograd.grad(value.sum(), ce)
    got = call(compiled.compiled, ce.detach().numpy())
    expected = torch.stack([value, slope]).detach().float().numpy()
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)


TREES = st.recursive(
    st.sampled_from([lambda ce: ce, lambda ce: torch.exp(-ce), lambda ce: torch.full_like(ce, 0.7)]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda ab: lambda ce: ab[0](ce) * ab[1](ce)),
        st.tuples(inner, inner).map(lambda ab: lambda ce: ab[0](ce) - 0.3 * ab[1](ce)),
        st.tuples(inner, inner).map(lambda ab: lambda ce: torch.where(ce < 1.5, ab[0](ce), ab[1](ce))),
        inner.map(lambda a: lambda ce: torch.log1p(a(ce).abs())),
        inner.map(lambda a: lambda ce: torch.tanh(a(ce))),
        inner.map(lambda a: lambda ce: a(ce).clamp(-2, 2)),
    ),
    max_leaves=5,
)


@examples(12)
@given(tree=TREES)
def test_compositions_are_compiled(tree):
    def g(ce):
        return ce + tree(ce)

    compiled = traced(g)
    assert compiled.address, compiled.reason
    ce = torch.linspace(0.05, 9.0, 16, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(g(ce).sum(), ce)
    np.testing.assert_allclose(call(compiled.compiled, ce.detach())[1], slope.float(), rtol=1e-5, atol=1e-6)


LEFT_TO_BATCHED = {
    "a loop over examples": lambda ce: torch.stack([value * 2 for value in ce]),
    "an operation without a scalar form": lambda ce: torch.lgamma(ce + 1),
    "a decision by value": lambda ce: torch.cat([v * 2 if v.item() < 1 else v + 1 for v in ce.split(1)]),
    "a table": lambda ce: ce * torch.tensor([1.0, 0.5])[(ce > 1).long()].to(ce.dtype),
}


@pytest.mark.parametrize("name", LEFT_TO_BATCHED)
def test_what_cannot_be_compiled_is_trained_in_the_batched_engine(make_split, name, caplog):
    g = LEFT_TO_BATCHED[name]
    assert traced(g).address == 0
    member = Member(make_split(rows=20), Method("own", "own", g), 0.02, 0)
    (h,) = train_stack([member], Recipe(epochs=2))
    assert h.engine == "batched"
    assert "own trains in the batched engine" in caplog.text
    (plain,) = train_stack([member], Recipe(epochs=2), engine="plain")
    for curve in ("val_nll", "train_loss"):
        np.testing.assert_allclose(h.curves[curve], plain.curves[curve], rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="take 'auto'"):
        train_stack([member], Recipe(epochs=2), engine="kernel")


def test_a_wrong_translation_is_noticed(monkeypatch):
    monkeypatch.setitem(TEMPLATES, "expm1", "math.exp({0})")
    result = traced(lambda ce: -torch.expm1(-ce))
    assert result.address == 0
    assert "differs at ce = " in result.reason


@pytest.mark.parametrize(
    ("g", "message"),
    [
        (lambda ce: ce / ce.mean(), "must be elementwise"),
        (lambda ce: ce if ce.max() > 50 else 2 * ce, "must be elementwise"),
        (lambda ce: ce.sort().values, "must be elementwise"),
        (lambda ce: ce * torch.rand_like(ce), "must be elementwise"),
        (lambda ce: ce.mean(), r"expected shape \(\d+,\), got shape \(\)"),
        (lambda ce: 3.0, "got float"),
        (lambda ce: ce.detach() * 2, "no gradient"),
        (lambda ce: ce.nonsense(), "AttributeError"),
        (lambda logits, target: logits, "TypeError"),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "batched", "plain"])
def test_what_is_not_a_function_of_ce_is_refused(make_split, g, message, engine):
    with pytest.raises(UserError, match=message):
        train_stack([Member(make_split(), Method("own", "own", g), 0.01, 0)], Recipe(epochs=1), engine=engine)
    with pytest.raises(UserError, match=message):
        check(g)


def test_the_same_loss_is_compiled_once():
    g = method("focal").g
    assert traced(g) is traced(g)
    assert np.isfinite(compiled_values(traced(g).compiled)).all()
