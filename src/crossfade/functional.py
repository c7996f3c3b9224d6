r"""The loss family as functions with :func:`torch.nn.functional.cross_entropy`'s contract.

Every function takes ``logits`` (N, C), (N, C, d1, ...) or (C,); ``target`` as class indices (N), (N, d1, ...) or () in
[0, C), or as class probabilities of the logits' shape; and by keyword

* ``weight``: (C,) factors of the classes, outside p. With ``"mean"`` the sum is divided by the targets' weights.
* ``ignore_index``: a target value that adds neither loss nor gradient nor to the mean (class indices only).
* ``label_smoothing``: in [0, 1], the share of the target distribution that is spread over all classes.
* ``reduction``: ``"mean"``, ``"sum"`` or ``"none"``.

Every function of the form g(ce), which are all but the last two, also takes

* ``softcap``: logits become ``softcap * tanh(logits / softcap)``, as in Gemma 2.
* ``z_loss``: adds ``z_loss * logsumexp(logits)^2`` to each row, as in PaLM (Liger's ``lse_square_scale``), whatever
  the row's class weight is: its mean is over the rows that aren't ignored.
* ``shift``: ``shift=1`` is for causal language models. Logits are then (..., T, C), the classes last, and the target is
  (..., T) or (..., T, C): position t predicts the target at t + 1, and ``"none"`` gives (..., T - 1). Any k below T:
  the loss is that of ``logits[..., :-k, :]`` and ``target[..., k:]``, row by row.
* ``return_stats``: whether to return the pair (loss, :class:`LossStats`), with each row's ce, p, entropy, hit or miss,
  row weight and more. (The types of :func:`probability_loss` and :func:`crossfade_loss` say so.)

With ce_c = -log p_c and a target distribution v (the one-hot vector of an index, smoothed if asked for), a loss of
the family is  sum_c weight_c v_c g(ce_c)  for a function g: with g(ce) = ce it is ``F.cross_entropy``, with
g(ce) = 1 - p it is 1 - <v, p>, the expected zero-one loss. For a class index y it is weight_y g(ce_y), and its
gradient with respect to the logits is weight_y g'(ce_y) (softmax - onehot).

Half precision: float16 and bfloat16 logits give a float32 loss. In float32 are the softmax and ce of every row, g and
its derivative, class weights, target distributions and their smoothing, all sums, and likewise ``complement_entropy``
(for target distributions in float64), ``mpce_loss`` and ``MaxMahalanobisCenterLoss``. Only the logits' gradient has
their own type: it is rounded once, and in large bfloat16 batches on a CPU again when the upstream gradient scales it.

Bad shapes, targets and
reductions raise what ``F.cross_entropy`` raises; a bad option, such as gamma < 0, raises ``ValueError``. Equation and
table numbers are those of Battash, Hazan and Wolf, "Mixing between the cross entropy and the expectation loss terms".
"""

from __future__ import annotations

from typing import Literal, Unpack, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade import _options, objectives
from crossfade._linear import linear_crossfade_loss as linear_crossfade_loss
from crossfade._options import LossOptions, MixtureOptions
from crossfade._reduction import CrossEntropyOptions, Reduction, reduce_classes, reduce_rows
from crossfade._stats import LossStats as LossStats
from crossfade._tensors import as_index, check_per_class, class_dim, full_precision, is_soft, refuse_sharded
from crossfade._transforms import Transform, check_parameter


@overload
def probability_loss(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    *,
    return_stats: Literal[False] = False,
    **options: Unpack[LossOptions],
) -> Tensor: ...


@overload
def probability_loss(
    g: Transform, logits: Tensor, target: Tensor, *, return_stats: Literal[True], **options: Unpack[LossOptions]
) -> tuple[Tensor, LossStats]: ...


def probability_loss(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    softcap: float | None = None,
    z_loss: float = 0.0,
    shift: int = 0,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, LossStats]:
    """Return any loss g(ce) of the cross entropy ce = -log p_y, or g(ce, row) of ce and statistics of its row.

    Every loss of the family is made this way, with a g of its own: see :mod:`crossfade.objectives`.

    Args:
        g: an elementwise, differentiable function of ce >= 0, or of ce and a :class:`crossfade.objectives.Row`. It may
            be infinite at ce = inf (p_y = 0), but not NaN there; ``crossfade.testing.check_loss`` checks that.
        logits, target, weight, ignore_index, label_smoothing, reduction, softcap, z_loss, shift, return_stats: as in
            the module's description.

    Raises:
        ValueError: g's result doesn't have the shape of its argument.

    >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    >>> squared = probability_loss(lambda ce: torch.expm1(-ce) ** 2, logits, target)  # (1 - p)^2
    >>> round(squared.item(), 4)
    0.2743
    """
    options = CrossEntropyOptions(weight, ignore_index, label_smoothing, reduction)
    return _options.loss(g, logits, target, options, softcap, z_loss, shift, return_stats)


