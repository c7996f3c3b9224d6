"""Gradients and Hessian-vector products over a data set, for any module and per-example loss.

Everything here is a vector over the model's trainable parameters, in ``named_parameters()`` order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Data", "PerExample", "Problem"]

Batch: TypeAlias = tuple[Any, Tensor]
Data: TypeAlias = Iterable[Batch]
PerExample: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Problem:
    """A model at its present weights, with data and per-example losses: the empirical risks L_k = (1/N) sum_i l_k(i).

    Args:
        model: any module; called as model(inputs), model(*inputs) for a tuple or list, model(**inputs) for a mapping.
            Its output is the logits, or has them as ``.logits``. Parameters with requires_grad take part.
        data: (inputs, target) batches, the same every time they are iterated: a list, or a loader that doesn't shuffle.
        losses: maps (logits, target) to K tensors (N,) of per-example losses, computed together.

    With a single batch the graph is built once and serves every gradient and product; with several it is built anew for
    each, so that one batch at a time is in memory.
    """

    def __init__(self, model: nn.Module, data: Data, losses: Callable[[Tensor, Tensor], Sequence[Tensor]]) -> None:
        if iter(data) is data:
            raise ValueError("data must be iterable many times: pass a list of batches or a DataLoader, no iterator")
        self.model, self.data, self.losses = model, data, losses
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("the model has no parameter with requires_grad=True, so there is no gradient to measure")
        self.sizes = [len(target) for _, target in data]
        if not self.sizes:
            raise ValueError("data is empty: expected batches of (inputs, target)")
        self.examples = sum(self.sizes)
        if not self.examples:
            raise ValueError("data holds no example: every batch of (inputs, target) is empty")
        self.dimension = sum(p.numel() for p in self.parameters)
        first = self.parameters[0]
        self.device, self.dtype = first.device, first.dtype
        self._kept: list[Tensor] | None = None
        self._kept_gradients: dict[int, tuple[Tensor, ...]] = {}

    def per_example(self) -> Iterator[list[Tensor]]:
        """For each batch the K vectors of per-example losses, with their graph."""
        if self._kept is not None:
            yield self._kept
            return
        for inputs, target in self.data:
            with torch.enable_grad():
                values = self._losses(inputs, target)
            if len(self.sizes) == 1:
                self._kept = values
            yield values

    @torch.no_grad()
    def values(self) -> list[Tensor]:
        """The K vectors of per-example losses (N,) at the weights of this moment, without a graph."""
        batches = [self._losses(inputs, target) for inputs, target in self.data]
        return [torch.cat(pieces) for pieces in zip(*batches, strict=True)]

    def _losses(self, inputs: Any, target: Tensor) -> list[Tensor]:
        inputs, target = to_device(inputs, self.device), target.to(self.device)
        values = list(self.losses(logits_of(self.model, inputs), target))
        for value in values:
            if value.shape != target.shape[:1]:
                raise ValueError(
                    f"the loss must give one number an example, {tuple(target.shape[:1])}, got {tuple(value.shape)}; "
                    'did you mean reduction="none"?'
                )
        return values

    def flat(self, gradients: Sequence[Tensor]) -> Tensor:
        return torch.cat([g.detach().reshape(-1) for g in gradients])

    def split(self, vector: Tensor) -> list[Tensor]:
        pieces = torch.split(vector, [p.numel() for p in self.parameters])
        return [piece.view_as(p) for piece, p in zip(pieces, self.parameters, strict=True)]

    def _grad(self, output: Tensor, *, keep: bool) -> tuple[Tensor, ...]:
        if not output.requires_grad:
            return tuple(torch.zeros_like(p) for p in self.parameters)
        return torch.autograd.grad(output, self.parameters, retain_graph=keep, materialize_grads=True)

    def gradients(self, weights: Tensor) -> Tensor:
        """(K, D): for every loss, sum_i weights_i grad l_k(i). ``weights`` is (N,) in the data's order."""
        return self.reweighted([weights])[0]

    def reweighted(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """:meth:`gradients` for several weights, which share the graph of each batch."""
        totals: list[Tensor] = []
        pieces = zip(*(torch.split(one.to(self.device), self.sizes) for one in weights), strict=True)
        for parts, losses in zip(pieces, self.per_example(), strict=True):
            last = (len(parts) - 1, len(losses) - 1)
            for n, part in enumerate(parts):
                rows = torch.stack(
                    [
                        self.flat(self._grad(part.to(loss.dtype) @ loss, keep=(n, k) < last or self._kept is not None))
                        for k, loss in enumerate(losses)
                    ]
                )
                if len(totals) <= n:
                    totals.append(rows)
                else:
                    totals[n].add_(rows)
        return totals

    def hessian_products(self, vectors: Sequence[Tensor]) -> Tensor:
        """(K, V, D): H_k v for every loss k and vector v, H_k the Hessian of L_k."""
        total: Tensor | None = None
        for losses in self.per_example():
            products = torch.stack([self._products(k, loss, vectors) for k, loss in enumerate(losses)])
            total = products if total is None else total.add_(products)
        assert total is not None
        return total / self.examples

    def _products(self, k: int, loss: Tensor, vectors: Sequence[Tensor]) -> Tensor:
        slopes = self._kept_gradients.get(k)
        if slopes is None:
            if not loss.requires_grad:
                return torch.zeros(len(vectors), self.dimension, dtype=self.dtype, device=self.device)
            slopes = torch.autograd.grad(loss.sum(), self.parameters, create_graph=True, materialize_grads=True)
            if self._kept is not None:
                self._kept_gradients[k] = slopes
        rows = []
        for vector in vectors:
            pairs = [(s, v) for s, v in zip(slopes, self.split(vector), strict=True) if s.requires_grad]
            if not pairs:  # the loss is linear in every parameter
                rows.append(torch.zeros_like(vector))
                continue
            product = torch.autograd.grad(
                [s for s, _ in pairs], self.parameters, [v for _, v in pairs], retain_graph=True, materialize_grads=True
            )
            rows.append(self.flat(product))
        return torch.stack(rows)

    def directional(self, k: int, vector: Tensor) -> Tensor:
        """(N,): the derivative of every example's loss l_k along ``vector``, by two backward passes."""
        derivatives = []
        for losses in self.per_example():
            loss = losses[k]
            probe = torch.zeros_like(loss, requires_grad=True)
            slopes = torch.autograd.grad(loss, self.parameters, probe, create_graph=True, materialize_grads=True)
            along = torch.stack([(s * v).sum() for s, v in zip(slopes, self.split(vector), strict=True)]).sum()
            (derivative,) = torch.autograd.grad(along, probe, retain_graph=True)
            derivatives.append(derivative)
        return torch.cat(derivatives)


def logits_of(model: Callable[..., Any], inputs: Any) -> Tensor:
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    elif isinstance(inputs, (tuple, list)):
        output = model(*inputs)
    else:
        output = model(inputs)
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TypeError(f"the model must return logits or an object with .logits, got {type(output).__name__}")
    return logits


def to_device(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: to_device(value, device) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return [to_device(value, device) for value in inputs]
    return inputs


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the modules' own modes again afterwards.

    In training mode batch norm makes l_i depend on the other examples of the batch, and dropout makes it random: the
    covariance of eq. (16) is then not defined.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
