"""Criteria with the gradients of other packages' losses, for users who come from those and want to fade.

All take the options of the losses in :mod:`crossfade.functional` by keyword, and are called with (logits, target). DFT
and Poly-1 are a ``CrossfadeLoss``: exchange the schedule to fade.

``torchvision.ops.sigmoid_focal_loss`` is another function, a binary loss on each class's sigmoid. For one binary
logit z it is ``from_focal(gamma, weight=tensor([1 - alpha, alpha]), reduction="sum")`` on the two logits (0, z); for
several classes it is a sum of such losses, and no loss on the softmax has its gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, Unpack, overload

from torch import Tensor

from crossfade._options import LossOptions
from crossfade.functional import focal_loss, generalized_cross_entropy, probability_loss
from crossfade.losses import CrossfadeLoss
from crossfade.objectives import dft
from crossfade.schedules import expectation, fixed


@overload
def from_dft(*, reports_p_ce: Literal[False] = False, **options: Unpack[LossOptions]) -> CrossfadeLoss: ...


@overload
def from_dft(*, reports_p_ce: Literal[True], **options: Unpack[LossOptions]) -> Callable[[Tensor, Tensor], Tensor]: ...


def from_dft(
    *, reports_p_ce: bool = False, **options: Unpack[LossOptions]
) -> CrossfadeLoss | Callable[[Tensor, Tensor], Tensor]:
    """Return dynamic fine-tuning (Wu et al. 2025), -p.detach() log p: its gradient is that of EL = 1 - p, eq. (9).

    TRL's name for it is ``SFTConfig(loss_type="dft")``. The values differ: DFT reports p ce, whose gradient isn't the
    one that is applied; this reports 1 - p, whose gradient is, or with ``reports_p_ce=True`` DFT's value (as a function
    without a schedule). Where p is small at first, the row weight p (the factor of CE's gradient) is too small to learn
    from; ``CrossfadeLoss(gradual())`` begins with the row weight 1 + p.

    >>> import torch
    >>> batch = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> round(from_dft()(*batch).item(), 4), round(from_dft(reports_p_ce=True)(*batch).item(), 4)
    (0.1192, 0.1118)
    """
    return partial(probability_loss, dft(), **options) if reports_p_ce else CrossfadeLoss(expectation(), **options)


def from_poly(epsilon: float = 1.0, **options: Unpack[LossOptions]) -> CrossfadeLoss:
    """Return Poly-1 (Leng et al. 2022), ce + epsilon (1 - p): eq. (12) with alpha = 1 and beta = epsilon throughout.

    Its row weight is 1 + epsilon p: epsilon = 1 is the paper's F = 0, and epsilon = 2 is F = 0.25 (eq. 14). timm's name
    for it is ``PolyCrossEntropy(epsilon)``, whose default is 2: ``from_poly(2.0)``. Poly1CrossEntropyLoss of
    abhuse/polyloss-pytorch has ``reduction="none"`` as its default, and its ``weight`` multiplies ce alone, with a mean
    over N: ``crossfade_loss(..., beta=0.0, weight=weight, reduction="none") + epsilon * expectation_loss(...,
    reduction="none")``. Here ``weight`` multiplies both terms, and the mean divides by the targets' weights.

    >>> import torch
    >>> round(from_poly(2.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)  # 0.1269 + 2 * 0.1192
    0.3653
    """
    return CrossfadeLoss(fixed(1.0, epsilon), **options)


def from_focal(
    gamma: float = 2.0, alpha: float = 1.0, **options: Unpack[LossOptions]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the multi-class focal loss on the softmax (Lin et al. 2017), alpha (1 - p)^gamma ce.

    Its row weight is alpha (1 - p)^(gamma - 1) (1 - p + gamma p ce). Eq. (2) has alpha = 1. A list of alphas, one a
    class, as some implementations take, is ``weight=`` here.

    >>> import torch
    >>> round(from_focal()(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)  # 0.1192^2 * 0.1269
    0.0018
    """
    return partial(focal_loss, gamma=gamma, alpha=alpha, **options)


def from_gce(q: float = 0.7, **options: Unpack[LossOptions]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the generalized cross entropy (Zhang and Sabuncu 2018), (1 - p^q) / q: CE as q goes to 0, EL at q = 1.

    Its row weight is p^q.

    >>> import torch
    >>> round(from_gce(1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
    0.1192
    """
    return partial(generalized_cross_entropy, q=q, **options)
