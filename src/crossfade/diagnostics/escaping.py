r"""Escaping efficiency (eq. 15-18): unbiased estimates for any network, without ever forming a per-example gradient.

**The noise and the curvature of one loss.** With Sigma = (1/m) [(1/N) sum_i g_i g_i' - g g'] (eq. 16; g_i the gradient
of example i, g their mean), independent random signs z_i and their mean z, the vector

    v = (1/sqrt(N)) sum_i (z_i - z) g_i       has  E[v v'] = (1/N) sum_i g_i g_i' - g g' = m Sigma,

because E[(z_i - z)(z_j - z)] = [i = j] - 1/N. So v'v / m and v'Hv / m are unbiased for Tr(Sigma) and Tr(H Sigma): one
probe costs one gradient of a randomly reweighted loss and one Hessian-vector product, whatever N and m are.

**Both sides of inequality (18), for every mixture of CE and EL at once.** With a, b the vectors v of CE and of EL (same
signs) and H_c, H_e the two Hessians, the loss alpha CE + beta EL has v = alpha a + beta b and H = alpha H_c + beta H_e:

    v'Hv = alpha^3 a'H_c a + alpha^2 beta (2 a'H_c b + a'H_e a) + alpha beta^2 (b'H_c b + 2 a'H_e b) + beta^3 b'H_e b.

One probe gives Tr(H Sigma) for the whole family, and its members share their random error. For the
right-hand side u = (1/sqrt(N)) sum_i z_i grad p_i has E[u u'] = F_p, so u'H_p u and u'F_p u = (1/N) sum_i
(grad p_i . u)^2 are unbiased for Tr(H_p F_p) and Tr(F_p F_p').
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.diagnostics.passes import Data, PerExample, Problem, evaluating
from crossfade.schedules import Weights

Progress = Callable[[float], None]
_CE = Weights(1.0, 0.0)


class Estimate(NamedTuple):
    """The mean of independent unbiased probes, and the standard error of that mean.

    The error is the sample standard deviation over sqrt(probes): NaN for one probe, 0 for an exact quantity.
    """

    value: float
    se: float
    probes: int

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.se:.2g}"


def _estimate(samples: Tensor) -> Estimate:
    probes = samples.tolist()
    n = len(probes)
    value = math.fsum(probes) / n
    if n == 1:
        return Estimate(value, math.nan, 1)
    variance = math.fsum((x - value) ** 2 for x in probes) / (n - 1)
    return Estimate(value, math.sqrt(variance / n), n)


class NoiseAndCurvature(NamedTuple):
    """The noise of SGD and the curvature at one point, for one loss.

    Attributes:
        loss: L, the mean loss.
        gradient_norm2: ``|grad L|^2``, exact. Tells how far from a stationary point the weights are.
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


