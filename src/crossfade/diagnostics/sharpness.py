"""Sharpness around a solution: the largest Hessian eigenvalue, and slices of the loss along one or two directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crossfade.diagnostics.passes import Data, PerExample, Problem, evaluating

__all__ = ["largest_eigenvalue", "loss_slice", "random_direction"]


def largest_eigenvalue(
    model: nn.Module, data: Data, criterion: PerExample, *, tolerance: float = 1e-3, seed: int = 0
) -> tuple[float, Tensor]:
    """The largest (most positive) eigenvalue of the loss Hessian and its unit eigenvector (D,), by Lanczos.

    Args:
        model, data, criterion: as for :func:`~crossfade.diagnostics.noise_and_curvature`; evaluation mode.
        tolerance: relative, of SciPy's ``eigsh``, which does the iteration on our Hessian-vector products.
        seed: of the start vector.

    Raises:
        scipy.sparse.linalg.ArpackNoConvergence: the tolerance wasn't reached.
    """
    import numpy as np
    from scipy.sparse.linalg import LinearOperator, eigsh

    with evaluating(model):
        problem = Problem(model, data, lambda logits, target: (criterion(logits, target),))
        size = problem.dimension

        def product(vector: Any) -> Any:
            direction = torch.as_tensor(np.ravel(vector), dtype=problem.dtype, device=problem.device)
            return problem.hessian_products([direction])[0, 0].double().cpu().numpy()

        if size == 1:
            return float(product(np.ones(1))[0]), torch.ones(1, dtype=problem.dtype)
        start = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()
        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        values, vectors = eigsh(operator, k=1, which="LA", tol=tolerance, v0=start)
    return float(values[0]), torch.from_numpy(vectors[:, 0].copy()).to(problem.dtype)


def random_direction(model: nn.Module, seed: int = 0) -> Tensor:
    """A Gaussian direction (D,), filter-normalised (Li et al. 2018): each filter as long as the weights', vectors 0.

    With this normalisation slices of networks with different weight scales compare.
    """
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        weight = parameter.detach()
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
        if weight.ndim < 2:
            noise.zero_()
        else:
            rows = (weight.shape[0], -1)
            lengths = weight.reshape(rows).norm(dim=1) / noise.reshape(rows).norm(dim=1).clamp(min=1e-12)
            noise *= lengths.view(-1, *[1] * (weight.ndim - 1))
        pieces.append(noise.reshape(-1))
    return torch.cat(pieces)


@torch.no_grad()
def loss_slice(
    model: nn.Module, data: Data, criterion: PerExample, directions: Sequence[Tensor], steps: Sequence[float]
) -> Tensor:
    """The mean loss at W + s d (one direction: shape (S,)) or W + s d + t e (two: shape (S, S)), s and t in ``steps``.

    The weights are as before afterwards, also after an interruption.

    Raises:
        ValueError: not one or two directions, or one that doesn't have D elements.
    """
    if len(directions) not in (1, 2):
        raise ValueError(f"expected one or two directions, got {len(directions)}")
    with evaluating(model):
        problem = Problem(model, data, lambda logits, target: (criterion(logits, target),))
        for direction in directions:
            if direction.shape != (problem.dimension,):
                raise ValueError(f"a direction must have shape ({problem.dimension},), got {tuple(direction.shape)}")
        kept = [p.detach().clone() for p in problem.parameters]
        grid = torch.cartesian_prod(*[torch.tensor(steps, dtype=torch.float64)] * len(directions)).reshape(
            -1, len(directions)
        )
        try:
            values = []
            for coordinates in grid.tolist():
                offset = sum(c * d for c, d in zip(coordinates, directions, strict=True))
                assert isinstance(offset, Tensor)
                for parameter, before, piece in zip(problem.parameters, kept, problem.split(offset), strict=True):
                    parameter.copy_(before + piece.to(parameter))
                values.append(float(problem.values()[0].double().mean()))
        finally:
            for parameter, before in zip(problem.parameters, kept, strict=True):
                parameter.copy_(before)
    return torch.tensor(values, dtype=torch.float64).reshape([len(steps)] * len(directions))