@overload
def crossfade_loss(
    logits: Tensor, target: Tensor, *, return_stats: Literal[False] = False, **options: Unpack[MixtureOptions]
) -> Tensor: ...


@overload
def crossfade_loss(
    logits: Tensor, target: Tensor, *, return_stats: Literal[True], **options: Unpack[MixtureOptions]
) -> tuple[Tensor, LossStats]: ...


@overload
def crossfade_loss(
    logits: Tensor, target: Tensor, *, return_stats: bool, **options: Unpack[MixtureOptions]
) -> Tensor | tuple[Tensor, LossStats]: ...


def crossfade_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    softcap: float | None = None,
    z_loss: float = 0.0,
    shift: int = 0,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, LossStats]:
    """Return alpha * CE + beta * EL, eq. (12). Its row weight is alpha + beta p, eq. (13).

    Args:
        alpha, beta: numbers, or tensors with one element (a schedule then changes them without recompiling; they may
            require a gradient). alpha = 0 turns CE off, also where p_y = 0: the loss is then beta, not NaN.
        logits, target, weight, ignore_index, label_smoothing, reduction, softcap, z_loss, shift, return_stats: as in
            the module's description.

    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> round(crossfade_loss(logits, target, alpha=1.0, beta=2.0).item(), 4)  # 0.1269 + 2 * 0.1192
    0.3653
    """
    g = objectives.mixture(alpha, beta)
    options = CrossEntropyOptions(weight, ignore_index, label_smoothing, reduction)
    return _options.loss(g, logits, target, options, softcap, z_loss, shift, return_stats)


def expectation_loss(
    logits: Tensor,
    target: Tensor,
    **options: Unpack[LossOptions],
) -> Tensor:
    """Return EL = 1 - p_y, eq. (9), the expected zero-one loss. Its row weight is p, eq. (10).

    For soft targets it is 1 - <v, p>.

    >>> round(expectation_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
    0.1192
    """
    return probability_loss(objectives.expectation(), logits, target, **options)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float = 0.25,
    **options: Unpack[LossOptions],
) -> Tensor:
    """Return alpha (1 - p)^gamma ce, eq. (2) with the factor alpha of Lin et al. 2017, for softmax probabilities.

    ``torchvision.ops.sigmoid_focal_loss`` is the binary, per-class-sigmoid form of the same idea: another function.
    """
    return probability_loss(objectives.focal(gamma, alpha), logits, target, **options)


def mae_loss(
    logits: Tensor,
    target: Tensor,
    **options: Unpack[LossOptions],
) -> Tensor:
    """Return ||onehot - p||_1 = 2 (1 - p), eq. (3). For soft targets its expectation over labels, 2 (1 - <v, p>)."""
    return probability_loss(objectives.mae(), logits, target, **options)


def generalized_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    q: float = 0.7,
    **options: Unpack[LossOptions],
) -> Tensor:
    """Return L_q = (1 - p^q) / q, Zhang and Sabuncu 2018: CE at q = 0, EL at q = 1. Its row weight is p^q."""
    check_parameter("q", q, "in [0, 1] (q = 0 is the cross entropy, q = 1 the expectation loss)", lambda x: 0 <= x <= 1)
    return probability_loss(objectives.power(q), logits, target, **options)


def truncated_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    q: float = 0.7,
    k: float = 0.5,
    **options: Unpack[LossOptions],
) -> Tensor:
    """Return truncated L_q, Zhang and Sabuncu 2018: where p <= k it is the constant (1 - k^q) / q, without gradient."""
    return probability_loss(objectives.truncated(q, k), logits, target, **options)


def tamed_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    **options: Unpack[LossOptions],
) -> Tensor:
    """Return ((1 + ce)^(1 - alpha) - 1 / (1 - alpha)) / (1 - alpha), eq. (4) as printed.

    Its row weight is (1 + ce)^(-alpha). The printed constant makes the loss of a perfect prediction
    -alpha / (1 - alpha)^2 and not 0; the gradient is unaffected.

    Raises:
        ValueError: alpha = 1, where eq. (4) divides by 0.
    """
    return probability_loss(objectives.tamed(alpha), logits, target, **options)


