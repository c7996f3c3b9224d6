r"""Unbiased estimates of Tr(Sigma), Tr(H) and Tr(H Sigma) for any network and any per-example loss (eq. 15-17).

With Sigma = (1/m) [(1/N) sum_i g_i g_i' - g g'] (eq. 16; g_i the gradient of example i, g their mean), independent
random signs z_i and their mean z, the vector

    v = (1/sqrt(N)) sum_i (z_i - z) g_i       has  E[v v'] = (1/N) sum_i g_i g_i' - g g' = m Sigma,

because E[(z_i - z)(z_j - z)] = [i = j] - 1/N. So v'v / m and v'Hv / m are unbiased for Tr(Sigma) and Tr(H Sigma): one
probe costs one gradient of a randomly reweighted loss and one Hessian-vector product, whatever N and m are. No
per-example gradient is ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crossfade.diagnostics.estimate import Estimate, mean
from crossfade.diagnostics.passes import Data, PerExample, Problem, evaluating

__all__ = ["NoiseAndCurvature", "noise_and_curvature", "random_signs"]


class NoiseAndCurvature(NamedTuple):
    """What SGD's noise and the curvature are at one point, for one loss.

    Attributes:
        loss: L, the mean loss.
        gradient_norm2: |grad L|^2, exact. Tells how far from a stationary point the weights are.
        trace_noise: Tr(Sigma), eq. (16).
        trace_hessian: Tr(H).
        trace_product: Tr(H Sigma). Zhu et al.'s escaping efficiency over a short time t is (eta t / 2) times it.
        dimension: D, the number of trainable parameters.
    """

    loss: float
    gradient_norm2: float
    trace_noise: Estimate
    trace_hessian: Estimate
    trace_product: Estimate
    dimension: int

    @property
    def alignment(self) -> float:
        """D Tr(H Sigma) / (Tr(H) Tr(Sigma)): 1 for isotropic noise, and the same for every scale of the loss."""
        return self.dimension * self.trace_product.value / (self.trace_hessian.value * self.trace_noise.value)


def random_signs(size: int, generator: torch.Generator, like: Tensor | Problem) -> Tensor:
    """Independent -1 and +1, drawn on the CPU so that a seed means the same on every device."""
    signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
    return signs.to(device=like.device, dtype=like.dtype)


TOGETHER = 4  # probes that share a batch's graph: each takes three vectors of the parameters' size


def noise_and_curvature(
    model: nn.Module,
    data: Data,
    criterion: PerExample,
    *,
    batch_size: int = 1,
    probes: int = 32,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> NoiseAndCurvature:
    """Estimate the noise of SGD and the curvature at the model's present weights.

    Args:
        model: any module whose loss is twice differentiable in its parameters. Measured in evaluation mode (batch norm
            and dropout in training mode make eq. (16) undefined) and left as it was.
        data: (inputs, target) batches that can be iterated many times in the same order. How they are cut into batches
            matters for memory and speed, not for the result.
        criterion: maps (logits, target) to (N,) losses, e.g. ``partial(crossfade_loss, beta=2.0, reduction="none")``.
        batch_size: m of eq. (16), the batch size of the SGD asked about. Sigma scales with 1/m.
        probes: independent probes; the standard errors fall with their square root. The variance is that of a Gaussian
            quadratic form: relative error about sqrt(2 / (probes * effective rank)).
        seed: of the random signs. Losses measured with the same seed share them, so differences have small errors.
        on_progress: called with the fraction done.

    Raises:
        ValueError: an iterator instead of re-iterable data, no data, no trainable parameter, probes < 1,
            batch_size < 1, or a criterion that doesn't return one loss an example.

    Source: eq. (15)-(17); Zhu et al. 2018 for Tr(H Sigma); Hutchinson 1990 for Tr(H).

    >>> import torch.nn.functional as F
    >>> model = nn.Linear(2, 2)
    >>> batch = (torch.eye(2), torch.tensor([0, 1]))
    >>> found = noise_and_curvature(model, [batch], lambda q, y: F.cross_entropy(q, y, reduction="none"))
    >>> found.dimension, found.trace_noise.value > 0
    (6, True)
    """
    if probes < 1 or batch_size < 1:
        raise ValueError(f"probes and batch_size must be at least 1, got {probes} and {batch_size}")
    with evaluating(model):
        problem = Problem(model, data, lambda logits, target: (criterion(logits, target),))
        n = problem.examples
        gradient = problem.gradients(torch.full((n,), 1.0 / n, dtype=problem.dtype))[0]
        loss = float(problem.values()[0].double().mean())
        noise, curvature, product = [], [], []
        generator = torch.Generator().manual_seed(seed)
        for first in range(0, probes, TOGETHER):
            count = min(TOGETHER, probes - first)
            drawn = [[random_signs(size, generator, problem) for size in (n, problem.dimension)] for _ in range(count)]
            signs, directions = zip(*drawn, strict=True)
            vectors = [centred(g[0], z, gradient) for g, z in zip(problem.reweighted(signs), signs, strict=True)]
            curved = problem.hessian_products([*vectors, *directions])[0]
            for v, r, hv, hr in zip(vectors, directions, curved[:count], curved[count:], strict=True):
                noise.append(dot(v, v) / batch_size)
                product.append(dot(v, hv) / batch_size)
                curvature.append(dot(r, hr))
            if on_progress is not None:
                on_progress((first + count) / probes)
    return NoiseAndCurvature(
        loss, dot(gradient, gradient), mean(noise), mean(curvature), mean(product), problem.dimension
    )


def centred(reweighted: Tensor, signs: Tensor, gradient: Tensor) -> Tensor:
    """(1/sqrt(N)) sum_i (z_i - z) g_i from sum_i z_i g_i and the mean gradient."""
    n = len(signs)
    return reweighted / math.sqrt(n) - math.sqrt(n) * signs.mean() * gradient


def dot(a: Tensor, b: Tensor) -> float:
    """In float64: a sum over millions of parameters loses digits in float32."""
    return float(a.double() @ b.double())
