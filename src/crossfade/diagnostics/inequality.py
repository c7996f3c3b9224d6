r"""Both sides of inequality (18), for every mixture of CE and EL at once.

With a, b the random vectors v of :mod:`~crossfade.diagnostics.escaping` for CE and for EL (same signs) and H_c, H_e the
two Hessians, the loss alpha CE + beta EL has v = alpha a + beta b and H = alpha H_c + beta H_e. So

    v'Hv = alpha^3 a'H_c a + alpha^2 beta (2 a'H_c b + a'H_e a) + alpha beta^2 (b'H_c b + 2 a'H_e b) + beta^3 b'H_e b:

one probe gives Tr(H Sigma) for the whole family, and differences between its members share their chance.

For the right-hand side u = (1/sqrt(N)) sum_i z_i grad p_i has E[u u'] = F_p, so u'H_p u and u'F_p u = (1/N) sum_i
(grad p_i . u)^2 are unbiased for Tr(H_p F_p) and Tr(F_p F_p').
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.diagnostics.escaping import centred, dot, random_signs
from crossfade.diagnostics.estimate import Estimate, mean
from crossfade.diagnostics.passes import Batch, Data, Problem, evaluating, logits_of, to_device
from crossfade.schedules import Weights

__all__ = ["EscapingEfficiency", "concavity", "derived_coefficients", "escaping_efficiency", "printed_coefficient"]

_CE = Weights(1.0, 0.0)


def printed_coefficient(beta: float, m: float) -> float:
    """The factor of Tr(F_p F_p' + 2 H_p F_p) in eq. (18) as printed; ``m`` is M = max p_y."""
    return beta**3 + 3 * beta**2 / m + beta * (2 / m**2 + 1 / m)


def derived_coefficients(beta: float, m: float) -> tuple[float, float]:
    """The factors of Tr(H_p F_p) and of Tr(F_p F_p') that follow from eq. (12) and (16); ``m`` is M = max p_y.

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
    """

    max_p: float
    gradient_products: tuple[float, float, float]
    cubic: Tensor
    noise: Tensor
    curvature: Tensor
    hp_fp: Tensor
    fp_fp: Tensor
    dimension: int

    def _of(self, samples: Tensor) -> Estimate:
        return mean(samples.tolist())

    def _product(self, weights: Weights) -> Tensor:
        a, b = weights
        return self.cubic @ torch.tensor([a**3, a * a * b, a * b * b, b**3], dtype=torch.float64)

    def trace_product(self, weights: Weights) -> Estimate:
        """Tr(H Sigma) of alpha CE + beta EL."""
        return self._of(self._product(weights))

    def trace_noise(self, weights: Weights) -> Estimate:
        """Tr(Sigma) of alpha CE + beta EL."""
        a, b = weights
        return self._of(self.noise @ torch.tensor([a * a, a * b, b * b], dtype=torch.float64))

    def trace_hessian(self, weights: Weights) -> Estimate:
        """Tr(H) of alpha CE + beta EL."""
        return self._of(self.curvature @ torch.tensor(weights, dtype=torch.float64))

    def gradient_norm2(self, weights: Weights) -> float:
        """|grad L|^2 of alpha CE + beta EL, exact."""
        (a, b), (cc, ce, ee) = weights, self.gradient_products
        return a * a * cc + 2 * a * b * ce + b * b * ee

    @property
    def trace_hp_fp(self) -> Estimate:
        """Tr(H_p F_p)."""
        return self._of(self.hp_fp)

    @property
    def trace_fp_fp(self) -> Estimate:
        """Tr(F_p F_p')."""
        return self._of(self.fp_fp)

    def _gain(self, weights: Weights) -> Tensor:
        return self._product(weights) - self._product(_CE)

    def _printed(self, beta: float) -> Tensor:
        return printed_coefficient(beta, self.max_p) * (self.fp_fp + 2 * self.hp_fp)

    def _derived(self, beta: float) -> Tensor:
        of_hf, of_ff = derived_coefficients(beta, self.max_p)
        return of_hf * self.hp_fp + of_ff * self.fp_fp

    def gain(self, weights: Weights) -> Estimate:
        """The left-hand side of (18): Tr(H Sigma) of the mixture minus that of CE at the same weights."""
        return self._of(self._gain(weights))

    def printed_bound(self, beta: float) -> Estimate:
        """The right-hand side of (18) as printed."""
        return self._of(self._printed(beta))

    def derived_bound(self, beta: float) -> Estimate:
        """The right-hand side that the derivation gives."""
        return self._of(self._derived(beta))

    def printed_margin(self, beta: float) -> Estimate:
        """Left minus right of (18) as printed, alpha = 1, with the paired error. It holds where this is positive."""
        return self._of(self._gain(Weights(1.0, beta)) - self._printed(beta))

    def derived_margin(self, beta: float) -> Estimate:
        """The same against the derived right-hand side."""
        return self._of(self._gain(Weights(1.0, beta)) - self._derived(beta))

    def matched_ratio(self, weights: Weights) -> float:
        """Tr(H Sigma) over CE's, after the mixture is rescaled to CE's noise Tr(Sigma).

        Multiplying a loss by c multiplies Tr(H Sigma) by c^3 and Tr(Sigma) by c^2, and is the same as a c times larger
        learning rate. This ratio is what is left of an advantage once that scale is taken out. NaN without noise.
        """
        own, product = self.trace_noise(weights).value, self.trace_product(_CE).value
        if own == 0 or product == 0:
            return math.nan
        scale = math.sqrt(self.trace_noise(_CE).value / own)
        return scale**3 * self.trace_product(weights).value / product


def _losses(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    ce = F.cross_entropy(logits, target, reduction="none")
    return ce, -torch.expm1(-ce)


def escaping_efficiency(
    model: nn.Module,
    data: Data,
    *,
    probes: int = 32,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> EscapingEfficiency:
    """Estimate both sides of (18) for every mixture of CE and EL at the model's present weights.

    Args:
        model, data, probes, seed, on_progress: as for :func:`~crossfade.diagnostics.noise_and_curvature`; targets are
            class indices, logits (N, C).

    Returns:
        An :class:`EscapingEfficiency`; ask it about any weights, no further pass is needed.

    Raises:
        ValueError: as for :func:`~crossfade.diagnostics.noise_and_curvature`.

    Source: eq. (12), (16), (18).

    >>> model, batch = nn.Linear(2, 2), (torch.eye(2), torch.tensor([0, 1]))
    >>> found = escaping_efficiency(model, [batch], probes=4)
    >>> found.gain(Weights(1.0, 0.0)).value
    0.0
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}")
    with evaluating(model):
        problem = Problem(model, data, _losses)
        n = problem.examples
        gradients = problem.gradients(torch.full((n,), 1.0 / n, dtype=problem.dtype))
        curved = problem.hessian_products([gradients[1]])[1, 0]  # H_e grad EL
        max_p = float((-problem.values()[0]).exp().max())
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for k in range(probes):
            rows.append(_probe(problem, gradients, curved, generator))
            if on_progress is not None:
                on_progress((k + 1) / probes)
    table = torch.tensor(rows, dtype=torch.float64)
    products = (dot(gradients[0], gradients[0]), dot(gradients[0], gradients[1]), dot(gradients[1], gradients[1]))
    return EscapingEfficiency(
        max_p, products, table[:, :4], table[:, 4:7], table[:, 7:9], table[:, 9], table[:, 10], problem.dimension
    )


def _probe(problem: Problem, gradients: Tensor, curved: Tensor, generator: torch.Generator) -> list[float]:
    n = problem.examples
    signs = random_signs(n, generator, problem)
    reweighted = problem.gradients(signs)
    a, b = (centred(reweighted[k], signs, gradients[k]) for k in (0, 1))
    r = random_signs(problem.dimension, generator, problem)
    (ca, cb, cr), (ea, eb, er) = problem.hessian_products([a, b, r])
    u = reweighted[1] / math.sqrt(n)  # of EL = 1 - p; the sign of grad p doesn't matter to u u'
    eu = eb + math.sqrt(n) * signs.mean() * curved
    along = problem.directional(1, u).double()
    return [
        dot(a, ca), 2 * dot(a, cb) + dot(a, ea), dot(b, cb) + 2 * dot(a, eb), dot(b, eb),
        dot(a, a), 2 * dot(a, b), dot(b, b),
        dot(r, cr), dot(r, er),
        dot(u, eu), float(along.square().mean()),
    ]  # fmt: skip


def concavity(model: nn.Module, data: Data, direction: Tensor) -> Tensor:
    """(N,): -d'(Hessian of p_y)d of every example along ``direction`` d, exactly (second-order forward mode).

    The derivation of (18) needs this to be >= 0 for every example and direction: every p_y concave in the weights.

    Args:
        model, data: as for :func:`~crossfade.diagnostics.noise_and_curvature`.
        direction: (D,) over the trainable parameters, in ``named_parameters()`` order.

    Raises:
        ValueError: direction doesn't have D elements.
    """
    with evaluating(model):
        problem = Problem(model, data, _losses)
        if direction.shape != (problem.dimension,):
            raise ValueError(f"direction must have shape ({problem.dimension},), got {tuple(direction.shape)}")
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        tangent = dict(zip(named, problem.split(direction), strict=True))
        return torch.cat([_second_derivative(model, batch, named, tangent) for batch in data])


def _second_derivative(
    model: nn.Module, batch: Batch, named: Mapping[str, Tensor], tangent: Mapping[str, Tensor]
) -> Tensor:
    device = next(iter(named.values())).device
    inputs, target = to_device(batch[0], device), batch[1].to(device)
    point = {name: p.detach() for name, p in named.items()}

    def p_at(step: Tensor) -> Tensor:
        moved = {name: point[name] + step * tangent[name] for name in point}
        logits = logits_of(lambda *args, **kwargs: torch.func.functional_call(model, moved, args, kwargs), inputs)
        return logits.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)

    def slope(step: Tensor) -> Tensor:
        return torch.func.jvp(p_at, (step,), (torch.ones_like(step),))[1]  # type: ignore[no-any-return]

    zero = torch.zeros((), dtype=next(iter(point.values())).dtype, device=device)
    return -torch.func.jvp(slope, (zero,), (torch.ones_like(zero),))[1]  # type: ignore[no-any-return]
