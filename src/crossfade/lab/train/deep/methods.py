"""Methods that change the training step, not only the loss: they need a network trained in the usual way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crossfade.lab.methods import METHODS, Method
from crossfade.schedules import Weights, gradual

__all__ = ["COT", "NORM_MATCHED", "ScaledRate", "TwoPass", "deep_method", "gradient_volume", "rate_factor"]


@dataclass(frozen=True)
class TwoPass(Method):
    """Complement objective training (Chen et al. 2019): a step on CE, then a second pass and a step on eq. (6).

    The second pass minimises the negative complement entropy divided by the number of classes, with an optimizer of
    its own at the same learning rate, momentum and weight decay, as in their published code.
    """


@dataclass(frozen=True)
class ScaledRate(Method):
    """CE whose learning rate is multiplied by a function of progress.

    Not the same as the loss times M (``ce-matched``, ``ce-matched-off``): SGD's step is the rate times a running sum of
    gradient + weight decay x weights. A larger rate moves the weights further along old gradients too, and decays them
    faster; a larger loss does neither.
    """

    factor: Callable[[float], float] = float


def gradient_volume(weights: Weights, own: bool) -> float:
    r"""Area under the gradient of alpha CE + beta EL, eq. (21) for the target's logit, eq. (22) for another's.

    \int_0^1 (1 - p)(alpha + beta p) dp = alpha/2 + beta/6 (its size; eq. 13 is negative there), and
    \int_0^1 \int_0^1 q (alpha + beta p) dp dq = alpha/2 + beta/4. CE's is 1/2 in both cases, eq. (20).
    """
    alpha, beta = weights
    return alpha / 2 + beta / (6 if own else 4)


def rate_factor(progress: float, own: bool) -> float:
    """M = V / V_ce for the gradual recipe's weights: what CE's learning rate is multiplied by."""
    return gradient_volume(gradual()(progress), own) / 0.5


def _own(progress: float) -> float:
    return rate_factor(progress, own=True)


def _others(progress: float) -> float:
    return rate_factor(progress, own=False)


COT = TwoPass("cot", "COT", note="complement objective training (Chen et al. 2019), two passes a step")
_OTHER = "{} scales the loss instead, and with momentum and weight decay that isn't the same"
NORM_MATCHED = (
    ScaledRate(
        "ce-volume-own",
        "CE, rate × M (i = j)",
        note="eq. (21): CE's learning rate times M = alpha + beta/3 of the gradual recipe; "
        + _OTHER.format("ce-matched"),
        factor=_own,
    ),
    ScaledRate(
        "ce-volume-others",
        "CE, rate × M (i ≠ j)",
        note="eq. (22): CE's learning rate times M = alpha + beta/2 of the gradual recipe; "
        + _OTHER.format("ce-matched-off"),
        factor=_others,
    ),
)


def deep_method(name: str) -> Method:
    """``crossfade.lab.methods.method``, and the methods of this module.

    Raises:
        UserError: unknown name.
    """
    for known in (*METHODS, COT, *NORM_MATCHED):
        if known.name == name:
            return known
    from crossfade.lab.methods import method

    return method(name)
