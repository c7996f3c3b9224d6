"""The Triton kernels: a program handles one row in the forward pass, and a block of one in the backward pass."""

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

# The maximum of a lane that has seen no class yet: finite, so that inf - inf never arises.
_NOTHING = tl.constexpr(-3.4028234663852886e38)
# The exponential of minus this is 0: so far below the maximum a class has no probability.
_FAR = tl.constexpr(1e4)


@triton.jit
def _capped(x, softcap):  # type: ignore[no-untyped-def]
    """Return tanh(x / softcap), which is 1 where exp(2 x / softcap) is inf, and -1 where it is 0."""
    return 1.0 - 2.0 / (tl.exp(2.0 * x / softcap) + 1.0)


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(  # type: ignore[no-untyped-def]
    logits,
    row_stride,
    target,
    ce,
    norm,
    entropy,
    collision,
    rows,
    classes,
    ignore_index,
    softcap,
    IGNORES: tl.constexpr,
    CAPS: tl.constexpr,
    ENTROPY: tl.constexpr,
    COLLISION: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    y = tl.load(target + row)
    if IGNORES:  # noqa: SIM102 - settled when the kernel is compiled
        if y == ignore_index:
            tl.store(ce + row, 0.0)
            return
    start_of_row = logits + row * row_stride
    maximum = tl.full([BLOCK], _NOTHING, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    below = tl.zeros([BLOCK], tl.float32)  # sum of exp(x - maximum) (maximum - x)
    squares = tl.zeros([BLOCK], tl.float32)  # sum of exp(x - maximum)^2
    for first in tl.range(0, classes, BLOCK, num_stages=STAGES):
        column = first + tl.arange(0, BLOCK)
        x = tl.load(start_of_row + column, mask=column < classes, other=-float("inf")).to(tl.float32)
        if CAPS:
            x = tl.where(column < classes, softcap * _capped(x, softcap), -float("inf"))
        # Online softmax in every lane with one exp per logit: the smaller of x and the maximum so far is scaled.
        scaled = tl.exp(-tl.abs(x - maximum))
        if ENTROPY:
            apart = tl.minimum(tl.abs(x - maximum), _FAR)
            below = tl.where(x > maximum, (below + apart * total) * scaled, below + apart * scaled)
        if COLLISION:
            squares = tl.where(x > maximum, squares * scaled * scaled + 1.0, squares + scaled * scaled)
        total = tl.where(x > maximum, total * scaled + 1.0, total + scaled)
        maximum = tl.maximum(maximum, x)
    top = tl.max(maximum, axis=0)
    scaled = tl.exp(maximum - top)
    whole = tl.sum(total * scaled, axis=0)
    log_total = tl.log(whole)
    if ENTROPY:
        below += tl.minimum(top - maximum, _FAR) * total
        tl.store(entropy + row, log_total + tl.sum(below * scaled, axis=0) / whole)
    if COLLISION:
        tl.store(collision + row, tl.sum(squares * scaled * scaled, axis=0) / (whole * whole))
    x_y = tl.load(start_of_row + y, mask=(y >= 0) & (y < classes), other=float("nan")).to(tl.float32)
    if CAPS:
        x_y = softcap * _capped(x_y, softcap)
    tl.store(ce + row, log_total - (x_y - top))
    tl.store(norm + row, top)
    tl.store(norm + rows + row, log_total)


@triton.jit  # type: ignore[untyped-decorator]
def backward_kernel(  # type: ignore[no-untyped-def]
    logits,
    row_stride,
    out,
    out_row_stride,
    target,
    norm,
    rows,
    factor,
    at_target,
    classes,
    ignore_index,
    softcap,
    IGNORES: tl.constexpr,
    CAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < classes
    result = out + row * out_row_stride + column
    y = tl.load(target + row)
    scale = tl.load(factor + row)
    if IGNORES:
        scale = tl.where(y == ignore_index, 0.0, scale)
    if scale == 0.0:  # nothing to read
        tl.store(result, tl.zeros([BLOCK], tl.float32), mask=inside)
        return
    x = tl.load(logits + row * row_stride + column, mask=inside, other=0.0).to(tl.float32)
    if CAPS:
        t = _capped(x, softcap)
        x = softcap * t
    # Not x - logsumexp: where logits are large, the sum maximum + log(total) has lost the digits of log(total).
    log_p = x - tl.load(norm + row) - tl.load(norm + rows + row)
    gradient = tl.where(column == y, tl.load(at_target + row), scale * tl.exp(log_p))
    if CAPS:
        gradient *= 1.0 - t * t
    tl.store(result, gradient, mask=inside)


# Bytes of logits that a program and each of its warps read at a time, and how many loads run ahead; chosen with
# benchmarks/loss_gpu.py --tune.
FORWARD = (4096, 1024, 3)
BACKWARD = (4096, 1024)


def block(logits: Tensor, program: int, warp: int) -> tuple[int, int]:
    """Return the elements and the warps of a program."""
    size = logits.element_size()
    elements = min(program // size, max(128, triton.next_power_of_2(logits.shape[1])))
    return elements, max(1, min(32, elements * size // warp))
