"""A small network in float64 and the dense matrices of its losses, by torch.func: the independent truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from crossfade.diagnostics import escaping


@dataclass
class Small:
    model: nn.Module
    x: Tensor
    y: Tensor

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Uneven batches, so that an error in how they are put together shows."""
        cut = len(self.x) // 3
        return [(self.x[:cut], self.y[:cut]), (self.x[cut:], self.y[cut:])]

    def dense(self, losses: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Per-example gradients (N, D) and the Hessian of the mean loss (D, D)."""
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        parameters = dict(self.model.named_parameters())
        flat = torch.cat([parameters[name].detach().reshape(-1) for name in names])

        def per_example(vector: Tensor) -> Tensor:
            pieces = vector.split([parameters[name].numel() for name in names])
            moved = {name: piece.view_as(parameters[name]) for name, piece in zip(names, pieces, strict=True)}
            return losses(torch.func.functional_call(self.model, moved, self.x), self.y)

        return torch.func.jacrev(per_example)(flat), torch.func.hessian(lambda v: per_example(v).mean())(flat)


def centred_covariance(gradients: Tensor) -> Tensor:
    mean = gradients.mean(0)
    return gradients.T @ gradients / len(gradients) - torch.outer(mean, mean)


def small_network(examples: int = 7, seed: int = 0) -> Small:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(examples, 3, generator=generator, dtype=torch.float64)
    return Small(model, x, torch.randint(0, 3, (examples,), generator=generator))


def all_signs(monkeypatch: pytest.MonkeyPatch, examples: int) -> int:
    """Probe k uses the k-th of the 2^N sign vectors over the examples; directions stay random."""
    patterns = itertools.cycle(itertools.product([-1.0, 1.0], repeat=examples))
    random = escaping.random_signs

    def signs(size, generator, like):
        return torch.tensor(next(patterns), dtype=like.dtype) if size == examples else random(size, generator, like)

    monkeypatch.setattr(escaping, "random_signs", signs)
    return 2**examples