def noise_and_curvature(
    model: nn.Module,
    data: Data,
    criterion: PerExample,
    *,
    batch_size: int = 1,
    probes: int = 32,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> NoiseAndCurvature:
    """Estimate the noise of SGD and the curvature at the model's current weights.

    Args:
        model: any module whose loss is twice differentiable in its parameters. Measured in evaluation mode (batch norm
            and dropout in training mode make eq. (16) undefined) and left as it was.
        data: (inputs, target) batches that can be iterated many times in the same order. How they are cut into batches
            matters for memory and speed, not for the result.
        criterion: maps (logits, target) to (N,) losses, e.g. ``partial(crossfade_loss, beta=2.0, reduction="none")``.
        batch_size: m of eq. (16), SGD's batch size. Sigma scales with 1/m.
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
        problem = Problem(model, data, criterion)
        gradients = problem.mean_gradients()
        rows = []
        for probe in _probes(problem, gradients, probes, seed, TOGETHER, on_progress):
            (v, r), ((hv, hr),) = probe.vectors, probe.products
            rows.append([dot(v, v) / batch_size, dot(r, hr), dot(v, hv) / batch_size])
        loss = float(problem.values(problem.weights)[0].double().mean())
    noise, curvature, product = (_estimate(torch.tensor(row, dtype=torch.float64)) for row in zip(*rows, strict=True))
    return NoiseAndCurvature(loss, dot(gradients[0], gradients[0]), noise, curvature, product, problem.dimension)


TOGETHER = 4  # probes of one loss that share a batch's graph: each takes four vectors of the parameters' size


class _Probe(NamedTuple):
    signs: Tensor  # (N,): z
    reweighted: Tensor  # (K, D): sum_i z_i grad l_k(i)
    vectors: list[Tensor]  # (D,) each: v of every loss, and random signs over the parameters
    products: Tensor  # (K, K + 1, D): every H_k times these vectors


def _probes(
    problem: Problem, gradients: Tensor, count: int, seed: int, together: int, on_progress: Progress | None
) -> Iterator[_Probe]:
    """Yield ``count`` probes; ``together`` of them share each batch's graph."""
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, count, together):
        last = min(first + together, count)
        lengths = [(problem.examples, problem.dimension)] * (last - first)
        drawn = [[random_signs(length, generator, problem) for length in pair] for pair in lengths]
        reweighted = problem.reweighted([z for z, _ in drawn])
        vectors = [
            [*(centred(row, z, mean) for row, mean in zip(rows, gradients, strict=True)), r]
            for rows, (z, r) in zip(reweighted, drawn, strict=True)
        ]
        products = problem.hessian_products(list(chain(*vectors)))
        pieces = torch.split(products, len(gradients) + 1, dim=1)
        for (z, _), rows, own, curved in zip(drawn, reweighted, vectors, pieces, strict=True):
            yield _Probe(z, rows, own, curved)
        if on_progress is not None:
            on_progress(last / count)


def random_signs(size: int, generator: torch.Generator, like: Problem) -> Tensor:
    """Return independent -1 and +1, drawn on the CPU so that a seed means the same on every device."""
    signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8, device="cpu") * 2 - 1
    return signs.to(device=like.device, dtype=like.dtype)


def centred(reweighted: Tensor, signs: Tensor, gradient: Tensor) -> Tensor:
    """Return (1/sqrt(N)) sum_i (z_i - z) g_i from sum_i z_i g_i and the mean gradient."""
    n = len(signs)
    return reweighted / math.sqrt(n) - math.sqrt(n) * signs.mean() * gradient


def dot(a: Tensor, b: Tensor) -> float:
    """Return a . b in float64: a sum over millions of parameters loses digits in float32."""
    return float(a.double() @ b.double())


def printed_coefficient(beta: float, m: float) -> float:
    """Return the factor of Tr(F_p F_p' + 2 H_p F_p) in eq. (18) as printed; ``m`` is M = max p_y."""
    return beta**3 + 3 * beta**2 / m + beta * (2 / m**2 + 1 / m)


def derived_coefficients(beta: float, m: float) -> tuple[float, float]:
    """Return the factors of Tr(H_p F_p) and of Tr(F_p F_p') that follow from eq. (12) and (16); ``m`` is M = max p_y.

    ((beta + 1/M)^3 - 1/M^3,  ((beta + 1/M)^2 - 1/M^2) / M^2). The derivation is on docs/why/escaping.md.
    """
    inverse = 1 / m
    return (beta + inverse) ** 3 - inverse**3, ((beta + inverse) ** 2 - inverse**2) * inverse**2


