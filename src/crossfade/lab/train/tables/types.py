"""What goes into a training run and what comes out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.methods import Method
    from crossfade.lab.trial import Shape

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]
Curve: TypeAlias = NDArray[np.float64]

_INDEX = 2**31  # rows and weights are counted in 32 bits


@dataclass(frozen=True, eq=False)
class Split:
    """One repeat of a data set, preprocessed: training, validation and test rows, labels in [0, classes).

    ``x_*`` is (rows, features) and becomes float32, C-contiguous; ``y_*`` is (rows,) and becomes int64.

    Raises:
        UserError: shapes that don't fit, labels outside [0, classes), no training or no validation row. The test part
            may be empty.
    """

    x_train: Floats
    y_train: Integers
    x_val: Floats
    y_val: Integers
    x_test: Floats
    y_test: Integers
    classes: int

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UserError(f"classes must be at least 1, got {self.classes}")
        for part in ("train", "val", "test"):
            x = np.ascontiguousarray(getattr(self, f"x_{part}"), dtype=np.float32)
            y = np.ascontiguousarray(getattr(self, f"y_{part}"), dtype=np.int64)
            if x.ndim != 2 or x.shape[1] == 0 or y.shape != x.shape[:1] or len(y) >= _INDEX:
                raise UserError(
                    f"x_{part} must be (rows, features) with a label in y_{part} for each row, got {x.shape}, {y.shape}"
                )
            if len(y) and not (y.min() >= 0 and y.max() < self.classes):
                raise UserError(f"y_{part} must hold class numbers in [0, {self.classes}), got {y.min()} to {y.max()}")
            object.__setattr__(self, f"x_{part}", x)
            object.__setattr__(self, f"y_{part}", y)
        widths = {part: getattr(self, f"x_{part}").shape[1] for part in ("train", "val", "test")}
        if len(set(widths.values())) > 1:
            raise UserError(f"the parts must have the same features, got {widths}")
        if not len(self.y_train):
            raise UserError("the training part has no rows: there is nothing to learn from")
        if not len(self.y_val):
            raise UserError("the validation part has no rows: it chooses the epoch and the learning rate; give it some")

    @property
    def features(self) -> int:
        """Number of inputs."""
        return int(self.x_train.shape[1])


@dataclass(frozen=True)
class Recipe:
    """How every member of a stack is trained: SGD with momentum on a linear classifier or a ReLU network.

    Args:
        net: ``"linear"`` or ``"mlp"`` (hidden layers with ReLU).
        width: hidden units, None for as many as there are inputs (the paper's I x I).
        depth: hidden layers.
        epochs, batch_size: the last batch of an epoch may be smaller.
        momentum, weight_decay: as ``torch.optim.SGD``'s.
        learning_rates: what a comparison tries for each method, in this order. A ``Member`` has one.
        granularity: the schedule moves at each ``"epoch"`` (progress = epoch / epochs) or at each ``"step"``.
        tie: which of the epochs with the same validation accuracy is kept: the ``"first"``, the ``"last"``, or the one
            with the lowest validation ``"loss"`` (CE; then the first).
        protocol: raised when the meaning of a recipe changes.

    Raises:
        UserError: a value out of range.
    """

    net: Literal["linear", "mlp"] = "mlp"
    width: int | None = None
    depth: int = 1
    epochs: int = 50
    batch_size: int = 8
    momentum: float = 0.9
    weight_decay: float = 0.0
    learning_rates: tuple[float, ...] = (0.01, 0.005, 0.001)
    granularity: Literal["epoch", "step"] = "epoch"
    tie: Literal["first", "last", "loss"] = "first"
    protocol: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))  # a list from TOML isn't hashable
        for name, choices in (
            ("net", ("linear", "mlp")), ("granularity", ("epoch", "step")), ("tie", ("first", "last", "loss")),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name, least in (("width", 1), ("depth", 1), ("epochs", 1), ("batch_size", 1), ("protocol", 1)):
            value = getattr(self, name)
            if not (name == "width" and value is None) and not (
                isinstance(value, int) and not isinstance(value, bool) and least <= value < _INDEX
            ):
                raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if not 0.0 <= self.momentum < 1.0:
            raise UserError(f"momentum must be in [0, 1), got {self.momentum!r}")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise UserError(f"weight_decay must be a finite number of at least 0, got {self.weight_decay!r}")
        if not self.learning_rates or not all(0.0 < rate < float("inf") for rate in self.learning_rates):
            raise UserError(f"learning_rates must be one or more finite numbers above 0, got {self.learning_rates!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``Recipe(**recipe.to_dict()) == recipe``, also after a trip through JSON or TOML."""
        return {**asdict(self), "learning_rates": list(self.learning_rates)}

    def sizes(self, features: int, classes: int) -> tuple[int, ...]:
        """Units of each layer, inputs first.

        >>> Recipe(depth=2).sizes(4, 3), Recipe(net="linear").sizes(4, 3)
        ((4, 4, 4, 3), (4, 3))
        """
        hidden = (self.width or features,) * self.depth if self.net == "mlp" else ()
        return (features, *hidden, classes)

    def cost(self, shape: Shape) -> float:
        """Multiply-adds of the training at all learning rates."""
        weights = sum(before * after for before, after in pairwise(self.sizes(shape.inputs, shape.classes)))
        return 3.0 * shape.rows * weights * self.epochs * len(self.learning_rates)


@dataclass(frozen=True, eq=False)
class Member:
    """One network to train. Initial weights and the order of rows derive from ``seed`` and the shapes alone."""

    split: Split
    method: Method
    learning_rate: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed must be a whole number in [0, 2^63), got {self.seed!r}")
        if not 0.0 < self.learning_rate < float("inf"):
            raise UserError(f"learning_rate must be a finite number above 0, got {self.learning_rate!r}")


@dataclass(frozen=True, eq=False)
class History:
    """One network's training. Curves have one value an epoch, measured after it; nll is the mean CE in nats.

    From the epoch on in which weights or loss stopped being finite, ``finite`` is False, losses are NaN and counts 0;
    the best epoch is one before it. If there is none it is -1, and weights and test probabilities are NaN.
    """

    train_loss: Curve  # mean of the method's own loss over the epoch's batches
    val_correct: Integers
    val_nll: Curve
    test_correct: Integers
    test_nll: Curve
    best_epoch: int
    test_probabilities: Floats  # (test rows, classes) at the best epoch
    weights: list[Floats]  # at the best epoch: weight (out, in) and bias (out,) of each layer
    finite: bool
    engine: str = ""  # which engine trained it
    note: str = ""  # why not the one asked for, if so
