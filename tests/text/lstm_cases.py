"""Texts made of random words, and what an LSTM learns of them in the plain loop."""

import numpy as np
import torch

from crossfade.lab.train.lstm.plain import train_plain
from crossfade.lab.train.lstm.types import TokenPart, TokenSplit

CURVES = ("train_loss", "val_accuracy", "val_nll", "test_accuracy", "test_nll")


def draw_part(generator, examples, vocabulary, classes, longest):
    lengths = generator.integers(1, longest + 1, examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = generator.integers(0, vocabulary, offsets[-1])
    first, last = (tokens[offsets[:-1]], tokens[offsets[1:] - 1]) if examples else (tokens, tokens)
    return TokenPart(tokens, offsets, (first + last) % classes)


def draw(seed=0, train=90, val=30, test=25, vocabulary=20, classes=3, longest=9):
    generator = np.random.default_rng(seed)
    parts = [draw_part(generator, count, vocabulary, classes, longest) for count in (train, val, test)]
    return TokenSplit(*parts, vocabulary + 5, classes)  # the last five words are never seen


def same(a, b):
    for name in (*CURVES, "test_probabilities"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.best_epoch == b.best_epoch
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name], err_msg=name)


def reference(member, recipe):
    return train_plain(member, recipe, "cpu", lambda epochs: None, torch.float64)
