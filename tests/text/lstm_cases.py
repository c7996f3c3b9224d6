"""Texts made of random words, and what an LSTM learns of them in the plain loop."""

import numpy as np
import torch

from crossfade.lab.train.lstm.plain import train_plain
from crossfade.lab.train.lstm.tokens import TokenPart, TokenSplit

CURVES = ("train_loss", "val_accuracy", "val_nll", "test_accuracy", "test_nll")


def draw_part(generator, examples, vocabulary, classes, longest):
    lengths = generator.integers(1, longest + 1, examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = generator.integers(0, vocabulary, offsets[-1])
    first, last = (tokens[offsets[:-1]], tokens[offsets[1:] - 1]) if examples else (tokens, tokens)
    return TokenPart(tokens.astype(np.int32), offsets, (first + last) % classes)


def draw(seed=0, train=90, val=30, test=25, vocabulary=20, classes=3, longest=9):
    generator = np.random.default_rng(seed)
    parts = [draw_part(generator, count, vocabulary, classes, longest) for count in (train, val, test)]
    return TokenSplit(*parts, vocabulary + 5, classes)  # the last five words are never seen


def same(a, b):
    for name in CURVES:
        np.testing.assert_array_equal(a.curves[name], b.curves[name], err_msg=name)
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    assert (a.chosen, a.finite, a.scores) == (b.chosen, b.finite, b.scores)
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name], err_msg=name)


def close(ours, theirs, atol=1e-5):
    for key, weight in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[key], weight, rtol=1e-5, atol=atol, err_msg=key)
    for name in CURVES:
        np.testing.assert_allclose(ours.curves[name], theirs.curves[name], rtol=1e-5, atol=atol, err_msg=name)
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=atol)
    assert ours.chosen == theirs.chosen


def reference(member, recipe):
    return train_plain([member], recipe, dtype=torch.float64)[0]
