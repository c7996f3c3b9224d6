"""Statistics of each row's softmax: what a loss may look at beside the row's cross entropy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from crossfade._tensors import class_dim, full_precision

_OF_P: dict[str, Callable[[Tensor, int], Tensor]] = {
    "entropy": lambda p, dim: torch.special.entr(p).sum(dim, keepdim=True),
    "collision": lambda p, dim: torch.linalg.vector_norm(p, dim=dim, keepdim=True).square(),
    "max_p": lambda p, dim: p.amax(dim, keepdim=True),
}
STATISTICS = (*_OF_P, "is_max")


class Row:
    """Statistics of the softmax p of each row, without gradient, each computed when it is first asked for.

    They have the shape of ce. Where g is applied to every class, for label smoothing and class probabilities, y is
    that class.

    Attributes:
        entropy: -sum_c p_c log p_c, in nats.
        collision: sum_c p_c^2, the probability that two draws agree: 1 for a certain row, 1/C for a uniform one.
        max_p: the largest p_c.
        is_max: whether p_y is the largest p_c.
    """

    entropy: Tensor
    collision: Tensor
    max_p: Tensor
    is_max: Tensor

    def __init__(self, softmax: Callable[[], Tensor], dim: int, index: Tensor | None, **known: Tensor) -> None:
        """Take the statistics that are known already, and a function that returns p for the others.

        Args:
            dim: the classes' dimension of p.
            index: y as an index into p, of size 1 in ``dim``; None if every class is y, and ce has the shape of p.
        """
        self._softmax, self._dim, self._index = softmax, dim, index
        for name, values in known.items():
            setattr(self, name, values)

    def __getattr__(self, name: str) -> Tensor:  # only for what isn't there yet; not cached_property, which locks
        if name == "_p":
            values = self._softmax()
        elif name == "is_max":
            own = self._p if self._index is None else self._p.gather(self._dim, self._index).squeeze(self._dim)
            values = own >= self.max_p
        elif name in _OF_P:
            values = _OF_P[name](self._p, self._dim)
            values = values.expand_as(self._p) if self._index is None else values.squeeze(self._dim)
        else:
            raise AttributeError(f"a row has {', '.join(STATISTICS)}, not {name!r}")
        setattr(self, name, values)
        return values


def row_of(logits: Tensor, target: Tensor | None = None, ignore_index: int = -100, **known: Tensor) -> Row:
    """Return the statistics of logits with class indices, or with every class as the target."""
    dim = class_dim(logits)
    index = None if target is None else target.masked_fill(target == ignore_index, 0).unsqueeze(dim)
    return Row(lambda: torch.softmax(full_precision(logits.detach()), dim), dim, index, **known)
