"""Statistics of each row's softmax: what a loss may look at beside the row's cross entropy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from crossfade._tensors import class_dim, full_precision


class Row:
    """Statistics of the softmax p of each row, without gradient, computed when they are first asked for.

    They have the shape of ce. Where g is applied to every class, for label smoothing and class probabilities, y is
    that class.
    """

    def __init__(self, softmax: Callable[[], Tensor], dim: int, index: Tensor | None, **known: Tensor) -> None:
        """Take statistics that are known already, and a function that returns p for the others.

        Args:
            dim: the classes' dimension of p.
            index: y as an index into p, of size 1 in ``dim``; None if every class is y, and ce has the shape of p.
        """
        self._softmax, self._dim, self._index = softmax, dim, index
        vars(self).update(known)  # where cached_property looks first

    @cached_property
    def entropy(self) -> Tensor:
        """Return -sum_c p_c log p_c, in nats."""
        return self._of_row(torch.special.entr(self._p).sum(self._dim, keepdim=True))

    @cached_property
    def collision(self) -> Tensor:
        """Return sum_c p_c^2, the probability that two draws agree: 1 for a certain row, 1/C for a uniform one."""
        return self._of_row(torch.linalg.vector_norm(self._p, dim=self._dim, keepdim=True).square())

    @cached_property
    def max_p(self) -> Tensor:
        """Return the largest p_c."""
        return self._of_row(self._p.amax(self._dim, keepdim=True))

    @cached_property
    def is_max(self) -> Tensor:
        """Return whether p_y is the largest p_c."""
        own = self._p if self._index is None else self._p.gather(self._dim, self._index).squeeze(self._dim)
        return own >= self.max_p

    @cached_property
    def _p(self) -> Tensor:
        return self._softmax()

    def _of_row(self, values: Tensor) -> Tensor:
        return values.expand_as(self._p) if self._index is None else values.squeeze(self._dim)


STATISTICS = ("entropy", "collision", "max_p", "is_max")


def row_of(logits: Tensor, target: Tensor | None = None, ignore_index: int = -100, **known: Tensor) -> Row:
    """Return the statistics of logits with class indices, or with every class as the target."""
    dim = class_dim(logits)
    index = None if target is None else target.masked_fill(target == ignore_index, 0).unsqueeze(dim)
    return Row(lambda: torch.softmax(full_precision(logits.detach()), dim), dim, index, **known)


def known(statistics: dict[str, Tensor]) -> Row:
    """Return statistics that have been computed elsewhere, all of them."""
    return Row(lambda: torch.empty(0), 0, None, **statistics)
