"""exp and log of eight float32 at a time, by the polynomials of the Cephes library (S. Moshier)."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfade.lab.train.tables.simd import exponent, fma, greater, jit, mantissa, nearest, power_of_two, splat8

_f = np.float32


@jit
def exp8(x: Any) -> Any:
    """exp(x) for x <= 0, within 1.5 units in the last place down to -87; below (and for NaN) exp(-87) = 1.6e-38."""
    x = greater(x, splat8(_f(-87.0)), x, splat8(_f(-87.0)))
    n = nearest(x * splat8(_f(1.4426950408889634)))
    r = fma(n, splat8(_f(-0.693359375)), x)  # ln 2 in two parts, the first exact in few bits
    r = fma(n, splat8(_f(2.12194440e-4)), r)
    p = fma(r, splat8(_f(1.9875691500e-4)), splat8(_f(1.3981999507e-3)))  # Cephes expf
    p = fma(p, r, splat8(_f(8.3334519073e-3)))
    p = fma(p, r, splat8(_f(4.1665795894e-2)))
    p = fma(p, r, splat8(_f(1.6666665459e-1)))
    p = fma(p, r, splat8(_f(0.5)))
    return (fma(p * r, r, r) + splat8(_f(1.0))) * power_of_two(n)


@jit
def log8(x: Any) -> Any:
    """log(x) for finite x >= 1, within 1.5 units in the last place; exactly 0 at 1."""
    e, m = exponent(x), mantissa(x)
    root = splat8(_f(1.4142135623730951))
    e = e + greater(m, root, splat8(_f(1.0)), splat8(_f(0.0)))
    f = greater(m, root, m * splat8(_f(0.5)), m) - splat8(_f(1.0))
    z = f * f
    p = fma(f, splat8(_f(7.0376836292e-2)), splat8(_f(-1.1514610310e-1)))  # Cephes logf
    p = fma(p, f, splat8(_f(1.1676998740e-1)))
    p = fma(p, f, splat8(_f(-1.2420140846e-1)))
    p = fma(p, f, splat8(_f(1.4249322787e-1)))
    p = fma(p, f, splat8(_f(-1.6668057665e-1)))
    p = fma(p, f, splat8(_f(2.0000714765e-1)))
    p = fma(p, f, splat8(_f(-2.4999993993e-1)))
    p = fma(p, f, splat8(_f(3.3333331174e-1)))
    y = fma(e, splat8(_f(-2.12194440e-4)), p * f * z)
    y = fma(z, splat8(_f(-0.5)), y)
    return fma(e, splat8(_f(0.693359375)), f + y)
