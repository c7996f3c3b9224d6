"""Functions g of an example's cross entropy ce = -log p_y, or of ce and statistics of its row: value and slope.

:mod:`crossfade.objectives` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from types import FunctionType
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade._row import STATISTICS, Row
from crossfade._tensors import is_transformed

Function: TypeAlias = Callable[[Tensor], Tensor]
Transform: TypeAlias = Function | Callable[[Tensor, Row], Tensor]

# exp(-800) is already 0 in float64: beyond it p and its derivative are 0, and so is the derivative of clamp, so that
# autograd never multiplies 0 by an infinite ce.
P_IS_ZERO = 800.0


def check_number(name: str, value: object, expected: str, holds: Callable[[Any], bool]) -> None:
    """Raise ValueError unless the value is a number for which the condition holds."""
    try:
        good = holds(value)
    except TypeError:
        good = False
    if not good:
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def check_parameter(name: str, value: float | Tensor, expected: str, holds: Callable[[Any], bool]) -> None:
    """Raise ValueError for a number for which the condition doesn't hold, or a tensor of several elements.

    What one element of a tensor is, isn't asked: it may be on a GPU, or be traced by a compiler.
    """
    if not isinstance(value, Tensor):
        check_number(name, value, expected, holds)
    elif value.numel() != 1:
        raise ValueError(f"{name} must be a number or a tensor with one element, got shape {tuple(value.shape)}")


def finite(name: str, value: float | Tensor) -> None:
    """Raise ValueError for a number that isn't finite, or a tensor of several elements."""
    if isinstance(value, float) and _is_finite(value):  # nearly always, and calls are what a small batch pays for
        return
    check_parameter(name, value, "finite (a number, or a tensor with one element)", _is_finite)


def _is_finite(value: float) -> bool:
    return -math.inf < value < math.inf  # math.isfinite takes no symbolic number of torch.compile


def one_minus_exp(minus_x: Tensor) -> Tensor:
    """Return 1 - exp(minus_x) for minus_x <= 0, such as 1 - p of log p. Its derivative keeps every digit of p.

    ``F.elu`` is expm1 there, and computes its derivative as an exponential. Autograd's derivative of expm1 is its
    result + 1, which is p in steps of 6e-8, and 0 for a p below them. (At p = 1 elu's second derivative is 0.)
    """
    return -F.elu(minus_x)


def power_of(base: Tensor, exponent: float | Tensor) -> Tensor:
    """Return base ** exponent. A compiler compiles again for each number that is an exponent, but not for a tensor."""
    return base.pow(base.new_zeros(()) + exponent if torch.compiler.is_compiling() else exponent)


def takes_row(g: Transform) -> bool:
    """Return whether g is a function of (ce, row): whether it needs a second positional argument."""
    if type(g) is FunctionType:  # fast, and a compiler understands it
        return g.__code__.co_argcount - len(g.__defaults__ or ()) == 2
    if isinstance(g, Mixture | Focal):
        return False
    try:
        parameters = signature(g).parameters.values()
    except (TypeError, ValueError):  # built in
        return False
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) == 2


def evaluate(g: Transform, ce: Tensor, row: Row | None = None) -> Tensor:
    """Return g(ce) or g(ce, row), or raise ValueError if that isn't a tensor of the shape of ce."""
    if not takes_row(g):
        loss = cast(Function, g)(ce)
    elif row is None:
        raise ValueError(
            "g(ce, row) needs the row's statistics, and here only its cross entropy is known: pass a g(ce)"
        )
    else:
        loss = cast(Callable[[Tensor, Row], Tensor], g)(ce, row)
    if not isinstance(loss, Tensor) or loss.shape != ce.shape:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"g must map the cross entropies elementwise: expected a tensor of shape {tuple(ce.shape)}, got {got}"
        )
    # A 0-dim ce, unlike a vector, becomes float64 for the sake of a parameter that is a float64 tensor.
    return loss if loss.dtype == ce.dtype or ce.dim() else loss.to(ce.dtype)


class Mixture:
    """The transform alpha * ce + beta * (1 - p), eq. (12).

    Attributes:
        alpha, beta: the weights, numbers or tensors with one element.
        is_fixed: whether both weights are numbers.

    A class with slots and not a dataclass, because every call of a loss makes one.
    """

    __slots__ = ("alpha", "beta", "is_fixed")

    def __init__(self, alpha: float | Tensor, beta: float | Tensor) -> None:
        finite("alpha", alpha)
        finite("beta", beta)
        self.alpha = alpha.reshape(()) if isinstance(alpha, Tensor) else alpha
        self.beta = beta.reshape(()) if isinstance(beta, Tensor) else beta
        self.is_fixed = not (isinstance(alpha, Tensor) or isinstance(beta, Tensor))

    def __call__(self, ce: Tensor) -> Tensor:
        alpha, beta = self.alpha, self.beta
        if ce.dim() == 0:  # unlike a vector it would become float64 for the sake of a float64 weight
            alpha, beta = (w.to(ce.dtype) if isinstance(w, Tensor) else w for w in (alpha, beta))
        el = beta * one_minus_exp(-ce)
        if isinstance(alpha, Tensor):  # the weight 0 turns CE off even where ce = inf: EL is then 1, not NaN
            return alpha * ce.masked_fill((alpha == 0) & ce.isinf(), 0.0) + el
        return el if alpha == 0.0 else alpha * ce + el

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """Return -g(-log p) with the fewest autograd nodes: on a small batch these are the cost of a loss.

        1 - p is a difference here: only near p = 1 has expm1 more digits, and it may take several times as long as exp.
        """
        if isinstance(self.alpha, Tensor) or isinstance(self.beta, Tensor) or torch.compiler.is_compiling():
            return -self(-log_p)
        if self.beta == 0.0:
            return log_p if self.alpha == 1.0 else log_p * self.alpha
        minus_el = log_p.exp() - 1.0
        if self.alpha == 0.0:
            return minus_el if self.beta == 1.0 else minus_el * self.beta
        return torch.add(log_p if self.alpha == 1.0 else log_p * self.alpha, minus_el, alpha=self.beta)


