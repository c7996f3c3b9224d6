"""PyTorch's pointwise operations as scalar Python expressions: what ``trace`` can write down.

``{0}`` is the first argument and so on; arguments left out are None. Expressions are float64 or bool.
"""

from __future__ import annotations

import math
from typing import Any

SAME = {"detach", "clone", "alias", "_to_copy", "lift_fresh", "lift_fresh_copy", "positive", "contiguous"}

CONSTANT = {
    "scalar_tensor": "{0}", "full": "{1}", "full_like": "{1}", "new_full": "{2}",
    "zeros": "0.0", "zeros_like": "0.0", "new_zeros": "0.0", "ones": "1.0", "ones_like": "1.0", "new_ones": "1.0",
}  # fmt: skip

_UNARY = {name: f"math.{name}({{0}})" for name in (
    "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh",
    "asinh", "acosh", "atanh", "erf", "erfc",
)}  # fmt: skip

_COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}

TEMPLATES = {
    **_UNARY,
    **{name: f"({{0}} {sign} {{1}})" for name, sign in _COMPARED.items()},
    "neg": "(-{0})",
    "abs": "abs({0})",
    "sign": "math.copysign(1.0, {0}) if {0} != 0.0 else 0.0",
    "sgn": "math.copysign(1.0, {0}) if {0} != 0.0 else 0.0",
    "reciprocal": "(1.0 / {0})",
    "rsqrt": "(1.0 / math.sqrt({0}))",
    "square": "({0} * {0})",
    "exp2": f"math.exp({{0}} * {math.log(2.0)!r})",
    "log2": f"(math.log({{0}}) / {math.log(2.0)!r})",
    "log10": f"(math.log({{0}}) / {math.log(10.0)!r})",
    "sigmoid": "(1.0 / (1.0 + math.exp(-{0})))",
    "relu": "max({0}, 0.0)",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "maximum": "max({0}, {1})",
    "minimum": "min({0}, {1})",
    "fmax": "max({0}, {1})",
    "fmin": "min({0}, {1})",
    "clamp_min": "max({0}, {1})",
    "clamp_max": "min({0}, {1})",
    "where": "({1} if {0} else {2})",
    "masked_fill": "({2} if {1} else {0})",
    "logical_not": "(not {0})",
    "bitwise_not": "(not {0})",
    "logical_and": "({0} and {1})",
    "bitwise_and": "({0} and {1})",
    "logical_or": "({0} or {1})",
    "bitwise_or": "({0} or {1})",
    "isnan": "math.isnan({0})",
    "isinf": "math.isinf({0})",
    "sigmoid_backward": "({0} * {1} * (1.0 - {1}))",
    "tanh_backward": "({0} * (1.0 - {1} * {1}))",
    "threshold_backward": "({0} if {1} > {2} else 0.0)",
}


def expression(name: str, arguments: list[Any]) -> str | None:
    """The expression of one operation, or None where there is none. Arguments are names or numbers as text, or None."""
    given = [*arguments, *[None] * 3]
    if name in SAME:
        return str(given[0])
    if name in CONSTANT:
        return CONSTANT[name].format(*given)
    if name in ("add", "sub", "rsub"):
        first, second = (given[1], given[0]) if name == "rsub" else (given[0], given[1])
        if given[2] not in (None, "1.0"):
            second = f"{given[2]} * {second}"
        return f"({first} {'+' if name == 'add' else '-'} {second})"
    if name == "clamp":
        low = f"max({given[0]}, {given[1]})" if given[1] is not None else str(given[0])
        return f"min({low}, {given[2]})" if given[2] is not None else low
    if name == "pow":
        return _power(str(given[0]), str(given[1]))
    if name == "div" and given[2] is not None:  # a rounding mode
        return None
    return TEMPLATES[name].format(*given) if name in TEMPLATES else None


def _power(base: str, exponent: str) -> str:
    simple = {
        "0.0": "1.0", "1.0": base, "2.0": f"({base} * {base})", "3.0": f"({base} * {base} * {base})",
        "0.5": f"math.sqrt({base})", "-0.5": f"(1.0 / math.sqrt({base}))", "-1.0": f"(1.0 / {base})",
    }  # fmt: skip
    return simple.get(exponent, f"({base} ** {exponent})")
