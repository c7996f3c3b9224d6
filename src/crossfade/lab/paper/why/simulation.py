"""The pair of examples in closed form, and simulated escapes from a known sharp minimum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from crossfade.diagnostics.escaping import derived_coefficients, printed_coefficient
from crossfade.diagnostics.simulate import DoubleWell, simulate_escapes
from crossfade.lab.paper.why.measure import MIXTURES
from crossfade.lab.paper.why.watched import Row
from crossfade.lab.trial import Shape


@dataclass(frozen=True)
class WellTask:
    """A double well with a known sharp minimum as a trial's task.

    Args:
        height: The margin at the sharp minimum.
    """

    name: str
    height: float

    @property
    def content(self) -> Mapping[str, float]:
        return {"height": self.height}

    @property
    def shape(self) -> Shape:
        """One example, one weight."""
        return Shape(1, 1, 2)

    def split(self, repeat: int) -> DoubleWell:
        """Return the landscape, which is the same for every repeat."""
        return DoubleWell(height=self.height)

    def describe(self) -> dict[str, object]:
        return {"name": self.name, "source": "a double well with a known sharp minimum", **asdict(self)}


WELLS = (WellTask("p = 0.73", 1.0), WellTask("p = 0.88", 2.0), WellTask("p = 0.98", 4.0))
_RATES = (0.02, 0.05, 0.1)
_KINDS: tuple[Literal["sgd", "sde"], ...] = ("sgd", "sde")


def pair_rows() -> Iterator[Row]:
    """Yield the gain and both bounds for margins c + w and c - w at w = 0, over p = sigmoid(c).

    Tr(H Sigma) = p q^3 (1 + beta p)^2 (1 - beta (1 - 2p)), F_p = p^2 q^2, H_p = p q (2p - 1), M = p, q = 1 - p.
    """
    for name in ("f0", "f0.1", "f0.2", "f0.3", "f0.4"):
        beta = MIXTURES[name].beta
        for k in range(1, 100):
            p = k / 100
            q = 1 - p
            curvature = 1 - beta * (1 - 2 * p)
            f_p, h_p = p**2 * q**2, p * q * (2 * p - 1)
            of_hf, of_ff = derived_coefficients(beta, p)
            yield {
                "mixture": name,
                "beta": beta,
                "p": p,
                "is_minimum": curvature > 0,
                "gain": p * q**3 * ((1 + beta * p) ** 2 * curvature - 1),
                "printed_bound": printed_coefficient(beta, p) * (f_p**2 + 2 * h_p * f_p),
                "derived_bound": of_hf * h_p * f_p + of_ff * f_p**2,
            }


def escape_rows(well: DoubleWell, name: str, steps: int, walkers: int) -> Iterator[Row]:
    """Yield how many walkers escape a mixture's sharp minimum, for each learning rate, noise and kind of walk."""
    value = MIXTURES[name]
    minimum, barrier = well.minimum_and_barrier(value)
    ce_minimum, _ = well.minimum_and_barrier(MIXTURES["ce"])
    curvature, noise = well.curvature_and_noise(minimum, value)
    _, ce_noise = well.curvature_and_noise(ce_minimum, MIXTURES["ce"])
    for rate in _RATES:
        for matched in (False, True):
            # Scaling the learning rate is the same as scaling the loss: this gives the mixture CE's gradient noise.
            own = rate * (ce_noise / noise) ** 0.5 if matched else rate
            for kind in _KINDS:
                found = simulate_escapes(
                    well, value, learning_rate=own, steps=steps, walkers=walkers, batch_size=1, kind=kind, substeps=4
                )
                half = (found.escaped >= walkers / 2).nonzero()
                yield {
                    "kind": kind,
                    "rate": rate,
                    "matched": matched,
                    "own_rate": own,
                    "steps": steps,
                    "walkers": walkers,
                    "minimum": minimum,
                    "barrier": barrier,
                    "h": curvature,
                    "sigma": noise,
                    "h_sigma": curvature * noise,
                    "stable": found.stable,
                    "escaped_10pct": int(found.escaped[steps // 10]),
                    "escaped": int(found.escaped[-1]),
                    "median_steps": int(half[0]) if len(half) else None,
                    "rise1": float(found.rise[1]),
                    "predicted1": found.predicted_slope,
                }
