"""The readable reference of the fused loss: the logits, then the loss of the family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf


def cubed(ce: Tensor) -> Tensor:
    """A user's own g: (1 - p)^3."""
    return (-torch.expm1(-ce)) ** 3


def reference_loss(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    alpha: Any = 1.0,
    beta: Any = 1.0,
    sample_weight: Tensor | None = None,
    softcap: float | None = None,
    z_loss: float = 0.0,
    g: Callable[[Tensor], Tensor] | None = None,
    reduction: str = "mean",
    memory_budget_mb: float | None = None,
    **options: Any,
) -> Tensor:
    logits = F.linear(hidden, linear_weight, bias).reshape(-1, linear_weight.shape[0])
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    soft = target.is_floating_point()
    flat = target.reshape(-1, *target.shape[-1:] if soft else ())
    valid = torch.ones_like(logits[:, 0], dtype=torch.bool) if soft else flat != options.get("ignore_index", -100)

    def loss(how: Any) -> Tensor:
        if g is not None:
            return cf.probability_loss(g, logits, flat, reduction=how, **options)
        return cf.crossfade_loss(logits, flat, alpha=alpha, beta=beta, reduction=how, **options)

    lse2 = torch.where(valid, logits.logsumexp(1) ** 2, 0.0)
    if sample_weight is None:
        extra = z_loss * {"none": lse2, "sum": lse2.sum(), "mean": lse2.sum() / valid.sum()}[reduction]
        total = loss(reduction) + (extra if z_loss else 0.0)
        return total.reshape(hidden.shape[:-1]) if reduction == "none" else total
    samples = sample_weight.reshape(-1)
    rows, extra = loss("none") * samples, z_loss * lse2 * samples
    if reduction != "mean":
        rows = rows + extra
        return rows.reshape(hidden.shape[:-1]) if reduction == "none" else rows.sum()
    weight = options.get("weight")
    mass = torch.ones_like(rows) if weight is None or soft else weight[flat.masked_fill(~valid, 0)]
    return rows.sum() / (mass * samples)[valid].sum() + extra.sum() / samples[valid].sum()


def problem(
    rows: int = 23,
    dim: int = 6,
    classes: int = 11,
    *,
    bias: bool = False,
    ignored: float = 0.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return hidden, linear_weight, bias or None, and target."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()

    target = torch.randint(classes, (rows,), generator=generator)
    target[torch.rand(rows, generator=generator) < ignored] = -100
    return normal(rows, dim), normal(classes, dim), normal(classes) if bias else None, target


def gradients(loss: Tensor, of: Sequence[Tensor | None], upstream: Tensor | None = None) -> tuple[Tensor, ...]:
    upstream = torch.ones_like(loss) if upstream is None else upstream
    return torch.autograd.grad(loss, [x for x in of if x is not None], upstream, retain_graph=True)
