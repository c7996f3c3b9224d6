"""The differentiable recurrence of many LSTM layers at once, with two kernel launches for each token on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crossfade import kernels


def recurrence(gates: Tensor, weight: Tensor) -> Tensor:
    """Return the outputs of n LSTM layers with their own weights and inputs, starting from a state of zeros.

    With (i, f, g, o) = gates_t + h_{t-1} W^T:  c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g) and
    h_t = sigmoid(o) tanh(c_t). Not differentiable twice where the kernels run.

    Args:
        gates: (n, time, batch, 4 * cells), contiguous: the contribution of inputs and biases, in nn.LSTM's order.
        weight: (n, 4 * cells, cells), each as ``nn.LSTM.weight_hh_l0``.

    Returns:
        (n, time, batch, cells). Products are in TF32 if ``torch.backends.cuda.matmul`` allows it.
    """
    if kernels.usable(gates) and gates.dtype == torch.float32:
        outputs: Tensor = _Recurrence.apply(gates, weight)
        return outputs
    return reference(gates, weight)


def reference(gates: Tensor, weight: Tensor) -> Tensor:
    """Return the same as :func:`recurrence`, computed by PyTorch for any device and type: the kernels' reference."""
    h = c = gates.new_zeros(len(gates), gates.shape[2], weight.shape[2])
    outputs = []
    for now in gates.unbind(1):
        i, f, g, o = torch.baddbmm(now, h, weight.mT).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, 1)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor) -> Tensor:
        from crossfade.kernels import triton_recurrence

        count, time, rows, _ = gates.shape
        # Index 0 holds the state before the first token.
        h, c = (gates.new_empty(count, time + 1, rows, weight.shape[2]) for _ in range(2))
        h[:, 0].zero_()
        c[:, 0].zero_()
        active = torch.empty_like(gates)
        triton_recurrence.forward(gates, weight, h, c, active)
        ctx.save_for_backward(weight, h, c, active)
        return h[:, 1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        from crossfade.kernels import triton_recurrence

        weight, h, c, active = ctx.saved_tensors
        d_gates = torch.empty_like(active)
        triton_recurrence.backward(weight, active, c, upstream.contiguous(), d_gates)
        # One product over all tokens: the state before a token is the one with its own index.
        return d_gates, d_gates.flatten(1, 2).mT @ h[:, :-1].flatten(1, 2)
