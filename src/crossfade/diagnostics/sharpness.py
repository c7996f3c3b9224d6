"""Sharpness around a solution: the largest Hessian eigenvalue, and slices of the loss along one or two directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crossfade.diagnostics.passes import Data, PerExample, Problem, evaluating


def largest_eigenvalue(
    model: nn.Module, data: Data, criterion: PerExample, *, tolerance: float = 1e-3, seed: int = 0
) -> tuple[float, Tensor]:
    """Return the largest (most positive) eigenvalue of the loss Hessian and its unit eigenvector (D,), by Lanczos.

    Args:
        model, data, criterion: as for :func:`~crossfade.diagnostics.noise_and_curvature`; evaluation mode.
        tolerance: relative, of SciPy's ``eigsh``, which does the iteration on our Hessian-vector products.
        seed: of the start vector.

    Raises:
        ValueError: as for :func:`~crossfade.diagnostics.noise_and_curvature`.
        scipy.sparse.linalg.ArpackNoConvergence: the tolerance wasn't reached.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    with evaluating(model):
        problem = Problem(model, data, criterion)
        size = problem.dimension

        def product(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            direction = torch.as_tensor(vector.ravel(), dtype=problem.dtype, device=problem.device)
            return problem.hessian_products([direction])[0, 0].double().cpu().numpy()

        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu").numpy()
        unit = start / np.linalg.norm(start)
        curved = product(unit)
        if size == 1 or not curved.any():  # eigsh refuses a single weight, and a Hessian of zeros
            return float(unit @ curved), torch.from_numpy(unit).to(problem.dtype)
        operator = LinearOperator((size, size), matvec=product, dtype="float64")
        values, vectors = eigsh(operator, k=1, which="LA", tol=tolerance, v0=start)
    return float(values[0]), torch.from_numpy(vectors[:, 0].copy()).to(problem.dtype)


def random_direction(model: nn.Module, seed: int = 0) -> Tensor:
    """Return a Gaussian direction (D,), filter-normalised: each filter as long as the model's own, vectors 0.

    With this normalisation slices of networks with different weight scales compare.

    Source: Li et al. 2018.
    """
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        weight = parameter.detach()
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype, device="cpu").to(weight.device)
        if weight.ndim < 2:
            noise.zero_()
        else:
            lengths = weight.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1).clamp(min=1e-12)
            noise *= lengths.view(-1, *[1] * (weight.ndim - 1))
        pieces.append(noise.reshape(-1))
    return torch.cat(pieces)


def loss_slice(
    model: nn.Module, data: Data, criterion: PerExample, directions: Sequence[Tensor], steps: Sequence[float]
) -> Tensor:
    """Return the mean loss at W + s d (one direction: shape (S,)) or W + s d + t e (two: (S, S)), s and t in ``steps``.

    The weights W themselves never change.

    Args:
        model, data, criterion: as for :func:`~crossfade.diagnostics.noise_and_curvature`; evaluation mode.
        directions: one or two (D,) over the trainable parameters, in ``named_parameters()`` order.
        steps: the S distances along each direction.

    Raises:
        ValueError: not one or two directions, or one that doesn't have D elements.
    """
    if len(directions) not in (1, 2):
        raise ValueError(f"expected one or two directions, got {len(directions)}")
    with evaluating(model):
        problem = Problem(model, data, criterion)
        for direction in directions:
            problem.check_direction(direction)
        moves = [s * directions[0] for s in steps]
        if len(directions) == 2:
            moves = [move + t * directions[1] for move in moves for t in steps]
        losses = [problem.values(problem.weights + move.to(problem.weights))[0] for move in moves]
        values = [float(loss.double().mean()) for loss in losses]
    return torch.tensor(values, dtype=torch.float64).reshape([len(steps)] * len(directions))
