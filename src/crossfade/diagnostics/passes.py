"""Gradients and Hessian-vector products over a data set, for any module and per-example loss.

N is the number of examples, D that of the trainable parameters, in ``named_parameters()`` order, K that of the losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

Batch: TypeAlias = tuple[object, Tensor]  # inputs, target
Data: TypeAlias = Iterable[Batch]
PerExample: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_Graph: TypeAlias = tuple[list[Tensor], dict[int, Tensor]]  # K losses of a batch; their gradients so far, by k


class Problem:
    """A model at its present weights with data and K criteria: the empirical risks L_k = (1/N) sum_i l_k(i).

    Args:
        model: any module; called as model(inputs), model(*inputs) for a tuple or list, model(**inputs) for a mapping.
            Its output is the logits, or has them as ``.logits``. Parameters with requires_grad take part.
        data: (inputs, target) batches, the same every time they are iterated: a list, or a loader that doesn't shuffle.
        criteria: each maps (logits, target) to the losses of the examples (N,).

    With a single batch the graph is built once for all gradients and products. With several it is built for each one,
    so that only one batch at a time is in memory.

    Raises:
        ValueError: an iterator instead of re-iterable data, batches that aren't pairs, no data, or no trainable
            parameter.
    """

    def __init__(self, model: nn.Module, data: Data, *criteria: PerExample) -> None:
        if iter(data) is data:
            raise ValueError("data must be iterable many times: pass a list of batches or a DataLoader, no iterator")
        self.model, self.data, self.criteria = model, data, criteria
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("the model has no parameter with requires_grad=True, so there is no gradient to measure")
        self.sizes = []
        for batch in data:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise ValueError(f"data must hold pairs (inputs, target), got a {type(batch).__name__} of {len(batch)}")
            self.sizes.append(len(batch[1]))
        self.examples = sum(self.sizes)
        if not self.examples:
            raise ValueError("data is empty (there is no example): expected batches of (inputs, target)")
        first, *_ = self.parameters.values()
        self.device, self.dtype = first.device, first.dtype
        self.weights = torch.cat([p.detach().flatten().to(first) for p in self.parameters.values()]).requires_grad_()
        self.dimension = len(self.weights)
        self._only: _Graph | None = None  # the graph of a single batch

    def logits(self, inputs: object, weights: Tensor) -> Tensor:
        """Return the model's logits for a batch's inputs, with ``weights`` (D,) in place of its own.

        Raises:
            TypeError: the model returns neither logits nor an object that has them as ``.logits``.
        """
        pieces = torch.split(weights, [p.numel() for p in self.parameters.values()])
        # A copy has the same memory layout as the model's parameter, and so gives the same bits.
        own = {
            name: piece.view_as(p).to(p, copy=True)
            for (name, p), piece in zip(self.parameters.items(), pieces, strict=True)
        }
        inputs = _to_device(inputs, self.device)
        kwargs = inputs if isinstance(inputs, dict) else {}
        args = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
        output = torch.func.functional_call(self.model, own, args, kwargs)
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor):
            raise TypeError(f"the model must return logits or an object with .logits, got {type(output).__name__}")
        return logits

    def losses(self, batch: Batch, weights: Tensor) -> list[Tensor]:
        """Return the K vectors of a batch's losses at ``weights`` (D,).

        Raises:
            ValueError: a criterion doesn't return one number an example.
        """
        inputs, target = batch
        logits, target = self.logits(inputs, weights), target.to(self.device)
        values = [criterion(logits, target) for criterion in self.criteria]
        for value in values:
            if value.shape != target.shape[:1]:
                raise ValueError(
                    f"the loss must give one number an example, {tuple(target.shape[:1])}, got {tuple(value.shape)}; "
                    'did you mean reduction="none"?'
                )
        return values

    @torch.no_grad()
    def values(self, weights: Tensor) -> list[Tensor]:
        """Return the K vectors of all examples' losses (N,) at ``weights`` (D,), without a graph."""
        return [torch.cat(parts) for parts in zip(*(self.losses(batch, weights) for batch in self.data), strict=True)]

    def mean_gradients(self) -> Tensor:
        """Return (K, D): the gradient of every L_k."""
        return self.reweighted([torch.full((self.examples,), 1.0 / self.examples, dtype=self.dtype)])[0]

    def reweighted(self, factors: Sequence[Tensor]) -> Tensor:
        """Return (V, K, D): for each of V factors (N,) and every loss sum_i factors_i grad l_k(i).

        The factors are in the data's order, and share the graph of each batch.
        """
        total = self._zeros(len(factors), len(self.criteria))
        pieces = zip(*(torch.split(one.to(self.device), self.sizes) for one in factors), strict=True)
        for (losses, _), parts in zip(self._graphs(), pieces, strict=True):
            for n, part in enumerate(parts):
                for k, loss in enumerate(losses):
                    total[n, k] += self._gradient(part.to(loss.dtype) @ loss)
        return total

    def hessian_products(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return (K, V, D): H_k v for every loss k and each of V vectors (D,), where H_k is the Hessian of L_k."""
        total = self._zeros(len(self.criteria), len(vectors))
        for losses, slopes in self._graphs():
            for k, loss in enumerate(losses):
                if k not in slopes:
                    slopes[k] = self._gradient(loss.sum(), create_graph=True)
                for n, vector in enumerate(vectors):
                    total[k, n] += self._gradient(slopes[k], vector)
        return total / self.examples

    def directional(self, k: int, vector: Tensor) -> Tensor:
        """Return (N,): the derivative of every example's loss l_k along ``vector`` (D,), by two backward passes."""
        derivatives = []
        for losses, _ in self._graphs():
            probe = torch.zeros_like(losses[k], requires_grad=True)
            slope = self._gradient(losses[k], probe, create_graph=True)
            (derivative,) = torch.autograd.grad(slope, probe, vector, retain_graph=True)
            derivatives.append(derivative)
        return torch.cat(derivatives)

    def check_direction(self, direction: Tensor) -> None:
        """Raise ValueError unless ``direction`` has D elements."""
        if direction.shape != (self.dimension,):
            raise ValueError(f"direction must have shape ({self.dimension},), got {tuple(direction.shape)}")

    def _graphs(self) -> Iterator[_Graph]:
        """Yield each batch's K vectors of losses with their graph, and a place for the gradients of their sums."""
        if self._only is not None:
            yield self._only
            return
        for batch in self.data:
            graph: _Graph = self.losses(batch, self.weights), {}
            if len(self.sizes) == 1:
                self._only = graph
            yield graph

    def _gradient(self, outputs: Tensor, factors: Tensor | None = None, *, create_graph: bool = False) -> Tensor:
        if not outputs.requires_grad:  # such as the gradient of a linear loss
            return torch.zeros_like(self.weights)
        return torch.autograd.grad(
            outputs, self.weights, factors, retain_graph=True, create_graph=create_graph, materialize_grads=True
        )[0]

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, self.dimension, dtype=self.dtype, device=self.device)


def _to_device(inputs: object, device: torch.device) -> object:
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: _to_device(value, device) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(_to_device(value, device) for value in inputs)
    return inputs


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch the model to evaluation mode with gradients, and restore the modules' modes afterwards.

    In training mode batch norm makes l_i depend on the other examples of the batch, and dropout makes it random: the
    covariance of eq. (16) is then not defined.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
