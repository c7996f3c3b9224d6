"""Training methods that a comparison can name, and which epochs two of them train alike.

A method is a schedule for CE and EL (eq. 12), a loss g(ce), whose parameters may follow a schedule, too, another loss
of the network's outputs, or another way to step.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from crossfade.errors import UserError
from crossfade.schedules import Weights, constant, cross_entropy, expectation, gradual, ramp, switch, values_at

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from crossfade._reduction import Reduction
    from crossfade._row import Row
    from crossfade._transforms import Function
    from crossfade.losses import MaxMahalanobisCenterLoss


@dataclass(frozen=True)
class Method:
    """One way to train.

    Args:
        name: What the command line and the store call it.
        title: What tables call it.
        g: The loss of an example as an elementwise function of its cross entropy ce = -log p_y. None for the mixture
            alpha ce + beta (1 - p) of eq. (12).
        schedule: Alpha and beta of the mixture, or the parameters of ``g_of``, at each progress. Not used with ``g``
            and ``loss``.
        note: What a reader should know about it.
        loss: A loss of the network's outputs (N, C) and labels that isn't a function of ce, called with ``reduction``.
        scores: The classes' scores (N, C) as a function of the outputs, where they aren't the outputs themselves.
        old_name: What the keys of trials call a method that was once for images alone; they hold its schedule, too.
        g_of: A function of the parameters ``names`` that returns the g of another loss than the mixture, as
            ``crossfade.Fade`` takes it.
        names: The names of the schedule's values.
    """

    name: str
    title: str
    g: Function | None = None
    schedule: Callable[[float], Sequence[float]] = field(default_factory=cross_entropy)
    note: str = ""
    loss: Callable[..., Tensor] | None = None
    scores: Callable[[Tensor], Tensor] | None = None
    old_name: str = ""
    g_of: Callable[..., Any] | None = None
    names: tuple[str, ...] = ("alpha", "beta")

    @property
    def own(self) -> Callable[..., Any] | None:
        """What makes it another loss than the mixture."""
        return self.g or self.g_of or self.loss

    @cached_property  # one object, by which engines tell losses apart
    def criterion(self) -> Callable[..., Tensor] | None:
        """The loss of outputs (N, C) and labels, called with ``reduction``; None for the mixture."""
        if self.g_of is not None:
            return Scheduled(self.g_of, self.names)
        if self.g is None:
            return self.loss
        from crossfade.functional import probability_loss

        return partial(probability_loss, self.g)

    def transform(self, values: Sequence[Any]) -> Function:
        """Return ``g``, or that of ``g_of`` with these values of the schedule, numbers or 0-dim tensors."""
        assert self.g is not None or self.g_of is not None
        return self.g if self.g_of is None else self.g_of(**dict(zip(self.names, values, strict=True)))  # type: ignore[return-value]

    def values(self) -> tuple[tuple[float, ...], ...]:
        """Return different values of the schedule, from its start to its end."""
        return tuple(dict.fromkeys(tuple(map(float, self.schedule(sixth / 6))) for sixth in range(7)))

    def class_scores(self, outputs: Tensor) -> Tensor:
        """Return the classes' scores: their softmax are the probabilities, the highest is the prediction."""
        return outputs if self.scores is None else self.scores(outputs)


@dataclass(frozen=True)
class Scheduled:
    """The loss g(ce) whose parameters have a schedule, as a function of outputs, labels and the parameters' values."""

    g_of: Callable[..., Function]
    names: tuple[str, ...]

    def __call__(self, outputs: Tensor, labels: Tensor, values: Sequence[Any], reduction: Reduction = "mean") -> Tensor:
        from crossfade.functional import probability_loss

        g = self.g_of(**dict(zip(self.names, values, strict=True)))
        return probability_loss(g, outputs, labels, reduction=reduction)