def poly_loss(
    logits: Tensor,
    target: Tensor,
    *,
    epsilon: float = 1.0,
    **options: Unpack[LossOptions],
) -> Tensor:
    """Return Poly-1, ce + epsilon (1 - p), Leng et al., ICLR 2022: eq. (12) with alpha = 1, beta = epsilon."""
    return probability_loss(objectives.poly(epsilon), logits, target, **options)


def complement_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return -sum_{j != y} r_j log r_j with r_j = p_j / (1 - p_y), eq. (6): the entropy of the other classes, in nats.

    Complement objective training (Chen et al. 2019) *maximises* it, in a second step after each step on CE: there,
    minimise ``-complement_entropy(logits, target) / logits.shape[1]``. The gradient with respect to the target's own
    logit is 0. Without another class with p > 0 the entropy is 0. For soft targets the expectation over labels, in
    float64.
    """
    refuse_sharded(logits, "complement_entropy")
    options = CrossEntropyOptions(weight, ignore_index, label_smoothing, reduction)
    target = as_index(target)
    logits32 = full_precision(logits)
    if not is_soft(logits, target) and label_smoothing <= 0:
        dim = class_dim(logits32)
        check_per_class("weight", weight, logits.shape[dim])
        # F.cross_entropy refuses bad targets here, before anything is scattered.
        F.cross_entropy(logits32.detach(), target, ignore_index=ignore_index, reduction="none")
        index = target.masked_fill(target == ignore_index, 0).unsqueeze(dim)
        entropy = _entropy_of_others(logits32, _one_hot(logits32, index))
        return reduce_rows(entropy.squeeze(dim), target, options)
    scores = -_complement_entropies(logits32.double()).to(logits32.dtype)
    return reduce_classes(scores, target, options)


def _information(log_p: Tensor) -> Tensor:
    """Return -p log p, also where p = 0."""
    return -log_p.exp() * log_p.masked_fill(log_p == float("-inf"), 0.0)


def _one_hot(logits: Tensor, index: Tensor) -> Tensor:
    """Return the mask of one class of each row. The index has the logits' dimensions."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter(class_dim(logits), index, True)


def _entropy_of_others(logits: Tensor, own: Tensor) -> Tensor:
    """Return eq. (6) for one class of each row as the target, with a dimension of size 1 for the classes.

    The other classes' distribution is a softmax without the target's logit: no 1 - p_y, nothing cancels.
    """
    dim = class_dim(logits)
    others = logits.masked_fill(own, float("-inf"))
    alone = (others == float("-inf")).all(dim, keepdim=True)
    log_r = torch.log_softmax(others.masked_fill(alone, 0.0), dim)
    return _information(log_r).sum(dim, keepdim=True).masked_fill(alone, 0.0)


def _complement_entropies(logits: Tensor) -> Tensor:
    """Return eq. (6) for every class as the target: (sum_{j != y} p_j ce_j) / (1 - p_y) + log(1 - p_y).

    The likeliest class has a softmax of its own: only there does 1 - p_y cancel.
    """
    dim = class_dim(logits)
    likeliest = _one_hot(logits, logits.argmax(dim, keepdim=True))
    log_p = torch.log_softmax(logits, dim)
    terms = _information(log_p)
    rest = (1.0 - log_p.exp()).masked_fill(likeliest, 1.0)
    entropies = ((terms.sum(dim, keepdim=True) - terms) / rest + rest.log()).clamp(min=0.0)
    return torch.where(likeliest, _entropy_of_others(logits, likeliest), entropies)


def mpce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return (max_j p_j - p_y) ce, eq. (7): 0 and without gradient wherever the prediction is right.

    The authors of eq. (7) published no code, and the paper reports that networks trained on it from scratch don't
    converge: with many classes and nearly uniform p the loss starts near 0.
    """
    refuse_sharded(logits, "mpce_loss")
    dim = class_dim(logits)
    log_p = torch.log_softmax(full_precision(logits), dim)
    p = log_p.exp()
    # A factor -inf would make the gradient NaN, also where the loss doesn't depend on the product.
    masked = log_p == float("-inf")
    # Not amax: its gradient looks for the maximum again, and a compiler that computes p twice may find none.
    scores = (p.max(dim, keepdim=True).values - p) * log_p.masked_fill(masked, 0.0)
    scores = scores.masked_fill(masked, float("-inf"))
    return reduce_classes(scores, target, CrossEntropyOptions(weight, ignore_index, label_smoothing, reduction))
