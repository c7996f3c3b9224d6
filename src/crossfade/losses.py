"""Criteria: losses as modules of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, Self, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade import _options, functional
from crossfade._options import LossOptions
from crossfade._reduction import CrossEntropyOptions, Reduction, check_reduction, reduce_classes
from crossfade._stats import LossStats
from crossfade._tensors import class_dim, full_precision, is_half
from crossfade._transforms import Mixture, Transform
from crossfade.schedules import ParameterSchedule, Schedule, Weights, check_called, gradual, values_at


class Fade(nn.Module):
    """A loss g(ce) whose parameters follow schedules: ``nn.CrossEntropyLoss`` and a method :meth:`at`.

    The criterion doesn't count steps: there is no ``step()`` and nothing to restore when a training resumes. Progress
    is computed from the trainer's own step, ``criterion.at(step / total_steps)(logits, target)``, or from its epoch,
    ``criterion.at(epoch / epochs)``.

    Args:
        g_of: a function of parameters, named as here, that returns a function g of the cross entropy, as
            :func:`crossfade.probability_loss` takes it. To be compiled it must also take 0-dim tensors.
        parameters: for each a number, or a function from progress in [0, 1] to a number, such as ``ramp(0.0, 0.7)``.
        weight, ignore_index, label_smoothing, reduction: as ``nn.CrossEntropyLoss``'s.
        softcap, z_loss, shift: as :mod:`crossfade.functional`'s.

    Attributes:
        names: the parameters' names. Each parameter is a 0-dim buffer of its name, outside the state dict. They follow
            the module to its device, keep their precision under ``.half()``, and a change never recompiles. A new
            criterion stands at progress 0.
        schedule: the function from progress to the parameters' values, in the order of the names.

    Raises:
        TypeError: a parameter that is neither, or that g_of doesn't take.
        ValueError: values at progress 0 or 1 that g_of refuses.

    >>> from crossfade import ramp
    >>> def l_q(q):
    ...     return lambda ce: -torch.expm1(-q * ce) / q
    >>> criterion = Fade(l_q, q=ramp(0.1, 0.7, steps=3))
    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> [round(criterion.at(epoch / 3)(logits, target).item(), 4) for epoch in range(3)]
    [0.1261, 0.1238, 0.1215]
    """

    weight: Tensor | None

    def __init__(
        self,
        g_of: Callable[..., Transform],
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        softcap: float | None = None,
        z_loss: float = 0.0,
        shift: int = 0,
        **parameters: float | ParameterSchedule,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing!r}")
        _options.check(softcap, z_loss)
        for name, value in parameters.items():
            if not (callable(value) or isinstance(value, Real)):
                raise TypeError(f"{name} must be a number or a function of progress, such as ramp(0, 1); got {value!r}")
            if hasattr(self, name):
                raise TypeError(f"{name} can't name a parameter: a module of PyTorch has such an attribute already")
            check_called(value)
        self.g_of, self.names = g_of, tuple(parameters)
        self.schedule: Callable[[float], Sequence[float]] = partial(values_at, parameters)
        self.softcap, self.z_loss, self.shift = softcap, z_loss, shift
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction: Reduction = reduction
        self.register_buffer("weight", weight)
        for progress in (1.0, 0.0):
            self._check(self._scheduled(progress))
        self._set(self._scheduled(0.0), torch.device("cpu"))

    def at(self, progress: float) -> Self:
        """Take the schedules' values at ``progress``, the fraction of training done, and return the criterion.

        Raises:
            ValueError: progress outside [0, 1].
        """
        self._values = self._scheduled(progress)
        for name, value in zip(self.names, self._values, strict=True):
            self._buffers[name].fill_(value)  # type: ignore[union-attr]
        return self

    def g(self) -> Transform:
        """Return g with the values that were set last. It keeps them when the next call of :meth:`at` changes them."""
        buffers: list[Any] = [self._buffers[name] for name in self.names]
        if buffers and (torch.compiler.is_compiling() or not buffers[0].is_cpu):
            # Copies, because the next at() overwrites the buffers, and the backward pass of this loss may come after
            # it. Not clone(), which a compiler may move to the backward pass; it doesn't move stack().
            values: Sequence[Any] = torch.stack(buffers).unbind()
        else:  # numbers are faster, but reading them would wait for a GPU
            values = [value.item() for value in buffers]
        return self.g_of(**dict(zip(self.names, values, strict=True)))

    def forward(
        self, logits: Tensor, target: Tensor, *, return_stats: bool = False
    ) -> Tensor | tuple[Tensor, LossStats]:
        """Return the loss at the progress that was set last, or the pair (loss, stats)."""
        options = CrossEntropyOptions(self.weight, self.ignore_index, self.label_smoothing, self.reduction)
        return _options.loss(self.g(), logits, target, options, self.softcap, self.z_loss, self.shift, return_stats)

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
        values = zip(self.names, self._values, strict=True)
        return ", ".join([f"g_of={_name(self.g_of)}", *(f"{name}={value:g}" for name, value in values)])

    def _scheduled(self, progress: float) -> tuple[float, ...]:
        return tuple(self.schedule(progress))

    def _check(self, values: Sequence[float]) -> None:
        """Raise TypeError unless g_of makes a function of these values."""
        try:
            g = self.g_of(**dict(zip(self.names, values, strict=True)))
        except TypeError as error:
            raise TypeError(f"g_of must take the parameters ({', '.join(self.names)}) and return g: {error}") from error
        if not callable(g):
            raise TypeError(f"g_of must return a function g of the cross entropy, got {type(g).__name__}")

    @torch.inference_mode(False)  # where the module is moved in inference mode, at() must still be able to fill these
    def _set(self, values: tuple[float, ...], device: torch.device) -> None:
        self._values = values
        # A 0-dim float64 tensor doesn't promote float32 logits, and keeps 1 / (1 - 2F) exact for float64 ones.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        for name, value in zip(self.names, values, strict=True):
            self.register_buffer(name, torch.tensor(value, dtype=dtype, device=device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # .half() would round the values, and a move to MPS would refuse float64.
        for name in self.names:
            setattr(self, name, getattr(self, name).float())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._set(self._values, getattr(self, self.names[0]).device if self.names else torch.device("cpu"))
        return self


def _name(function: Callable[..., object]) -> str:
    function = getattr(function, "func", function)  # the package's own schedules are partials
    return str(getattr(function, "__qualname__", type(function).__name__)).split(".")[0].lstrip("_")


class CrossfadeLoss(Fade):
    """The loss alpha * CE + beta * EL with the weights of a schedule: ``Fade(mixture, alpha=..., beta=...)``.

    Args:
        schedule: a function from progress in [0, 1] to ``Weights``; see :mod:`crossfade.schedules`.
        weight, ignore_index, label_smoothing, reduction, softcap, z_loss, shift: as :class:`Fade`'s.

    >>> criterion = CrossfadeLoss()
    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> [round(criterion.at(epoch / 6)(logits, target).item(), 4) for epoch in range(6)]
    [0.2461, 0.2759, 0.3256, 0.4249, 0.7229, 0.1192]
    """

    alpha: Tensor
    beta: Tensor

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
        schedule = gradual() if schedule is None else schedule
        if not callable(schedule):
            raise TypeError(
                f"schedule must be a function of progress, such as gradual(); got {type(schedule).__name__}"
            )
        check_called(schedule)
        super().__init__(
            Mixture,
            alpha=1.0,
            beta=0.0,
            weight=weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
            softcap=softcap,
            z_loss=z_loss,
            shift=shift,
        )
        self.schedule = schedule
        self.at(0.0)

    def _scheduled(self, progress: float) -> Weights:
        values = self.schedule(progress)
        try:
            return Weights(*values)
        except TypeError:
            raise TypeError(f"schedule must return Weights(alpha, beta), got {values!r}") from None

    def extra_repr(self) -> str:
        return super().extra_repr().replace("g_of=Mixture", f"schedule={_name(self.schedule)}")


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
            g=self.g(),
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
    products = (num_classes * torch.eye(num_classes, dtype=torch.float64) - 1.0) / (num_classes - 1)
    others = torch.linalg.cholesky(products[:-1, :-1])
    centers = torch.cat([others, -others.sum(0, keepdim=True)])  # they add up to 0
    return F.pad(centers, (0, dim - num_classes + 1)) * norm


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
        options = CrossEntropyOptions(self.weight, self.ignore_index, self.label_smoothing, self.reduction)
        return reduce_classes(scores, target, options)

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