@dataclass(frozen=True)
class TwoPass(Method):
    """Complement objective training (Chen et al. 2019): a step on CE, then a second pass and a step on eq. (6).

    That minimises the negative complement entropy divided by the number of classes, with an optimizer of its own at the
    same learning rate, momentum and weight decay, as in their published code.
    """

    @staticmethod
    def second_loss(outputs: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Return the loss of the second pass."""
        from crossfade.functional import complement_entropy

        return -complement_entropy(outputs, labels, reduction=reduction) / outputs.shape[1]


@dataclass(frozen=True)
class ScaledRate(Method):
    """CE whose learning rate is multiplied by a function of progress, as in eq. (20).

    The loss times M (``ce-matched``, ``ce-matched-off``) is something else: SGD's step is the rate times a running sum
    of gradient + weight decay x weights, so a larger rate also goes further along old gradients and decays faster.
    """

    factor: Callable[[float], float] = float


def training_loss(
    criterion: Callable[..., Tensor] | None, outputs: Tensor, labels: Tensor, values: Sequence[Any]
) -> Tensor:
    """Return the mean of a method's ``criterion``, or of the mixture, with these values of the schedule."""
    from crossfade.functional import crossfade_loss

    if criterion is None:
        return crossfade_loss(outputs, labels, alpha=values[0], beta=values[1])
    return criterion(outputs, labels, values) if isinstance(criterion, Scheduled) else criterion(outputs, labels)


def take_step(
    method: Method,
    optimizers: Sequence[torch.optim.Optimizer],
    outputs_of: Callable[[], Tensor],
    labels: Tensor,
    values: Sequence[float],
    rate: float,
    clip: float = 0.0,
) -> tuple[float, Tensor]:
    """Take a step, or the two of a ``TwoPass``, and return the loss before it and the classes' scores.

    Args:
        optimizers: One for each pass; further ones aren't used.
        outputs_of: Returns the network's outputs for the batch.
        values: Those of the method's schedule.
        clip: The limit of the gradient's 2-norm; 0 for no limit.
    """
    outputs = outputs_of()
    loss = training_loss(method.criterion, outputs, labels, values)
    _descend(optimizers[0], loss, rate, clip)
    if isinstance(method, TwoPass):
        _descend(optimizers[1], method.second_loss(outputs_of(), labels), rate, clip)
    return loss.item(), method.class_scores(outputs.detach())


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, clip: float) -> None:
    import torch

    group = optimizer.param_groups[0]
    group["lr"] = rate
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    if clip:
        torch.nn.utils.clip_grad_norm_(group["params"], clip)
    optimizer.step()


