"""GPU kernels for the cross entropy of rows, in Triton: used for CUDA tensors where Triton is installed.

A loss is g(ce), so that the kernels only need to know ce: :func:`ce_rows` is differentiable, autograd applies g and the
reduction to a vector, and the gradient of a row is one number times (softmax - onehot).

* The forward kernel reads the logits once (online softmax) and returns ce of each row.
* The backward kernel reads and writes them once. With ``inplace=True`` the gradient takes over the logits' memory.

Both compute in float32, never make the host wait, and take rows that lie 2^31 elements and more apart.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from crossfade._tensors import is_observed, is_plain

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_MAX_CLASSES = 2**30


@functools.cache
def _devices() -> tuple[str, ...]:
    """Return the types of devices that Triton serves; tests set its interpreter, which runs the kernels on the CPU."""
    if importlib.util.find_spec("triton") is None:
        return ()
    return ("cuda", "cpu") if os.environ.get("TRITON_INTERPRET", "0") == "1" else ("cuda",)


def usable(tensor: Tensor) -> bool:
    """Return whether the kernels serve tensors of this type on this device."""
    return tensor.device.type in _devices() and tensor.dtype in _TYPES


def available(logits: Tensor, target: Tensor | None = None) -> bool:
    """Return whether :func:`ce_rows` serves these logits now, and ``target`` if it is given.

    It serves plain (N, C) logits of a served type with contiguous rows in eager mode.
    """
    return (
        not torch.compiler.is_compiling()
        and usable(logits)
        and is_plain(logits)
        and logits.dim() == 2
        and (logits.stride(1) == 1 or logits.shape[1] == 1)
        and 0 < logits.shape[1] <= _MAX_CLASSES
        and (target is None or _fits(logits, target))
        and not is_observed()
    )


def _fits(logits: Tensor, target: Tensor) -> bool:
    return target.shape == logits.shape[:1] and target.dtype == torch.int64 and target.device == logits.device


def ce_rows(logits: Tensor, target: Tensor, *, ignore_index: int = -100, inplace: bool = False) -> Tensor:
    """Return -log p_y of every row, differentiable: ``F.cross_entropy(logits.float(), target, reduction="none")``.

    Args:
        logits: (N, C), float32, bfloat16 or float16, for which :func:`available` holds.
        target: (N,) int64. A target that is neither a class nor ``ignore_index`` gives NaN: finding it earlier would
            make the host wait for the device.
        ignore_index: rows with this target give 0, and their gradient is 0 whatever the upstream gradient is.
        inplace: whether the backward pass overwrites the logits with the gradient. Nothing may read them afterwards:
            a second backward pass, or that of another operation, raises PyTorch's error about in-place changes.

    Returns:
        (N,) float32.

    Raises:
        ValueError: logits that :func:`available` refuses, or a target that isn't (N,) int64.
    """
    if not available(logits):
        raise ValueError(
            "ce_rows serves eager (N, C) logits in float32, bfloat16 or float16 with contiguous rows on a CUDA device, "
            f"got {tuple(logits.shape)} {logits.dtype} on {logits.device}: take torch.nn.functional.cross_entropy"
        )
    if not _fits(logits, target):
        raise ValueError(
            f"target must be int64 of shape ({logits.shape[0]},) on {logits.device}, got {target.dtype} of shape "
            f"{tuple(target.shape)} on {target.device}"
        )
    ce: Tensor = _CrossEntropyRows.apply(logits, target, ignore_index, inplace, ())[0]
    return ce


def ce_and_statistics(
    logits: Tensor, target: Tensor, *, ignore_index: int = -100, asked: Collection[str] = ()
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return :func:`ce_rows`, the rows' logsumexp, which is differentiable, too, and their statistics."""
    ce, lse, *found = _CrossEntropyRows.apply(logits, target, ignore_index, False, tuple(asked))
    return ce, lse, dict(zip(asked, found, strict=True))


