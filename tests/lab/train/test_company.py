"""A member's result is its own: the same bits whatever else is in the stack."""

import hashlib
import importlib
import sys

import numpy as np
import pytest
import torch

from crossfade.lab.methods import Method, method
from crossfade.lab.train import Member, Recipe, tables, train_stack
from crossfade.lab.train.tables import kernel, threads
from crossfade.schedules import constant, staircase, switch


def apart(ce):  # has no compiled form
    return torch.stack([value.square() for value in ce])


def same(a, b):
    assert list(a.curves) == list(b.curves)
    for name in a.curves:
        np.testing.assert_array_equal(a.curves[name], b.curves[name], err_msg=name)
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    assert (a.chosen, a.finite) == (b.chosen, b.finite)
    assert list(a.weights) == list(b.weights)
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name], err_msg=name)


@pytest.fixture(scope="module")
def crowd(make_split):
    """Splits of three shapes, two of them alike; schedules, a compiled loss, one that can't be compiled."""
    splits = [make_split(), make_split(seed=5), make_split(9, 2, rows=61), make_split(17, 5, rows=33, val=80, test=90)]
    methods = [method("ce"), method("gradual"), method("focal"), Method("apart", "apart", apart)]
    return [
        Member(split, chosen, rate, seed)
        for split in splits for chosen in methods for rate, seed in ((0.05, 1), (0.01, 1), (0.05, 2))
    ]  # fmt: skip


@pytest.mark.parametrize("engine", ["auto", "batched"])
@pytest.mark.parametrize("recipe", [Recipe(net="linear", epochs=2), Recipe(epochs=2, depth=2, batch_size=11)])
def test_alone_reordered_or_on_other_threads(crowd, engine, recipe):
    together = train_stack(crowd, recipe, engine=engine)
    order = np.random.default_rng(0).permutation(len(crowd))
    reordered = train_stack([crowd[i] for i in order], recipe, engine=engine, threads=1)
    for place, i in enumerate(order):
        same(reordered[place], together[i])
    for i in (0, 8, 11, 23, 36, 47):
        same(train_stack([crowd[i]], recipe, engine=engine, threads=3)[0], together[i])


def test_methods_share_their_start(make_split):
    """Initial weights and order come from the seed, not from the method: at alpha = 1, beta = 0 all are CE."""
    recipe = Recipe(epochs=1)
    same_loss = Method("one", "one", schedule=lambda progress: (1.0, 0.0))
    a, b = train_stack([Member(make_split(), m, 0.01, 4) for m in (method("ce"), same_loss)], recipe)
    same(a, b)
    (c,) = train_stack([Member(make_split(), method("ce"), 0.01, 5)], recipe)
    assert not np.array_equal(a.weights["0.weight"], c.weights["0.weight"])


def parting(*points):
    """Schedules that begin alike and part at these progresses; one never parts from the first, two diverge together."""
    chosen = [Method("first", "", schedule=constant(0.0)), Method("same", "", schedule=constant(0.0))]
    chosen += [Method(f"at {point}", "", schedule=switch(0.0, 0.5, at=point)) for point in points]
    for point in points:
        wild = staircase([0.0, 0.0, 0.3])
        chosen.append(
            Method(f"wild {point}", "", schedule=lambda t, w=wild, p=point: (1e38, 0.0) if p > t > 0.4 else tuple(w(t)))
        )
    return chosen


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=9),
        Recipe(net="linear", epochs=4, granularity="step", tie="loss"),
        Recipe(epochs=9, tie="expected", metric="f1", lr_schedule="cosine"),
        Recipe(epochs=9, select="last"),
    ],
)
def test_what_begins_alike_is_trained_once_and_is_what_it_is_alone(make_split, monkeypatch, recipe):
    spans = []

    class Counting:
        compile = kernel.compiled().compile

        def __call__(self, *arguments):
            spans.append(arguments[1:3])
            return kernel.compiled()(*arguments)

    monkeypatch.setattr(threads, "compiled", Counting)
    splits = [make_split(), make_split(9, 2, rows=61)]
    chosen = parting(0.5, 0.8, 0.95)
    members = [Member(split, m, rate, 3) for split in splits for m in chosen for rate in (0.05, 0.01)]
    order = np.random.default_rng(1).permutation(len(members))
    together = dict(zip(order, train_stack([members[i] for i in order], recipe, threads=2), strict=True))
    trained = sum(end - begin for begin, end in spans)
    assert trained < 0.7 * recipe.epochs * len(members)
    assert sum(not together[i].finite for i in order) == 3 * 2 * len(splits)
    for i, member in enumerate(members):
        spans.clear()
        same(train_stack([member], recipe)[0], together[i])
        assert spans == [(0, recipe.epochs)]


def test_other_rows_seeds_rates_and_losses_share_nothing(make_split):
    split, f0, late = make_split(), method("f0"), method("f0-late")
    cases = [(split, f0, 0.05, 1), (make_split(), late, 0.05, 1), (split, late, 0.01, 1), (split, late, 0.05, 2)]
    cases += [(split, method("focal"), 0.05, 1), (split, method("poly"), 0.05, 1)]
    members = [Member(*case) for case in cases]
    for member, history in zip(members, train_stack(members, Recipe(epochs=4)), strict=True):
        same(train_stack([member], Recipe(epochs=4))[0], history)


def test_progress_rises_to_one(crowd):
    seen = []
    train_stack(crowd, Recipe(epochs=2), on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    assert all(0.0 <= value <= 1.0 for value in seen)


def test_no_members():
    assert train_stack([], Recipe()) == []


def digest(make_split):
    members = [
        Member(make_split(features, classes), method(name), 0.05, 1)
        for features, classes in ((4, 3), (20, 2), (33, 17))
        for name in ("gradual", "tgce")
    ]
    bits = hashlib.sha256()
    for recipe in (Recipe(net="linear", epochs=3), Recipe(epochs=3, weight_decay=0.01), Recipe(epochs=3, depth=2)):
        for h in train_stack(members, recipe, engine="kernel"):
            for array in (h.curves["train_loss"], h.curves["val_nll"], h.probabilities, *h.weights.values()):
                bits.update(np.ascontiguousarray(array).tobytes())
    return bits.hexdigest()


def test_the_same_bits_with_narrower_vectors(make_split, monkeypatch):
    """A processor without AVX-512 takes vectors of eight: other code, the same sums in the same order."""
    wide, package = digest(make_split), "crossfade.lab.train.tables"
    for name in ("simd", "panels", "kernel", "threads"):
        monkeypatch.setattr(tables, name, getattr(tables, name))  # restored with the modules
        monkeypatch.delitem(sys.modules, f"{package}.{name}")
    importlib.import_module(f"{package}.simd").WIDE = 8
    assert digest(make_split) == wide
    assert tables.panels.WIDE == 8