@dataclass(frozen=True, eq=False)
class EscapingEfficiency:
    """Probes of everything in eq. (16)-(18) at one point, for batch size m = 1 (divide by m for another).

    Zhu et al.'s escaping efficiency over a short time t is (eta t / 2) Tr(H Sigma). The methods leave that common
    factor out, as eq. (18) does.

    Attributes:
        max_p: M of eq. (18), exact over the data.
        gradient_products: grad CE . grad CE, grad CE . grad EL, grad EL . grad EL, exact. The derivation takes the
            mixture's own gradient to be 0; :meth:`gradient_norm2` tells.
        cubic: (probes, 4), the coefficients of Tr(H Sigma) in alpha^3, alpha^2 beta, alpha beta^2, beta^3.
        noise: (probes, 3), Tr(Sigma)'s in alpha^2, alpha beta, beta^2.
        curvature: (probes, 2), Tr(H)'s in alpha, beta.
        hp_fp, fp_fp: (probes,), Tr(H_p F_p) and Tr(F_p F_p').
        dimension: D, the number of trainable parameters.
    """

    max_p: float
    gradient_products: tuple[float, float, float]
    cubic: Tensor
    noise: Tensor
    curvature: Tensor
    hp_fp: Tensor
    fp_fp: Tensor
    dimension: int

    def trace_product(self, weights: Weights) -> Estimate:
        """Return Tr(H Sigma) of alpha CE + beta EL."""
        return _estimate(self._product(weights))

    def trace_noise(self, weights: Weights) -> Estimate:
        """Return Tr(Sigma) of alpha CE + beta EL."""
        a, b = weights
        return _estimate(self.noise @ torch.tensor([a * a, a * b, b * b], dtype=torch.float64))

    def trace_hessian(self, weights: Weights) -> Estimate:
        """Return Tr(H) of alpha CE + beta EL."""
        return _estimate(self.curvature @ torch.tensor(weights, dtype=torch.float64))

    def gradient_norm2(self, weights: Weights) -> float:
        """Return ``|grad L|^2`` of alpha CE + beta EL, exact."""
        (a, b), (cc, ce, ee) = weights, self.gradient_products
        return a * a * cc + 2 * a * b * ce + b * b * ee

    @property
    def trace_hp_fp(self) -> Estimate:
        """Tr(H_p F_p)."""
        return _estimate(self.hp_fp)

    @property
    def trace_fp_fp(self) -> Estimate:
        """Tr(F_p F_p')."""
        return _estimate(self.fp_fp)

    def gain(self, weights: Weights) -> Estimate:
        """Return the left-hand side of (18): Tr(H Sigma) of the mixture minus that of CE at the same weights."""
        return _estimate(self._gain(weights))

    def printed_bound(self, beta: float) -> Estimate:
        """Return the right-hand side of (18) as printed."""
        return _estimate(self._printed(beta))

    def derived_bound(self, beta: float) -> Estimate:
        """Return the right-hand side that the derivation gives."""
        return _estimate(self._derived(beta))

    def printed_margin(self, beta: float) -> Estimate:
        """Return left minus right of (18) as printed, alpha = 1, with the paired error: (18) holds if positive."""
        return _estimate(self._gain(Weights(1.0, beta)) - self._printed(beta))

    def derived_margin(self, beta: float) -> Estimate:
        """Return left minus right against the derived right-hand side, as :meth:`printed_margin`."""
        return _estimate(self._gain(Weights(1.0, beta)) - self._derived(beta))

    def matched_ratio(self, weights: Weights) -> float:
        """Return Tr(H Sigma) over CE's, after the mixture is rescaled to CE's noise Tr(Sigma). NaN without noise.

        Multiplying a loss by c multiplies Tr(H Sigma) by c^3 and Tr(Sigma) by c^2, and is the same as a c times larger
        learning rate. This ratio is the advantage that remains without that scale.
        """
        own, product = self.trace_noise(weights).value, self.trace_product(_CE).value
        if own == 0 or product == 0:
            return math.nan
        scale = math.sqrt(self.trace_noise(_CE).value / own)
        return scale**3 * self.trace_product(weights).value / product

    def _product(self, weights: Weights) -> Tensor:
        a, b = weights
        return self.cubic @ torch.tensor([a**3, a * a * b, a * b * b, b**3], dtype=torch.float64)

    def _gain(self, weights: Weights) -> Tensor:
        return self._product(weights) - self._product(_CE)

    def _printed(self, beta: float) -> Tensor:
        return printed_coefficient(beta, self.max_p) * (self.fp_fp + 2 * self.hp_fp)

    def _derived(self, beta: float) -> Tensor:
        of_hf, of_ff = derived_coefficients(beta, self.max_p)
        return of_hf * self.hp_fp + of_ff * self.fp_fp


