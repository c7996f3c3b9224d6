"""Schedules: pure functions from training progress in [0, 1] to the weights of eq. (12), or to another parameter.

A schedule has no state: the trainer counts the steps, and there is nothing to save or to restore.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Literal, NamedTuple, TypeAlias

Scale: TypeAlias = Literal["paper", "unit"]

# k/n computed in another order can fall one rounding short of a phase boundary; no schedule has phases this short.
_ROUNDING = 1e-9


class Weights(NamedTuple):
    """The factors of L = alpha * CE + beta * EL (eq. 12)."""

    alpha: float
    beta: float


Schedule: TypeAlias = Callable[[float], Weights]
ParameterSchedule: TypeAlias = Callable[[float], float]


def weights(focus: float, scale: Scale = "paper") -> Weights:
    r"""Return the weights whose gradient with respect to the target's logit peaks at p_y = ``focus`` (eq. 14).

    The gradient's size is (1 - p)(alpha + beta p), which peaks at p = (1 - alpha/beta) / 2.

    Args:
        focus: F in [0, 0.5]. 0 weighs CE and EL equally; 0.5 is the expectation loss alone.
        scale: ``"paper"`` is (1, 1/(1 - 2F)), and (0, 1) at F = 0.5: its peak is (1-F)^2/(1-2F), which grows without
            bound towards F = 0.5 and then falls to 1/4. ``"unit"`` is the same direction scaled to (1 - 2F, 1):
            continuous at F = 0.5, with the peak (1-F)^2.

    Raises:
        ValueError: ``focus`` outside [0, 0.5] or an unknown ``scale``.

    >>> weights(0.25)
    Weights(alpha=1.0, beta=2.0)
    >>> weights(0.25, scale="unit")
    Weights(alpha=0.5, beta=1.0)
    """
    if not 0.0 <= focus <= 0.5:
        raise ValueError(f"focus must be in [0, 0.5] (the p_y with the largest gradient, eq. 14), got {focus!r}")
    if scale == "unit":
        return Weights(1.0 - 2.0 * focus, 1.0)
    if scale != "paper":
        raise ValueError(f"scale must be 'paper' or 'unit', got {scale!r}")
    return Weights(0.0, 1.0) if focus == 0.5 else Weights(1.0, 1.0 / (1.0 - 2.0 * focus))


def check_progress(progress: float) -> float:
    """Return the progress, which may miss [0, 1] by a rounding, within [0, 1]."""
    progress = float(progress)
    if not -_ROUNDING <= progress <= 1.0 + _ROUNDING:  # NaN fails too
        raise ValueError(
            f"progress must be in [0, 1], got {progress!r}; pass the fraction of training done: step / total_steps"
        )
    return min(max(progress, 0.0), 1.0)


def check_called(schedule: object) -> None:
    """Raise TypeError where a function that makes a schedule is given instead of what it returns."""
    if getattr(schedule, "__module__", None) == __name__:  # what they return are partials
        name = getattr(schedule, "__name__", schedule)
        raise TypeError(f"{name} makes a schedule and is none; call it, as in {name}()")


# Schedules are partials of module-level functions, not closures: estimators and criteria that hold one can be pickled
# (joblib, spawned processes, torch.save).
def fixed(alpha: float, beta: float) -> Schedule:
    """Return a schedule with the same two weights throughout."""
    return partial(_fixed, Weights(alpha, beta))


def _fixed(value: Weights, progress: float) -> Weights:
    check_progress(progress)
    return value


def cross_entropy() -> Schedule:
    """Return the schedule of CE throughout, (1, 0): the baseline."""
    return fixed(1.0, 0.0)


def expectation() -> Schedule:
    """Return the schedule of EL throughout, (0, 1), eq. (9).

    It isn't competitive from scratch (Table 4); the paper's fades end with it.
    """
    return fixed(0.0, 1.0)


def constant(focus: float = 0.0, scale: Scale = "paper") -> Schedule:
    """Return a schedule with one focus throughout. ``constant(0.0)`` is the paper's recipe 1, F = [0]."""
    return fixed(*weights(focus, scale))