def forward(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = None,
    softcap: float | None = None,
    asked: Collection[str] = (),
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return ce (N,), the softmax's norm (2, N) and statistics of the rows, without gradient, 0 where ignored.

    The norm is the row's maximum and log(sum(exp(logits - maximum))): their sum is logsumexp. All are float32.

    Args:
        asked: the names of the statistics, which are those of :class:`crossfade._row.Row`.
    """
    from crossfade.kernels import triton_cross_entropy

    rows, classes = logits.shape
    ce = torch.empty(rows, dtype=torch.float32, device=logits.device)
    norm = torch.zeros(2, rows, dtype=torch.float32, device=logits.device)
    known = {name: torch.zeros_like(ce) for name in ("entropy", "collision") if name in asked}
    if rows:
        *launch, stages = triton_cross_entropy.FORWARD
        options = _options(*triton_cross_entropy.block(logits, *launch), ignore_index, softcap)
        options |= {"STAGES": stages, "ENTROPY": "entropy" in asked, "COLLISION": "collision" in asked}
        triton_cross_entropy.forward_kernel[(rows,)](
            logits,
            logits.stride(0),
            target.contiguous(),
            ce,
            norm,
            known.get("entropy", ce),  # never written if it wasn't asked for
            known.get("collision", ce),
            rows,
            classes,
            **options,
        )
    # Where y has the largest logit, ce is log(sum(exp(logits - maximum))) to the last bit.
    return ce, norm, known | {"max_p": torch.exp(-norm[1]), "is_max": ce <= norm[1]}


def backward(
    logits: Tensor,
    target: Tensor,
    norm: Tensor,
    ce: Tensor,
    factor: Tensor,
    *,
    out: Tensor,
    of_lse: Tensor | None = None,
    ignore_index: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return factor * (softmax - onehot) + of_lse * softmax, (N, C), written to ``out``, which may be ``logits``.

    The columns may be only some of the classes: ``target`` then counts from the first one, and may lie outside.
    """
    from crossfade.kernels import triton_cross_entropy

    rows, classes = logits.shape
    # expm1, not p - 1, keeps the digits of 1 - p_y where p_y is nearly 1.
    at_target = torch.expm1(-ce).mul_(factor)
    if of_lse is not None:
        factor, at_target = factor + of_lse, at_target + of_lse * torch.exp(-ce)
    if rows:
        size, warps = triton_cross_entropy.block(logits, *triton_cross_entropy.BACKWARD)
        triton_cross_entropy.backward_kernel[(rows, -(-classes // size))](
            logits,
            logits.stride(0),
            out,
            out.stride(0),
            target.contiguous(),
            norm.contiguous(),
            rows,
            factor.contiguous(),
            at_target,
            classes,
            **_options(size, warps, ignore_index, softcap),
        )
    return out


def _options(size: int, warps: int, ignore_index: int | None, softcap: float | None) -> dict[str, Any]:
    """Return the arguments that both kernels have. A number that stands for None is never read."""
    return {
        "ignore_index": ignore_index or 0,
        "softcap": float(softcap or 1.0),
        "IGNORES": ignore_index is not None,
        "CAPS": softcap is not None,
        "BLOCK": size,
        "num_warps": warps,
    }


class _CrossEntropyRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, inplace: bool, asked: tuple[str, ...]
    ) -> tuple[Tensor, ...]:
        ce, norm, known = forward(logits, target, ignore_index=ignore_index, asked=asked)
        statistics = [known[name] for name in asked]
        ctx.mark_non_differentiable(*statistics)
        ctx.save_for_backward(logits, target, norm, ce)
        ctx.ignore_index, ctx.inplace = ignore_index, inplace
        ctx.set_materialize_grads(False)
        return ce, norm.sum(0), *statistics

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, of_lse: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        logits, target, norm, ce = ctx.saved_tensors
        upstream = torch.zeros_like(ce) if upstream is None else upstream
        if torch.is_grad_enabled():  # the gradient is to be differentiated: use PyTorch's operations
            wide, ignored = logits.float(), target == ctx.ignore_index
            again = torch.nn.functional.cross_entropy(wide, target, ignore_index=ctx.ignore_index, reduction="none")
            outputs, weights = [again], [upstream]
            if of_lse is not None:
                outputs, weights = [again, wide.logsumexp(1).masked_fill(ignored, 0.0)], [upstream, of_lse]
            return torch.autograd.grad(outputs, logits, weights, create_graph=True)[0], *[None] * 4
        out = logits if ctx.inplace else torch.empty_like(logits)
        if ctx.inplace:
            torch.autograd.graph.increment_version(logits)
        gradient = backward(logits, target, norm, ce, upstream, of_lse=of_lse, out=out, ignore_index=ctx.ignore_index)
        return gradient, *[None] * 4
