"""The table of losses that the tests of the core go through."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf

Loss = Callable[..., Tensor]


def cubed(ce: Tensor) -> Tensor:
    """A user's own g: (1 - p)^3."""
    return (-torch.expm1(-ce)) ** 3


CASES: dict[str, Loss] = {
    "ce": partial(cf.crossfade_loss, alpha=1.0, beta=0.0),
    "f0": cf.crossfade_loss,
    "f0.3": partial(cf.crossfade_loss, alpha=1.0, beta=2.5),
    "unit": partial(cf.crossfade_loss, alpha=0.4, beta=1.0),
    "tensors": partial(cf.crossfade_loss, alpha=torch.tensor(1.0), beta=torch.tensor(2.5)),
    "tensors-el": partial(cf.crossfade_loss, alpha=torch.tensor(0.0), beta=torch.tensor(1.0)),
    "el": cf.expectation_loss,
    "focal": cf.focal_loss,
    "focal-0.5": partial(cf.focal_loss, gamma=0.5, alpha=1.0),
    "focal-0": partial(cf.focal_loss, gamma=0.0, alpha=1.0),
    "mae": cf.mae_loss,
    "gce": cf.generalized_cross_entropy,
    "truncated": partial(cf.truncated_cross_entropy, q=0.7, k=0.1),
    "tamed": cf.tamed_cross_entropy,
    "tamed-1.5": partial(cf.tamed_cross_entropy, alpha=1.5),
    "poly": cf.poly_loss,
    "own": partial(cf.probability_loss, cubed),
    "complement": cf.complement_entropy,
    "mpce": cf.mpce_loss,
}

# float64 formulas in p, written without the library: the value of each loss at a class index.
FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": lambda p, y: -p.log(),
    "f0": lambda p, y: -p.log() + 1 - p,
    "f0.3": lambda p, y: -p.log() + 2.5 * (1 - p),
    "unit": lambda p, y: -0.4 * p.log() + 1 - p,
    "tensors": lambda p, y: -p.log() + 2.5 * (1 - p),
    "tensors-el": lambda p, y: 1 - p,
    "el": lambda p, y: 1 - p,
    "focal": lambda p, y: -0.25 * (1 - p) ** 2 * p.log(),
    "focal-0.5": lambda p, y: -((1 - p) ** 0.5) * p.log(),
    "focal-0": lambda p, y: -p.log(),
    "mae": lambda p, y: 2 * (1 - p),
    "gce": lambda p, y: (1 - p**0.7) / 0.7,
    "truncated": lambda p, y: (1 - p.clamp(min=0.1) ** 0.7) / 0.7,
    "tamed": lambda p, y: ((1 - p.log()) ** 0.5 - 1 / 0.5) / 0.5,
    "tamed-1.5": lambda p, y: ((1 - p.log()) ** -0.5 - 1 / -0.5) / -0.5,
    "poly": lambda p, y: -p.log() + 1 - p,
    "own": lambda p, y: (1 - p) ** 3,
}


def p_of(logits: Tensor, target: Tensor) -> Tensor:
    return F.softmax(logits, 1).gather(1, target.unsqueeze(1)).squeeze(1)