def switch(first: float = 0.0, second: float = 0.5, at: float = 0.95, scale: Scale = "paper") -> Schedule:
    """Return a schedule with the focus ``first``, and from progress ``at`` on ``second``.

    The defaults are the paper's recipe 2, F = [0, 0.5].

    >>> late = switch(0.0, 0.5, at=0.95)
    >>> late(227 / 240), late(228 / 240)
    (Weights(alpha=1.0, beta=1.0), Weights(alpha=0.0, beta=1.0))
    """
    if not 0.0 <= at <= 1.0:
        raise ValueError(f"at must be in [0, 1] (progress), got {at!r}")
    return partial(_switch, weights(first, scale), weights(second, scale), at)


def _switch(before: Weights, after: Weights, at: float, progress: float) -> Weights:
    return after if check_progress(progress) >= at - _ROUNDING else before


def staircase(focuses: Sequence[float], scale: Scale = "paper") -> Schedule:
    """Return a schedule with one phase of equal length for each focus, in order.

    >>> staircase([0.0, 0.25])(0.5)
    Weights(alpha=1.0, beta=2.0)
    """
    steps = [weights(focus, scale) for focus in focuses]
    if not steps:
        raise ValueError("focuses must name at least one focus in [0, 0.5], got none")
    return partial(_staircase, tuple(steps))


def _staircase(steps: tuple[Weights, ...], progress: float) -> Weights:
    return steps[_phase(progress, len(steps))]


def _phase(progress: float, count: int) -> int:
    """Return which of so many equal phases the progress is in, from 0."""
    return min(math.floor(check_progress(progress) * count + _ROUNDING), count - 1)


def gradual(scale: Scale = "paper") -> Schedule:
    """Return the paper's recipe 3: F = [0, 0.1, 0.2, 0.3, 0.4, 0.5] in six equal phases ("F=0-0.5").

    >>> gradual()(0.0), gradual()(1.0)
    (Weights(alpha=1.0, beta=1.0), Weights(alpha=0.0, beta=1.0))
    """
    return staircase([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], scale)


def linear(start: float = 0.0, end: float = 0.5, scale: Scale = "unit") -> Schedule:
    """Return a schedule whose focus moves from ``start`` to ``end`` in a straight line: a fade without steps.

    The default scale is ``"unit"``: on the paper's scale beta grows without bound as the focus nears 0.5.
    """
    weights(start, scale), weights(end, scale)
    return partial(_linear, start, end, scale)


def _linear(start: float, end: float, scale: Scale, progress: float) -> Weights:
    return weights(_ramp(start, end, None, progress), scale)


def ramp(start: float, end: float, steps: int | None = None) -> ParameterSchedule:
    """Return a schedule of one parameter from ``start`` to ``end``, for :class:`crossfade.Fade`.

    It is a straight line, or so many equal phases, of which the first has the value ``start`` and the last one ``end``.

    Raises:
        ValueError: an end that isn't finite, or fewer than two steps.

    >>> ramp(0.0, 0.8)(0.5), ramp(0.0, 0.8, steps=5)(0.5), ramp(0.0, 0.8, steps=5)(0.99)
    (0.4, 0.4, 0.8)
    """
    for name, value in (("start", start), ("end", end)):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
    if steps is not None and not (steps >= 2 and steps == int(steps)):
        raise ValueError(f"steps must be at least 2 whole phases, or None for a straight line, got {steps!r}")
    return partial(_ramp, start, end, steps)


def values_at(parameters: Mapping[str, float | ParameterSchedule], progress: float) -> tuple[float, ...]:
    """Return the values of several parameters at this progress, in their order.

    Raises:
        TypeError: a schedule that returns something else than a number.
    """
    check_progress(progress)
    found = {name: value(progress) if callable(value) else value for name, value in parameters.items()}
    for name, value in found.items():
        if not isinstance(value, Real):
            raise TypeError(f"{name} must be one number at progress {progress:g}, got {value!r}")
    return tuple(map(float, found.values()))


def _ramp(start: float, end: float, steps: int | None, progress: float) -> float:
    moved = check_progress(progress) if steps is None else _phase(progress, steps) / (steps - 1)
    # The interpolation may leave [start, end] by a rounding, and weights() would refuse 0.5000000001.
    return end if moved == 1.0 else min(max(start + (end - start) * moved, min(start, end)), max(start, end))