class Focal:
    """The transform alpha * (1 - p)**gamma * ce, eq. (2)."""

    __slots__ = ("alpha", "gamma")

    def __init__(self, alpha: float | Tensor, gamma: float | Tensor) -> None:
        finite("alpha", alpha)
        check_parameter("gamma", gamma, "a finite number >= 0", lambda x: 0 <= x < math.inf)
        self.alpha = alpha
        self.gamma = gamma

    def __call__(self, ce: Tensor) -> Tensor:
        base = self._base(one_minus_exp(-ce.clamp(max=P_IS_ZERO)))
        return self.alpha * power_of(base, self.gamma) * ce

    def value_and_slope(self, ce: Tensor, p: Tensor, minus_el: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return alpha m^gamma ce and alpha m^(gamma - 1) (m + gamma p ce) with m = 1 - p = -minus_el, times scale.

        Both are without gradient.
        """
        alpha = self.alpha * scale
        if self.gamma == 2.0:  # two factors m: their signs cancel
            base, gamma, power = minus_el, -2.0, minus_el * alpha
        else:
            base, gamma = self._base(-minus_el), float(self.gamma)
            power = base.pow(gamma - 1.0).mul_(alpha)
        slope = torch.addcmul(base, p, ce.clamp(max=P_IS_ZERO), value=gamma).mul_(power)
        return power.mul_(base).mul_(ce), slope

    def _base(self, missing: Tensor) -> Tensor:
        # x**(gamma - 1) is infinite at x = 0 while its product with ce goes to 0.
        any_power = isinstance(self.gamma, Tensor) or self.gamma < 1
        return missing.clamp(min=torch.finfo(missing.dtype).tiny) if any_power else missing


def value_and_slope(g: Transform, ce: Tensor, row: Row | None = None) -> tuple[Tensor, Tensor]:
    """Return g(ce) and g'(ce), both without gradient, for a tensor of any shape. The host doesn't wait for a GPU."""
    if isinstance(g, Mixture):
        return g(ce), torch.exp(-ce).mul_(g.beta).add_(g.alpha)
    if isinstance(g, Focal) and not isinstance(g.gamma, Tensor):
        return g.value_and_slope(ce, torch.exp(-ce), torch.expm1(-ce))
    # A derivative at ce = inf is a limit: take it where every p is 0 and the arithmetic is still finite.
    leaf = ce.clamp(max=torch.finfo(ce.dtype).max / 4)
    if is_transformed():  # where no tensor may be told to require a gradient
        value, slopes, *_ = torch.func.vjp(lambda x: evaluate(g, x, row), leaf)
        return torch.where(ce.isinf(), evaluate(g, ce, row), value), slopes(torch.ones_like(value))[0]
    with torch.enable_grad():
        value = evaluate(g, leaf.requires_grad_(), row)
        slope = torch.zeros_like(ce)
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True, materialize_grads=True)
    # On a GPU, asking for infinities would wait for it, and torch.export has no values to ask.
    if not ce.is_cpu or torch.compiler.is_compiling() or ce.isinf().any():
        value = torch.where(ce.isinf(), evaluate(g, ce, row), value)
    # Autograd may give a constant slope as one number in many places, into which nothing can be written.
    return value.detach().contiguous(), slope.contiguous()


def probe(g: Transform, device: torch.device) -> tuple[bool, frozenset[str]]:
    """Return whether g has tensors that require a gradient, and which of the row's statistics it asks for.

    Call it with gradients enabled.
    """
    if isinstance(g, Mixture | Focal):
        one, other = g.alpha, g.beta if isinstance(g, Mixture) else g.gamma
        return getattr(one, "requires_grad", False) or getattr(other, "requires_grad", False), frozenset()
    p = torch.full((1, 2), 0.5, device=device)
    row = Row(lambda: p, 1, torch.zeros(1, 1, dtype=torch.int64, device=device))
    learnable = evaluate(g, torch.ones(1, device=device), row).requires_grad
    return learnable, frozenset(name for name in STATISTICS if name in vars(row))
