"""Criteria: losses as modules of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade import _heart, _options, functional
from crossfade._heart import Reduction, check_reduction
from crossfade._options import LossOptions
from crossfade._stats import LossStats
from crossfade._tensors import class_dim, full_precision, is_half
from crossfade._transforms import Mixture
from crossfade.schedules import Schedule, Weights, check_called, gradual


class CrossfadeLoss(nn.Module):
    """The loss alpha * CE + beta * EL with the weights of a schedule: ``nn.CrossEntropyLoss`` and a method :meth:`at`.

    The criterion doesn't count steps: there is no ``step()`` and nothing to restore when a training resumes. Progress
    is computed from the trainer's own step, ``criterion.at(step / total_steps)(logits, target)``, or from its epoch,
    ``criterion.at(epoch / epochs)``.

    Args:
        schedule: a function from progress in [0, 1] to ``Weights``; see :mod:`crossfade.schedules`.
        weight, ignore_index, label_smoothing, reduction: as ``nn.CrossEntropyLoss``'s.
        softcap, z_loss, shift: as :mod:`crossfade.functional`'s.

    Attributes:
        alpha, beta: 0-dim buffers outside the state dict. They follow the module to its device, keep their precision
            under ``.half()``, and a change never recompiles. A new criterion stands at progress 0.

    >>> criterion = CrossfadeLoss()
    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> [round(criterion.at(epoch / 6)(logits, target).item(), 4) for epoch in range(6)]
    [0.2461, 0.2759, 0.3256, 0.4249, 0.7229, 0.1192]
    """

    alpha: Tensor
    beta: Tensor
    weight: Tensor | None

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        softcap: float | None = None,
        z_loss: float = 0.0,
        shift: int = 0,
    ) -> None:
        super().__init__()
        schedule = gradual() if schedule is None else schedule
        if not callable(schedule):
            raise TypeError(
                f"schedule must be a function of progress, such as gradual(); got {type(schedule).__name__}"
            )
        check_called(schedule)
        check_reduction(reduction)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing!r}")
        _options.check(softcap, z_loss)
        self.schedule = schedule
        self.softcap, self.z_loss, self.shift = softcap, z_loss, shift
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction: Reduction = reduction
        self.register_buffer("weight", weight)
        self._set(schedule(0.0), torch.device("cpu"))

    def at(self, progress: float) -> CrossfadeLoss:
        """Take the schedule's weights at ``progress``, the fraction of training done, and return the criterion.

        Raises:
            ValueError: progress outside [0, 1].
        """
        self._weights = Weights(*self.schedule(progress))
        self.alpha.fill_(self._weights.alpha)
        self.beta.fill_(self._weights.beta)
        return self

    def forward(
        self, logits: Tensor, target: Tensor, *, return_stats: bool = False
    ) -> Tensor | tuple[Tensor, LossStats]:
        """Return the loss at the progress that was set last, or the pair (loss, stats)."""
        alpha: float | Tensor
        beta: float | Tensor
        alpha, beta = self.alpha, self.beta
        if torch.compiler.is_compiling() or not alpha.is_cpu:
            # Copies, because the next at() overwrites the buffers, and the backward pass of this loss may come after
            # it. Not clone(), which a compiler may move to the backward pass; it doesn't move stack().
            alpha, beta = torch.stack((alpha, beta)).unbind()
        else:  # numbers are faster, but reading them would wait for a GPU
            alpha, beta = alpha.item(), beta.item()
        return _options.loss(Mixture(alpha, beta), logits, target, return_stats=return_stats, **self._loss_options())

    def _loss_options(self) -> LossOptions:
        return {
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "label_smoothing": self.label_smoothing,
            "reduction": self.reduction,
            "softcap": self.softcap,
            "z_loss": self.z_loss,
            "shift": self.shift,
        }

    def extra_repr(self) -> str:
        function = getattr(self.schedule, "func", self.schedule)  # the package's own schedules are partials
        name = getattr(function, "__qualname__", type(function).__name__).split(".")[0].lstrip("_")
        return f"schedule={name}, alpha={self._weights.alpha:g}, beta={self._weights.beta:g}"

    def _set(self, weights: Weights, device: torch.device) -> None:
        self._weights = weights
        # A 0-dim float64 tensor doesn't promote float32 logits, and keeps 1 / (1 - 2F) exact for float64 ones.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        for name, value in zip(("alpha", "beta"), weights, strict=True):
            self.register_buffer(name, torch.tensor(value, dtype=dtype, device=device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # .half() would round the weights, and a move to MPS would refuse float64.
        self.alpha, self.beta = self.alpha.float(), self.beta.float()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._set(self._weights, self.alpha.device)
        return self


class LinearCrossfadeLoss(CrossfadeLoss):
    """:class:`CrossfadeLoss` fused with the output projection: see :func:`crossfade.linear_crossfade_loss`.

    Args:
        schedule: as :class:`CrossfadeLoss`'s.
        memory_budget_mb: as :func:`crossfade.linear_crossfade_loss`'s.
        options: the other arguments of :class:`CrossfadeLoss`.

    >>> criterion, lm_head = LinearCrossfadeLoss(), torch.nn.Linear(4, 10)
    >>> hidden, target = torch.zeros(3, 4), torch.tensor([1, 2, 3])
    >>> loss = criterion.at(0.5)(hidden, lm_head.weight, target, bias=lm_head.bias)
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        memory_budget_mb: float | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(schedule, **options)
        self.memory_budget_mb = memory_budget_mb

    def forward(  # type: ignore[override]
        self,
        hidden: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        *,
        bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
        return_stats: bool = False,
    ) -> Tensor | tuple[Tensor, LossStats]:
        """Return the loss, or (loss, stats). ``linear_weight`` and ``bias`` are the output projection's."""
        return functional.linear_crossfade_loss(
            hidden,
            linear_weight,
            target,
            bias=bias,
            alpha=self.alpha,
            beta=self.beta,
            sample_weight=sample_weight,
            memory_budget_mb=self.memory_budget_mb,
            return_stats=return_stats,
            **self._loss_options(),
        )


