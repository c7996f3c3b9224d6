"""Gradients and Hessian-vector products over a data set, for any module and per-example loss.

N is the number of examples, D that of the trainable parameters, in ``named_parameters()`` order, K that of the losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Data", "PerExample", "Problem", "evaluating"]

Batch: TypeAlias = tuple[object, Tensor]  # inputs, target
Data: TypeAlias = Iterable[Batch]
PerExample: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Problem:
    """A model at its present weights with data and K criteria: the empirical risks L_k = (1/N) sum_i l_k(i).

    Args:
        model: any module; called as model(inputs), model(*inputs) for a tuple or list, model(**inputs) for a mapping.
            Its output is the logits, or has them as ``.logits``. Parameters with requires_grad take part.
        data: (inputs, target) batches, the same every time they are iterated: a list, or a loader that doesn't shuffle.
        criteria: each maps (logits, target) to the losses of the examples (N,).

    With a single batch the graph is built once and serves every gradient and product; with several it is built anew for
    each, so that one batch at a time is in memory.

    Raises:
        ValueError: an iterator instead of re-iterable data, no data, or no trainable parameter.
    """

    def __init__(self, model: nn.Module, data: Data, *criteria: PerExample) -> None:
        if iter(data) is data:
            raise ValueError("data must be iterable many times: pass a list of batches or a DataLoader, no iterator")
        self.model, self.data, self.criteria = model, data, criteria
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        if not self.parameters:
            raise ValueError("the model has no parameter with requires_grad=True, so there is no gradient to measure")
        self.sizes = [len(target) for _, target in data]
        if not self.sizes:
            raise ValueError("data is empty: expected batches of (inputs, target)")
        self.examples = sum(self.sizes)
        if not self.examples:
            raise ValueError("data holds no example: every batch of (inputs, target) is empty")
        self.dimension = sum(p.numel() for p in self.parameters)
        self.device, self.dtype = self.parameters[0].device, self.parameters[0].dtype
        self._kept: list[Tensor] | None = None
        self._kept_slopes: dict[int, tuple[Tensor, ...]] = {}

    def logits(self, inputs: object, move: Tensor | None = None) -> Tensor:
        """Return the model's logits for a batch's inputs, at its own weights or at those moved by ``move`` (D,).

        Raises:
            TypeError: the model returns neither logits nor an object that has them as ``.logits``.
        """
        inputs = _to_device(inputs, self.device)
        kwargs = inputs if isinstance(inputs, dict) else {}
        args = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
        if move is None:
            output = self.model(*args, **kwargs)
        else:
            pieces = zip(self.named.items(), self._split(move), strict=True)
            moved = {name: p.detach() + piece.to(p) for (name, p), piece in pieces}
            output = torch.func.functional_call(self.model, moved, args, kwargs)
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor):
            raise TypeError(f"the model must return logits or an object with .logits, got {type(output).__name__}")
        return logits

    def losses(self, batch: Batch, move: Tensor | None = None) -> list[Tensor]:
        """Return the K vectors of a batch's losses, at the model's weights or at those moved by ``move`` (D,).

        Raises:
            ValueError: a criterion doesn't return one number an example.
        """
        inputs, target = batch
        logits, target = self.logits(inputs, move), target.to(self.device)
        values = [criterion(logits, target) for criterion in self.criteria]
        for value in values:
            if value.shape != target.shape[:1]:
                raise ValueError(
                    f"the loss must give one number an example, {tuple(target.shape[:1])}, got {tuple(value.shape)}; "
                    'did you mean reduction="none"?'
                )
        return values

    @torch.no_grad()
    def values(self, move: Tensor | None = None) -> list[Tensor]:
        """Return the K vectors of all examples' losses (N,), at the weights or at those moved by ``move`` (D,)."""
        return [torch.cat(pieces) for pieces in zip(*(self.losses(batch, move) for batch in self.data), strict=True)]

    def mean_gradients(self) -> Tensor:
        """Return (K, D): the gradient of every L_k."""
        return self.reweighted([torch.full((self.examples,), 1.0 / self.examples, dtype=self.dtype)])[0]

    def reweighted(self, weights: Sequence[Tensor]) -> Tensor:
        """Return (V, K, D): for each of V weights (N,) and every loss sum_i weights_i grad l_k(i).

        The weights are in the data's order, and share the graph of each batch.
        """
        total = self._zeros(len(weights), len(self.criteria))
        pieces = zip(*(torch.split(one.to(self.device), self.sizes) for one in weights), strict=True)
        for losses, parts in zip(self._graphs(), pieces, strict=True):
            for n, part in enumerate(parts):
                for k, loss in enumerate(losses):
                    if loss.requires_grad:
                        total[n, k] += _flat(self._grad(part.to(loss.dtype) @ loss))
        return total

    def hessian_products(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return (K, V, D): H_k v for every loss k and each of V vectors (D,), where H_k is the Hessian of L_k."""
        total = self._zeros(len(self.criteria), len(vectors))
        for losses in self._graphs():
            for k, loss in enumerate(losses):
                slopes = self._slopes(k, loss)
                for n, vector in enumerate(vectors):
                    pairs = [(s, v) for s, v in zip(slopes, self._split(vector), strict=True) if s.requires_grad]
                    if pairs:  # otherwise the loss is linear in every parameter
                        total[k, n] += _flat(self._grad([s for s, _ in pairs], [v for _, v in pairs]))
        return total / self.examples

    def directional(self, k: int, vector: Tensor) -> Tensor:
        """Return (N,): the derivative of every example's loss l_k along ``vector`` (D,), by two backward passes."""
        derivatives = []
        for losses in self._graphs():
            probe = torch.zeros_like(losses[k], requires_grad=True)
            slopes = self._grad(losses[k], probe, create_graph=True)
            along = torch.stack([(s * v).sum() for s, v in zip(slopes, self._split(vector), strict=True)]).sum()
            (derivative,) = torch.autograd.grad(along, probe, retain_graph=True)
            derivatives.append(derivative)
        return torch.cat(derivatives)

    def check_direction(self, direction: Tensor) -> None:
        """Raise ValueError unless ``direction`` has D elements."""
        if direction.shape != (self.dimension,):
            raise ValueError(f"direction must have shape ({self.dimension},), got {tuple(direction.shape)}")

    def _graphs(self) -> Iterator[list[Tensor]]:
        """Yield each batch's K vectors of losses with their graph."""
        if self._kept is not None:
            yield self._kept
            return
        for batch in self.data:
            with torch.enable_grad():
                losses = self.losses(batch)
            if len(self.sizes) == 1:
                self._kept = losses
            yield losses

    def _slopes(self, k: int, loss: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of the sum of a batch's k-th losses, itself differentiable."""
        if k in self._kept_slopes:
            return self._kept_slopes[k]
        if not loss.requires_grad:
            return tuple(torch.zeros_like(p) for p in self.parameters)
        slopes = self._grad(loss.sum(), create_graph=True)
        if self._kept is not None:
            self._kept_slopes[k] = slopes
        return slopes

    def _grad(
        self, outputs: Tensor | Sequence[Tensor], factors: Tensor | Sequence[Tensor] | None = None, **options: bool
    ) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            outputs, self.parameters, factors, retain_graph=True, materialize_grads=True, **options
        )

    def _split(self, vector: Tensor) -> list[Tensor]:
        pieces = torch.split(vector, [p.numel() for p in self.parameters])
        return [piece.view_as(p) for piece, p in zip(pieces, self.parameters, strict=True)]

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, self.dimension, dtype=self.dtype, device=self.device)


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([g.detach().reshape(-1) for g in gradients])


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