def mpce(outputs: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return ``crossfade.mpce_loss``; it is imported here, as listing methods must not import torch."""
    from crossfade.functional import mpce_loss

    return mpce_loss(outputs, labels, reduction=reduction)


@lru_cache
def center_loss(classes: int, device: torch.device | str, reduction: Reduction = "mean") -> MaxMahalanobisCenterLoss:
    """Return the loss of ``mmc``, whose features have a dimension for each class.

    The simplex of its centres is turned so that each class has an axis: they are r (e_c - 1/C), of norm 10.
    """
    import torch

    from crossfade.losses import MaxMahalanobisCenterLoss

    criterion = MaxMahalanobisCenterLoss(classes, classes, reduction=reduction)
    criterion.centers = center_distance(classes) * (torch.eye(classes) - 1.0 / classes)
    return criterion.to(device)


def center_distance(classes: int) -> float:
    """Return r, the distance of two centres over the square root of 2."""
    return 10.0 / math.sqrt(1.0 - 1.0 / classes)


def mmc(features: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return half the squared distance of the features to their class's Max-Mahalanobis centre, eq. (5)."""
    loss: Tensor = center_loss(features.shape[1], features.device, reduction)(features, labels)
    return loss


def _nearness(features: Tensor) -> Tensor:
    """Return minus half the squared distance of the features (N, C) to every class's centre."""
    return center_loss(features.shape[1], features.device).logits(features)


def _made(name: str, **options: float) -> Function:
    """Return a g of ``crossfade.objectives``; it is imported here, as listing methods must not import torch."""
    from crossfade import objectives

    g: Function = getattr(objectives, name)(**options)
    return g


def _apply(name: str, ce: Tensor, **options: float) -> Tensor:
    return _made(name, **options)(ce)


def _apply_row(name: str, ce: Tensor, row: Row) -> Tensor:
    g: Callable[..., Tensor] = _made(name)
    return g(ce, row)


def gradient_volume(weights: Weights, own: bool) -> float:
    r"""Area under the gradient of alpha CE + beta EL, eq. (21) for the target's logit, eq. (22) for another's.

    \int_0^1 (1 - p)(alpha + beta p) dp = alpha/2 + beta/6 (its size; eq. 13 is negative there), and
    \int_0^1 \int_0^1 q (alpha + beta p) dp dq = alpha/2 + beta/4. CE's is 1/2 in both cases, eq. (20).
    """
    alpha, beta = weights
    return alpha / 2 + beta / (6 if own else 4)


def rate_factor(progress: float, own: bool) -> float:
    """Return M = V / V_ce for the gradual recipe's weights: what CE's learning rate is multiplied by."""
    return gradient_volume(gradual()(progress), own) / 0.5


def cosine(progress: float) -> float:
    """Return (1 + cos(pi progress)) / 2, from 1 to 0: SGDR's eq. (5) without restarts (Loshchilov & Hutter 2017)."""
    return (1.0 + math.cos(math.pi * progress)) / 2.0


def _matched(share: float, progress: float) -> Weights:
    """Return CE times M = alpha + share x beta for the gradual recipe's weights."""
    alpha, beta = gradual()(progress)
    return Weights(alpha + share * beta, 0.0)


COSINE = ScaledRate("ce-cosine", "CE, cosine rate", note="CE; the learning rate falls to 0 as a cosine", factor=cosine)
MATCHED = "ce-matched"  # a control: CE with steps of the size that gradual's have
METHODS: tuple[Method, ...] = (
    Method("ce", "CE", note="cross entropy: the baseline"),
    Method("f0", "CE+EL F=0", schedule=constant(0.0), note="CE and EL in equal parts (the paper's recipe 1)"),
    Method("f0-late", "CE+EL F=0,0.5", schedule=switch(0.0, 0.5, at=0.95), note="F = 0, EL alone for the last 5 %"),
    Method("gradual", "CE+EL F=0-0.5", schedule=gradual(), note="F = 0, 0.1, ... 0.5 in six equal phases"),
    Method("gradual-unit", "CE+EL F=0-0.5 unit", schedule=gradual(scale="unit"), note="the same, in unit scale"),
    Method("el", "EL", schedule=expectation(), note="expectation loss 1 - p alone, eq. (9)"),
    Method("focal", "Focal", partial(_apply, "focal", gamma=2.0, alpha=0.25), note="gamma = 2, alpha = 0.25, eq. (2)"),
    Method("mae", "MAE", partial(_apply, "mae"), note="2 (1 - p), eq. (3): EL with twice the learning rate"),
    Method("gce", "L_q", partial(_apply, "power", q=0.7), note="(1 - p^q) / q with q = 0.7"),
    Method("tgce", "Truncated L_q", partial(_apply, "truncated", q=0.7, k=0.5), note="L_q, constant where p <= 0.5"),
    Method("tce", "Tamed CE", partial(_apply, "tamed", alpha=0.5), note="alpha = 0.5, eq. (4) as printed"),
    Method(
        "gce-rising",
        "L_q, rising",
        schedule=partial(values_at, {"q": ramp(0.0, 0.7, steps=6)}),
        note="(1 - p^q) / q with q = 0, 0.14, ... 0.7 in six equal phases: from CE towards EL; for wrong labels",
        g_of=partial(_made, "power"),
        names=("q",),
    ),
    Method("log-ce", "log(1 + CE)", partial(_apply, "logarithmic", c=1.0), note="log(1 + ce): row weight 1 / (1 + ce)"),
    Method("poly", "Poly-1", partial(_apply, "poly", epsilon=2.0), note="ce + 2 (1 - p); with 1 instead of 2 it is f0"),
    Method("mpce", "MPCE", note="(max p - p_y) ce, eq. (7): 0 wherever the prediction is right", loss=mpce),
    Method(
        "mmc",
        "Max-Mahalanobis",
        note="half the squared distance of features, which the last linear layer gives, to their class's centre, eq. "
        "(5), of norm 10; the nearest centre is the prediction (Pang et al. 2020)",
        loss=mmc,
        scores=_nearness,
    ),
    TwoPass("cot", "COT", note="complement objective training (Chen et al. 2019), two passes a step", old_name="cot"),
    Method(
        MATCHED,
        "CE, matched",
        schedule=partial(_matched, 1.0 / 3.0),
        note="CE times M = alpha + beta/3: the size of gradual's gradient without its shape, eq. (20)-(21)",
    ),
    Method(
        "ce-matched-off",
        "CE, matched off-target",
        schedule=partial(_matched, 0.5),
        note="CE times M = alpha + beta/2, eq. (22): as ce-matched, for the logits of the other classes",
    ),
    ScaledRate(
        "ce-rate-matched",
        "CE, rate matched",
        note="CE's learning rate times the M of ce-matched, as the paper has it; with momentum and weight decay that "
        "isn't the same as the loss times M",
        factor=partial(rate_factor, own=True),
        old_name="ce-volume-own",
    ),
    ScaledRate(
        "ce-rate-matched-off",
        "CE, rate matched off-target",
        note="CE's learning rate times the M of ce-matched-off",
        factor=partial(rate_factor, own=False),
        old_name="ce-volume-others",
    ),
    COSINE,
)
# Of those that look at a row's statistics, and of others, for language models: crossfade.objectives.
OBJECTIVES: tuple[Method, ...] = (
    Method("power", "√p", partial(_apply, "power", q=0.5), note="2 (1 - √p): row weight √p"),
    Method("floored", "max(p, 0.1)", partial(_apply, "floored", least=0.1), note="row weight max(p, 0.1)"),
    Method("thresholded", "p ≥ 0.1", partial(_apply, "thresholded", k=0.1), note="row weight p where p >= 0.1, else 0"),
    Method("shifted", "EL at F=1/4", partial(_apply, "shifted", focus=0.25), note="row weight 3p / (1 + 2p)^2"),
    Method("deft", "DEFT", partial(_apply_row, "deft"), note="row weight p^a with a = sum of p_c^2"),
    Method(
        "entropy-gated", "EAFT", partial(_apply_row, "entropy_gated"), note="row weight entropy / log 20, at most 1"
    ),
    Method("inverse-focal", "(1 + p) CE", partial(_apply, "inverse_focal"), note="focal loss reversed, gamma = 1"),
)
OLD_NAMES = {one.old_name: one.name for one in METHODS if one.old_name}
MIXTURES = ("ce", "f0", "f0-late", "gradual")  # CE and its three mixtures with EL, which most studies compare
DEFAULT_METHODS = (*MIXTURES, "el", "focal")


def method(name: str, *, tables: bool = True) -> Method:
    """Return the method of this name, which may be an old one; without ``tables`` COSINE isn't known.

    Raises:
        UserError: there is none; names the nearest.

    >>> method("gradual").title
    'CE+EL F=0-0.5'
    """
    known = {one.name: one for one in METHODS if tables or one is not COSINE}
    if name == COSINE.name and not tables:
        raise UserError(f"method {name!r} is for tables: other networks' rates have schedules of their own")
    if OLD_NAMES.get(name, name) in known:
        return known[OLD_NAMES.get(name, name)]
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
    raise UserError(f"no method {name!r}: {hint}")


def value_table(method: Method, epochs: int, steps: int = 1) -> NDArray[np.float32]:
    """Return (epochs, steps, parameters): the schedule's values, which change ``steps`` times in an epoch.

    Raises:
        UserError: a schedule that doesn't return a finite number for each parameter.
    """
    import numpy as np

    total, columns = epochs * steps, len(method.names)
    table = np.array([tuple(method.schedule(step / total)) for step in range(total)], dtype=np.float32)
    if table.shape != (total, columns) or not np.isfinite(table).all():
        numbers = "two finite numbers" if columns == 2 else f"{columns} finite numbers"
        names = ", ".join(method.names)
        raise UserError(f"{method.name}'s schedule must give {numbers}, {names}, at each progress in [0, 1)")
    return table.reshape(epochs, steps, columns)


def shared_epochs(first: Method, second: Method, epochs: int, steps: int = 1) -> int:
    """Return how many whole epochs two methods train alike, from the first epoch on.

    The mixtures of the paper share their first phases (F = 0 and F = 0, 0.5 all but the last 5 %), and everything else
    of a repeat is paired, so what they share can be trained once. Methods that aren't plain mixtures share nothing.
    The schedules move ``steps`` times in each of the ``epochs`` of the whole training.
    """
    if any(type(one) is not Method or one.criterion is not None for one in (first, second)):
        return 0
    try:
        return _alike(first.schedule, second.schedule, epochs, steps)
    except TypeError:  # a schedule of a user's that has no hash
        return _alike.__wrapped__(first.schedule, second.schedule, epochs, steps)


@lru_cache(maxsize=1024)
def _alike(
    first: Callable[[float], Sequence[float]], second: Callable[[float], Sequence[float]], epochs: int, steps: int
) -> int:
    total = epochs * steps
    for step in range(total):
        if tuple(first(step / total)) != tuple(second(step / total)):
            return step // steps
    return epochs


class Start(NamedTuple):
    """Where a training begins: from scratch, or from another one's state after so many epochs."""

    source: int | None = None
    epoch: int = 0


def starts(
    methods: Sequence[Method],
    groups: Sequence[Hashable],
    epochs: int,
    moves: Sequence[int],
    *,
    most: int | None = None,
    begun: Sequence[int] = (),
) -> list[Start]:
    """Return where each of several trainings begins, so that what methods have in common is trained once.

    Args:
        groups: Trainings of the same group differ in their method alone: same rows, weights, order and learning rate.
        moves: How often the schedule of each training moves in an epoch, in a group equally often.
        most: No training takes over more epochs than this.
        begun: How many epochs each has behind it already.
    """
    found: list[Start] = []
    before: dict[Hashable, list[int]] = {}  # the earlier trainings of each group
    for at, (mine, group, steps) in enumerate(zip(methods, groups, moves, strict=True)):
        best = Start(None, begun[at] if begun else 0)
        for other in before.setdefault(group, []):
            epoch = min(shared_epochs(methods[other], mine, epochs, steps), epochs if most is None else most)
            if epoch > best.epoch and epoch >= found[other].epoch:
                best = Start(other, epoch)
        before[group].append(at)
        found.append(best)
    return found
