"""A member's result is its own: the same bits whatever else is in the stack."""

import hashlib
import subprocess
import sys

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


NARROW = """
import sys
import crossfade.lab.train.tables.simd as simd
simd.WIDE = 8
from tests.lab.train.conftest import draw
from tests.lab.train.test_company import digest
print(digest(draw))
"""


def digest(make_split):
    members = [
        Member(make_split(features, classes), method(name), 0.05, 1)
        for features, classes in ((4, 3), (20, 2), (33, 17))
        for name in ("gradual", "tgce")
    ]
    bits = hashlib.sha256()
    for recipe in (Recipe(net="linear", epochs=3), Recipe(epochs=3, weight_decay=0.01), Recipe(epochs=3, depth=2)):
        for h in train_stack(members, recipe, engine="kernel"):
            for array in (h.train_loss, h.val_nll, h.test_probabilities, *h.weights):
                bits.update(np.ascontiguousarray(array).tobytes())
    return bits.hexdigest()


def test_the_same_bits_with_narrower_vectors(make_split, request):
    """A processor without AVX-512 takes vectors of eight: other code, the same sums in the same order."""
    command, root = [sys.executable, "-c", NARROW], request.config.rootpath
    narrow = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.strip()
    assert narrow == digest(make_split)
