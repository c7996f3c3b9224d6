"""The recipe for training networks on a table, and the networks to train by it: plain data without an engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from crossfade.errors import UserError
from crossfade.lab.checks import check_choices, check_count, check_positive, check_seed, check_share

if TYPE_CHECKING:
    from crossfade.lab.data.split import Split
    from crossfade.lab.methods import Method
    from crossfade.lab.trial import Shape

_LATER = ("lr_schedule", "select", "metric", "wider_rates")  # fields that stored trials may not have


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum on a linear classifier or a ReLU network: how every member of a stack is trained.

    Args:
        net: ``"linear"`` or ``"mlp"`` (hidden layers with ReLU).
        width: Hidden units, None for as many as there are inputs (the paper's I x I).
        depth: Hidden layers.
        epochs, batch_size: The last batch of an epoch may be smaller.
        momentum, weight_decay: As ``torch.optim.SGD``'s.
        learning_rates: What a comparison tries for each method, in this order. A ``Member`` has one.
        lr_schedule: Every method's rate stays ``"constant"``, or falls to 0 as a ``"cosine"`` does.
        granularity: Schedules, also the rate's, move at each ``"epoch"`` (progress = epoch / epochs) or ``"step"``.
        tie: Which of the epochs with the same validation score is kept: the ``"first"``, the ``"last"``, or the one
            with the lowest validation ``"loss"`` (CE; then the first). By ``"expected"`` the result is the mean (of
            NLL the median) over all epochs and rates with the best score; the weights are those of the first.
        protocol: Raised when the meaning of a recipe changes.
        select: The epoch with the ``"best"`` validation score counts, or the ``"last"`` one: then validation chooses
            the rate alone.
        metric: The score: ``"accuracy"``, ``"balanced"`` accuracy or macro-``"f1"``.
        wider_rates: While a method's best rate is the highest (lowest) one tried, the next higher (lower) one of these
            is tried as well.
        tallied: Each epoch also gets the scores of ``scores.tally``, which the paper's protocol doesn't need. Other
            ties and metrics can't do without them. No other number depends on it, so it is no part of a trial's key.

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
    tie: Literal["first", "last", "loss", "expected"] = "first"
    protocol: int = 1
    lr_schedule: Literal["constant", "cosine"] = "constant"
    select: Literal["best", "last"] = "best"
    metric: Literal["accuracy", "balanced", "f1"] = "accuracy"
    wider_rates: tuple[float, ...] = ()
    tallied: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("learning_rates", "wider_rates"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a list from TOML isn't hashable
        check_choices(self)
        object.__setattr__(self, "tallied", self.tallied or self.tie == "expected" or self.metric != "accuracy")
        if self.width is not None:
            check_count("width", self.width)
        for name in ("depth", "epochs", "batch_size", "protocol"):
            check_count(name, getattr(self, name))
        check_share("momentum", self.momentum)
        check_positive("weight_decay", self.weight_decay, zero=True)
        if not self.learning_rates:
            raise UserError("learning_rates must be one or more finite numbers above 0, got none")
        for rate in (*self.learning_rates, *self.wider_rates):
            check_positive("learning_rates", rate)

    def to_dict(self) -> dict[str, object]:
        """Return plain data: ``Recipe(**recipe.to_dict()) == recipe``, also after a trip through JSON or TOML.

        Later fields are left out at their defaults, so that trials stored before keep their keys.
        """
        said = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        del said["tallied"]
        usual = {name: getattr(Recipe, name) for name in _LATER}
        return {name: value for name, value in said.items() if name not in usual or value not in (usual[name], [])}

    def sizes(self, features: int, classes: int) -> tuple[int, ...]:
        """Return the units of each layer, inputs first.

        >>> Recipe(depth=2).sizes(4, 3), Recipe(net="linear").sizes(4, 3)
        ((4, 4, 4, 3), (4, 3))
        """
        hidden = (self.width or features,) * self.depth if self.net == "mlp" else ()
        return (features, *hidden, classes)

    def cost(self, shape: Shape) -> float:
        """Return the multiply-adds of the training at all learning rates."""
        weights = sum(before * after for before, after in pairwise(self.sizes(shape.inputs, shape.classes)))
        return 3.0 * shape.rows * weights * self.epochs * len(self.learning_rates)

    def memory(self, shape: Shape, methods: int) -> float:
        """Return the bytes that a repeat takes, roughly.

        Measured on the kernel with 1 and 2 threads and 6 and 18 networks: 22 to 39 times a network's weights, for
        results, weights with velocity and best state, and the layout. Inputs lie there up to three times in float64.
        """
        sizes = self.sizes(shape.inputs, shape.classes)
        weights = sum((before + 1) * after for before, after in pairwise(sizes))
        return 4.0 * weights * (2 * methods * len(self.learning_rates) + 10) + 24.0 * shape.rows * shape.inputs


@dataclass(frozen=True, eq=False)
class Member:
    """One network to train. Initial weights and the order of rows derive from ``seed`` and the shapes alone."""

    split: Split
    method: Method
    learning_rate: float
    seed: int

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_positive("learning_rate", self.learning_rate)