def escaping_efficiency(
    model: nn.Module, data: Data, *, probes: int = 32, seed: int = 0, on_progress: Progress | None = None
) -> EscapingEfficiency:
    """Estimate both sides of (18) at the model's current weights, at once for every mixture of CE and EL.

    Args:
        model, data, probes, seed, on_progress: as for :func:`~crossfade.diagnostics.noise_and_curvature`; targets are
            class indices, logits (N, C).

    Raises:
        ValueError: as for :func:`~crossfade.diagnostics.noise_and_curvature`; a target that isn't a class, such as an
            ignored one.

    Source: eq. (12), (16), (18).

    >>> model, batch = nn.Linear(2, 2), (torch.eye(2), torch.tensor([0, 1]))
    >>> found = escaping_efficiency(model, [batch], probes=4)
    >>> found.gain(Weights(1.0, 0.0)).value
    0.0
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}")
    with evaluating(model):
        problem = Problem(model, data, _cross_entropy, _expectation)
        if any(bool((target < 0).any()) for _, target in data):
            raise ValueError("target must hold class indices, got negative ones: leave ignored examples out of data")
        root = math.sqrt(problem.examples)
        gradients = problem.mean_gradients()
        curved = problem.hessian_products([gradients[1]])[1, 0]  # H_e grad EL
        max_p = float((-problem.values(problem.weights)[0]).exp().max())
        cubic, noise, curvature, hp_fp, fp_fp = [], [], [], [], []
        for probe in _probes(problem, gradients, probes, seed, 1, on_progress):
            (a, b, r), ((ca, cb, cr), (ea, eb, er)) = probe.vectors, probe.products
            cubic.append([dot(a, ca), 2 * dot(a, cb) + dot(a, ea), dot(b, cb) + 2 * dot(a, eb), dot(b, eb)])
            noise.append([dot(a, a), 2 * dot(a, b), dot(b, b)])
            curvature.append([dot(r, cr), dot(r, er)])
            u = probe.reweighted[1] / root  # of EL = 1 - p; the sign of grad p doesn't matter to u u'
            hp_fp.append(dot(u, eb + root * probe.signs.mean() * curved))
            fp_fp.append(float(problem.directional(1, u).double().square().mean()))
    grad_ce, grad_el = gradients
    products = dot(grad_ce, grad_ce), dot(grad_ce, grad_el), dot(grad_el, grad_el)
    rows = {"cubic": cubic, "noise": noise, "curvature": curvature, "hp_fp": hp_fp, "fp_fp": fp_fp}
    probes_of = {name: torch.tensor(values, dtype=torch.float64) for name, values in rows.items()}
    return EscapingEfficiency(max_p, products, dimension=problem.dimension, **probes_of)


_cross_entropy = partial(F.cross_entropy, reduction="none")


def _expectation(logits: Tensor, target: Tensor) -> Tensor:
    return -torch.expm1(-_cross_entropy(logits, target))


def concavity(model: nn.Module, data: Data, direction: Tensor) -> Tensor:
    """Return (N,): -d'(Hessian of p_y)d of every example along ``direction`` d, exactly (second-order forward mode).

    The derivation of (18) needs this to be >= 0 for every example and direction: every p_y concave in the weights.

    Args:
        model, data: as for :func:`~crossfade.diagnostics.noise_and_curvature`.
        direction: (D,) over the trainable parameters, in ``named_parameters()`` order.

    Raises:
        ValueError: direction doesn't have D elements.
    """
    with evaluating(model):
        problem = Problem(model, data)
        problem.check_direction(direction)
        weights = problem.weights.detach()
        direction = direction.to(weights)
        zero = weights.new_zeros(())
        pieces = []
        for inputs, target in data:
            index = target.to(problem.device).unsqueeze(1)

            def p_at(step: Tensor, inputs: object = inputs, index: Tensor = index) -> Tensor:
                return problem.logits(inputs, weights + step * direction).softmax(1).gather(1, index).squeeze(1)

            pieces.append(-_derivative(partial(_derivative, p_at), zero))
    return torch.cat(pieces)


def _derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    return torch.func.jvp(function, (at,), (torch.ones_like(at),))[1]  # type: ignore[no-any-return]