def max_mahalanobis_centers(num_classes: int, dim: int, norm: float = 10.0) -> Tensor:
    """Return the centres of the Max-Mahalanobis distribution, (num_classes, dim) float64 (Pang et al. 2018, alg. 1).

    All have the given norm, and every pair has the inner product -norm^2 / (num_classes - 1): a regular simplex. More
    than dim + 1 classes have none. Their centres are what the authors' code approximates by gradient descent: the
    largest inner product of a pair is as small as an optimiser makes it from one random start.

    Raises:
        ValueError: fewer than 2 classes, no dimension, or a norm that isn't positive.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if not norm > 0:
        raise ValueError(f"norm must be positive, got {norm!r}")
    if num_classes > dim + 1:
        return _spread_directions(num_classes, dim) * norm
    centers = torch.zeros(num_classes, dim, dtype=torch.float64)
    centers[0, 0] = 1.0
    for i in range(1, num_classes):
        for j in range(min(i, dim)):
            overlap = torch.dot(centers[i, :j], centers[j, :j])
            centers[i, j] = -(1.0 / (num_classes - 1) + overlap) / centers[j, j]
        if i < dim:
            centers[i, i] = (1.0 - centers[i, :i].square().sum()).clamp(min=0.0).sqrt()
    return centers * norm


def _spread_directions(count: int, dim: int) -> Tensor:
    """Return unit vectors, (count, dim) float64, whose largest inner product is small: ever sharper smooth maxima."""
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(count, dim, dtype=torch.float64, generator=generator).requires_grad_()
    itself = 2.0 * torch.eye(count, dtype=torch.float64)
    for sharpness in (10.0, 100.0, 1000.0):
        optimizer = torch.optim.LBFGS([free], max_iter=50, line_search_fn="strong_wolfe")

        def closure(sharpness: float = sharpness, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            unit = F.normalize(free, dim=1)
            largest = torch.logsumexp(sharpness * (unit @ unit.t() - itself), (0, 1)) / sharpness
            largest.backward()  # type: ignore[no-untyped-call]
            return largest

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
    return F.normalize(free.detach(), dim=1)


class MaxMahalanobisCenterLoss(nn.Module):
    """Half the squared distance of the features to their class's Max-Mahalanobis centre, eq. (5), Pang et al. 2019.

    L = ||z - mu_y||^2 / 2. Eq. (5) prints the norm without its square; the published loss has it, and
    ``squared=False`` is the printed form (whose gradient is undefined at the centre, and taken as 0). The input are
    features, the output of the layer before a classifier, and not logits. :meth:`logits` turns features into scores.

    Args:
        num_classes, dim: classes C, and size D of the features. For C > D + 1 the centres are approximations, see
            :func:`max_mahalanobis_centers`, and belong to the state dict.
        norm: length of the centres (Pang et al.'s C_MM).
        squared: whether the distance is squared.
        weight, ignore_index, label_smoothing, reduction: as ``nn.CrossEntropyLoss``'s. Soft targets give the
            expectation over labels.

    Shapes: features (N, D), (N, D, d1, ...) or (D,); target as for ``F.cross_entropy``, with probabilities (N, C, ...).

    Raises:
        ValueError: C < 2 or D < 1 at construction; features whose dimension 1 isn't D.
    """

    centers: Tensor
    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        norm: float = 10.0,
        squared: bool = True,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        # A simplex follows from the arguments and stays out of the state dict, so that any checkpoint loads. An
        # approximation may depend on the machine's last bits.
        centers = max_mahalanobis_centers(num_classes, dim, norm).to(torch.get_default_dtype())
        self.register_buffer("centers", centers, persistent=num_classes > dim + 1)
        self.register_buffer("weight", weight)
        self.squared = squared
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction: Reduction = reduction

    def logits(self, features: Tensor) -> Tensor:
        """Return -||z - mu_c||^2 / 2 for every class, (N, C, d1, ...). Its argmax is the nearest centre."""
        return -self._distances(features, squared=True)

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the features."""
        scores = -self._distances(features, self.squared)
        return _heart.reduce_classes(
            scores, target, self.weight, self.ignore_index, self.label_smoothing, self.reduction
        )

    def _distances(self, features: Tensor, squared: bool) -> Tensor:
        dim = class_dim(features)
        if features.shape[dim] != self.centers.shape[1]:
            raise ValueError(
                f"features must have size {self.centers.shape[1]} in dimension {dim}, got shape {tuple(features.shape)}"
            )
        rows = full_precision(features).movedim(dim, -1).unsqueeze(-2)
        distances = (rows - self.centers.to(rows.dtype)).square().sum(-1)
        if not squared:
            zero = distances == 0  # sqrt has an infinite slope there
            distances = distances.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)
        return (distances / 2).movedim(-1, dim)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact = self.centers
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if is_half(self.centers.dtype):  # .half() would round them
            self.centers = exact.to(self.centers.device)
        return self
