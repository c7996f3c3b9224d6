"""A member's result is its own: the same bits whatever else is in the stack."""

import numpy as np
import pytest
import torch

from crossfade.lab.methods import Method, method
from crossfade.lab.train import Member, Recipe, train_stack


def apart(ce):  # has no compiled form
    return torch.stack([value.square() for value in ce])


def same(a, b):
    for name in ("train_loss", "val_correct", "val_nll", "test_correct", "test_nll", "test_probabilities"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.best_epoch == b.best_epoch
    for left, right in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(left, right)


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
@pytest.mark.parametrize("recipe", [Recipe(net="linear", epochs=3), Recipe(epochs=3, depth=2, batch_size=11)])
def test_alone_reordered_or_on_other_threads(crowd, engine, recipe):
    together = train_stack(crowd, recipe, engine=engine)
    order = np.random.default_rng(0).permutation(len(crowd))
    reordered = train_stack([crowd[i] for i in order], recipe, engine=engine, threads=1)
    for place, i in enumerate(order):
        same(reordered[place], together[i])
    for i in (0, 4, 8, 11, 23, 36, 41, 47):
        same(train_stack([crowd[i]], recipe, engine=engine, threads=3)[0], together[i])


def test_methods_share_their_start(make_split):
    """Initial weights and order come from the seed, not from the method: at alpha = 1, beta = 0 all are CE."""
    recipe = Recipe(epochs=1)
    same_loss = Method("one", "one", schedule=lambda progress: (1.0, 0.0))
    a, b = train_stack([Member(make_split(), m, 0.01, 4) for m in (method("ce"), same_loss)], recipe)
    same(a, b)
    (c,) = train_stack([Member(make_split(), method("ce"), 0.01, 5)], recipe)
    assert not np.array_equal(a.weights[0], c.weights[0])


def test_progress_rises_to_one(crowd):
    seen = []
    train_stack(crowd, Recipe(epochs=2), on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    assert all(0.0 <= value <= 1.0 for value in seen)


def test_no_members():
    assert train_stack([], Recipe()) == []
