r"""SGD and its SDE (eq. 15) on a landscape whose sharp minimum is known: how many walkers escape it, and when.

One weight w, a handful of binary examples with margins s_i(w) = A(w) + e_i B(w), and p_i = sigmoid(s_i). A has a narrow
hill at w = 0 and a wide, higher one at w = 1: every loss that falls with p has a sharp minimum at 0, a wide and deeper
one at 1, and a barrier between them. The e_i add up to 0, and B is 0 at both minima but its slope isn't: the examples
pull in opposite directions, which makes the gradient noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from crossfade.schedules import Weights


@dataclass(frozen=True)
class DoubleWell:
    """A landscape: A(w) = height - softmin((w/sharp)^2, ((w-1)/flat)^2 - bonus), B(w) = spread sin(8 pi w) / (8 pi).

    Attributes:
        height: margin at the sharp minimum, about: p there is sigmoid(height).
        sharp, flat: widths of the two hills.
        bonus: by how much the wide hill is higher.
        spread: slope of B at the minima, the source of the gradient noise.
        examples: how many, with e_i evenly spaced over [-1, 1].
    """

    height: float = 2.0
    sharp: float = 0.15
    flat: float = 0.5
    bonus: float = 0.5
    spread: float = 12.0
    examples: int = 8

    def margins(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the margins s_i(w) and their derivatives, ``(*w.shape, examples)`` both."""
        temperature = 0.25
        first, second = (w / self.sharp) ** 2, ((w - 1) / self.flat) ** 2 - self.bonus
        smooth = -temperature * torch.logaddexp(-first / temperature, -second / temperature)
        share = torch.sigmoid((second - first) / temperature)
        slope = share * 2 * w / self.sharp**2 + (1 - share) * 2 * (w - 1) / self.flat**2
        own = self.spread * torch.linspace(-1, 1, self.examples, dtype=w.dtype)
        phase = (8 * math.pi * w).unsqueeze(-1)
        margin = (self.height - smooth).unsqueeze(-1) + own * phase.sin() / (8 * math.pi)
        return margin, own * phase.cos() - slope.unsqueeze(-1)

    def loss(self, w: Tensor, weights: Weights) -> Tensor:
        """Return L(w) = mean_i (alpha ce_i + beta (1 - p_i)), of w's shape."""
        margin, _ = self.margins(w)
        ce = torch.nn.functional.softplus(-margin)
        return (weights.alpha * ce - weights.beta * torch.expm1(-ce)).mean(-1)

    def gradients(self, w: Tensor, weights: Weights) -> Tensor:
        """Return each example's gradient -(alpha + beta p)(1 - p) ds/dw, eq. (13), ``(*w.shape, examples)``."""
        margin, slope = self.margins(w)
        p = torch.sigmoid(margin)
        return -(weights.alpha + weights.beta * p) * torch.sigmoid(-margin) * slope

    def minimum_and_barrier(self, weights: Weights) -> tuple[float, float]:
        """Return where this loss has its sharp minimum, and where the barrier to the wide one is highest.

        Raises:
            ValueError: the loss has no sharp minimum behind a barrier on this landscape.
        """
        w = torch.linspace(-2 * self.sharp, 1.0, 40_001, dtype=torch.float64)
        loss = self.loss(w, weights)
        inner = loss[1:-1]
        low = torch.nonzero((inner < loss[:-2]) & (inner <= loss[2:])).flatten() + 1
        high = torch.nonzero((inner > loss[:-2]) & (inner >= loss[2:])).flatten() + 1
        if not len(low) or not len(high) or high[0] < low[0]:
            raise ValueError(f"no sharp minimum behind a barrier for {weights} in {self}")
        return float(w[low[0]]), float(w[high[0]])

    def curvature_and_noise(self, w: float, weights: Weights) -> tuple[float, float]:
        """Return H and m Sigma at w (numbers, as there is one weight), H by a central difference of the gradient."""
        step = 1e-5
        points = torch.tensor([w - step, w, w + step], dtype=torch.float64)
        gradients = self.gradients(points, weights)
        means = gradients.mean(-1)
        return float((means[2] - means[0]) / (2 * step)), float(gradients[1].var(unbiased=False))


class EscapeCounts(NamedTuple):
    """The walkers that escaped, and the rise of the loss.

    Attributes:
        escaped: (steps + 1,) walkers that have been beyond the barrier by then (first passage).
        rise: (steps + 1,) mean of L(W_t) - L(W*) over *all* walkers, eq. (17).
        walkers: how many started at the minimum.
        predicted_slope: eta Tr(H Sigma) / 2 per unit of time, i.e. eta^2 Tr(H Sigma) / 2 a step.
        stable: eta H < 2, without which SGD leaves the minimum even along the mean gradient.
    """

    escaped: Tensor
    rise: Tensor
    walkers: int
    predicted_slope: float
    stable: bool


@torch.no_grad()
def simulate_escapes(
    well: DoubleWell,
    weights: Weights,
    *,
    learning_rate: float,
    steps: int,
    walkers: int = 2000,
    batch_size: int = 2,
    kind: Literal["sgd", "sde"] = "sgd",
    substeps: int = 8,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> EscapeCounts:
    """Start every walker at the sharp minimum of alpha CE + beta EL and count those that cross the barrier.

    Args:
        kind: ``"sgd"``: W -= eta (mean gradient of batch_size examples, drawn with replacement). ``"sde"``: eq. (15),
            dW = -grad L dt + sqrt(eta Sigma) dB, by Euler-Maruyama with dt = eta / substeps; one step is dt = eta.
        learning_rate: eta. ``steps`` SGD steps are the time t = eta * steps.

    Raises:
        ValueError: an unknown kind, a number that isn't positive, or a landscape without a sharp minimum for this loss.
    """
    if kind not in ("sgd", "sde"):
        raise ValueError(f"kind must be 'sgd' or 'sde', got {kind!r}")
    if not (learning_rate > 0 and steps > 0 and walkers > 0 and batch_size > 0 and substeps > 0):
        raise ValueError("learning_rate, steps, walkers, batch_size and substeps must be positive")
    minimum, barrier = well.minimum_and_barrier(weights)
    curvature, noise = well.curvature_and_noise(minimum, weights)
    generator = torch.Generator().manual_seed(seed)
    w = torch.full((walkers,), minimum, dtype=torch.float64)
    start = well.loss(w[:1], weights)
    has_escaped = torch.zeros(walkers, dtype=torch.bool)
    escaped, rise = [0], [0.0]
    for step in range(steps):
        if kind == "sgd":
            chosen = torch.randint(0, well.examples, (walkers, batch_size), generator=generator)
            w = w - learning_rate * well.gradients(w, weights).gather(1, chosen).mean(1)
            has_escaped |= w > barrier
        else:
            dt = learning_rate / substeps
            for _ in range(substeps):
                gradients = well.gradients(w, weights)
                spread = (learning_rate * gradients.var(1, unbiased=False) / batch_size * dt).sqrt()
                w = w - dt * gradients.mean(1) + spread * torch.randn(walkers, generator=generator, dtype=w.dtype)
                has_escaped |= w > barrier
        escaped.append(int(has_escaped.sum()))
        rise.append(float((well.loss(w, weights) - start).mean()))
        if on_progress is not None and (step + 1) % 100 == 0:
            on_progress((step + 1) / steps)
    return EscapeCounts(
        torch.tensor(escaped),
        torch.tensor(rise, dtype=torch.float64),
        walkers,
        learning_rate**2 * curvature * noise / batch_size / 2,
        learning_rate * curvature < 2,
    )
