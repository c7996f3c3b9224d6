"""The loss of every function here: logits -> ce = -log p_y -> g(ce), and the gradient g'(ce) * (softmax - onehot).

A loss has three forms, and :func:`probability` chooses among them:

* :func:`by_class` applies g to -log p of every class and lets ``F.nll_loss`` pick, weigh, ignore and reduce. It is the
  definition, sum_c w_c v_c g(-log p_c) with v the target distribution, and serves soft targets.
* :func:`by_row` applies g to the vector of ce. It serves ``torch.compile``, ``torch.func``, GPUs and DTensors.
* ``_fast.fast`` uses one N x C buffer for the softmax and for the gradient. It serves large batches on the CPU in eager
  mode, with soft targets those of a mixture.

For g(ce) = ce the first two give the bits of ``F.cross_entropy``; the third agrees within rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade import _sharded, kernels
from crossfade._fast import NARROW, fast, fast_applies, pieces
from crossfade._reduction import CrossEntropyOptions, reduce_classes, reduce_rows
from crossfade._row import row_of
from crossfade._tensors import (
    as_index,
    check_per_class,
    check_smoothing,
    class_dim,
    full_precision,
    is_half,
    is_observed,
    is_sharded,
    is_soft,
)
from crossfade._transforms import Focal, Mixture, Transform, evaluate, probe, takes_row

# Up to this many logits the time goes into autograd's nodes, and by_class has the fewest (benchmarks/loss_cpu.py). On
# narrow rows log_softmax, which it doesn't take by columns, soon costs more.
_FEW_LOGITS, _FEW_ON_NARROW_ROWS = 8_192, 2_048


def probability(g: Transform, logits: Tensor, target: Tensor, options: CrossEntropyOptions) -> Tensor:
    """Return the loss g(ce) in the form that serves these arguments, which are those of ``F.cross_entropy``."""
    few = not torch.compiler.is_compiling() and _has_few(logits)
    if few and isinstance(g, Mixture) and g.is_fixed and not is_sharded(logits):
        return by_class(g, logits, target, options)
    target = as_index(target)
    soft = not options.label_smoothing <= 0 or is_soft(logits, target)  # by_class refuses NaN
    if is_sharded(logits):
        return by_shard(g, logits, target, options)

    def readable(logits: Tensor) -> Tensor:
        if soft:
            return by_class(g, logits, target, options)
        return by_row(g, logits, target, options)

    if (not few or isinstance(g, Focal)) and fast_applies(logits, target, options.weight):
        loss = fast(g, logits, target, options, readable)
        if loss is not None:
            return loss
    return readable(logits)


def _has_few(logits: Tensor) -> bool:
    narrow = logits.dim() > 0 and logits.shape[-1] < NARROW
    return logits.numel() <= (_FEW_ON_NARROW_ROWS if narrow else _FEW_LOGITS)


def by_row(g: Transform, logits: Tensor, target: Tensor, options: CrossEntropyOptions) -> Tensor:
    """Return the loss for class indices without label smoothing, with g applied to the vector of ce."""
    weight, ignore_index, _, _ = options
    check_per_class("weight", weight, logits.shape[class_dim(logits)])
    if kernels.available(logits, target):
        rows, _ = rows_by_kernel(g, logits, target, ignore_index)
    else:
        ce = _cross_entropies(logits, target, ignore_index)
        rows = evaluate(g, ce, row_of(logits, target, ignore_index) if takes_row(g) else None)
    return reduce_rows(rows, target, options)


def by_shard(g: Transform, logits: Tensor, target: Tensor, options: CrossEntropyOptions) -> Tensor:
    """Return the loss of logits that are sharded over the classes, as a DTensor."""
    weight, ignore_index, label_smoothing, reduction = options
    check_per_class("weight", weight, logits.shape[class_dim(logits)])
    check_smoothing(label_smoothing)
    if is_soft(logits, target):
        raise ValueError(
            "logits that are a DTensor need class indices, as under loss_parallel, got class probabilities"
        )
    rows, target, mass = _sharded.losses(g, logits, target, options)
    mean = mass is not None and reduction == "mean"
    loss = reduce_rows(rows, target, CrossEntropyOptions(None, ignore_index, 0.0, "sum" if mean else reduction))
    if mass is not None and mean:
        loss = loss / mass.sum()
    return _sharded.replicated(loss, logits)


def rows_by_kernel(g: Transform, logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return g of each row, and its logsumexp, where the GPU kernels serve."""
    if not takes_row(g):
        ce, lse, _ = kernels.ce_and_statistics(logits, target, ignore_index=ignore_index)
        return evaluate(g, ce), lse
    asked = probe(g, logits.device)[1]
    ce, lse, found = kernels.ce_and_statistics(logits, target, ignore_index=ignore_index, asked=asked)
    return evaluate(g, ce, row_of(logits, target, ignore_index, **found)), lse


def _cross_entropies(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    whole = not is_half(logits.dtype) or logits.dim() < 2 or logits.shape[:1] != target.shape[:1]
    if whole or (torch.is_grad_enabled() and logits.requires_grad) or is_observed():
        return F.cross_entropy(full_precision(logits), target, ignore_index=ignore_index, reduction="none")
    # Half-precision logits without a gradient: piece by piece, so that they are never all there in float32.
    rows = torch.empty(target.shape, dtype=torch.float32, device=logits.device)
    for at in pieces(logits):
        rows[at] = F.cross_entropy(logits[at].float(), target[at], ignore_index=ignore_index, reduction="none")
    return rows


def by_class(g: Transform, logits: Tensor, target: Tensor, options: CrossEntropyOptions) -> Tensor:
    """Return the loss by its definition, sum_c w_c v_c g(-log p_c)."""
    log_p = torch.log_softmax(full_precision(logits), class_dim(logits))
    scores = g.of_log_probability(log_p) if isinstance(g, Mixture) else -evaluate(g, -log_p, row_of(logits))
    return reduce_classes(scores, target, options)
