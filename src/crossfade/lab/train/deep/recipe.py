"""How an image network is trained: the recipe decides the numbers."""

from __future__ import annotations

import bisect
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from crossfade.errors import UserError
from crossfade.lab.train.deep.augment import Augment

if TYPE_CHECKING:
    from crossfade.lab.train.deep.lightning import Classifier
    from crossfade.lab.train.deep.member import Member
    from crossfade.lab.trial import Shape

__all__ = ["ImageRecipe"]

_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True)
class ImageRecipe:
    """SGD with a learning rate that falls in steps.

    Args:
        net: A name for ``crossfade.lab.nets.build``.
        pretrained: Start from torchvision's weights.
        dropout: Before the last linear layer.
        epochs, batch_size: The batch is the global one, over all processes.
        learning_rate, milestones, gamma: The rate is ``learning_rate * gamma ** (milestones passed)``, in epochs.
        momentum, weight_decay: Of SGD.
        augment: What is done to training images.
        size: Pixels a side of the images; None for the data's own.
        precision: ``"32-true"``, or mixed with ``"16-mixed"`` or ``"bf16-mixed"``.
        granularity: The loss's schedule moves at each ``"epoch"`` (progress = epoch / epochs) or each ``"step"``.
        select: The result is the ``"last"`` epoch's, or that of the epoch with the best ``"validation"`` accuracy (the
            first of several).
        evaluate: Epochs (from 1) after which the parts are scored; empty for all. The last one always is.
        watch: Epoch (from 1) after which p_y of every test image is kept, to be compared with the last epoch's: the
            bookkeeping of "A Motivating Example". 0 for none.
        scale: ``"paper"`` for a protocol as printed; anything shorter says so.
        protocol: Raised when the meaning of a recipe changes.

    Raises:
        UserError: a value out of range.
    """

    net: str = "resnet20"
    pretrained: bool = False
    dropout: float = 0.0
    epochs: int = 240
    batch_size: int = 128
    learning_rate: float = 0.1
    milestones: tuple[float, ...] = (120, 160, 200)
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    augment: Augment = field(default_factory=Augment)
    size: int | None = None
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    granularity: Literal["epoch", "step"] = "epoch"
    select: Literal["last", "validation"] = "last"
    evaluate: tuple[int, ...] = ()
    watch: int = 0
    scale: str = "paper"
    protocol: int = 1

    def __post_init__(self) -> None:
        for name, choices in (
            ("precision", _PRECISIONS), ("granularity", ("epoch", "step")), ("select", ("last", "validation")),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "protocol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not 0.0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be a number above 0, got {self.learning_rate!r}")
        if not 0.0 <= self.momentum < 1.0 or not 0.0 <= self.dropout < 1.0 or not 0.0 <= self.weight_decay < math.inf:
            raise UserError(
                "momentum and dropout must be in [0, 1) and weight_decay at least 0, got "
                f"{self.momentum!r}, {self.dropout!r} and {self.weight_decay!r}"
            )
        if list(self.milestones) != sorted(self.milestones):
            raise UserError(f"milestones must rise, got {self.milestones!r}")

    def rate(self, epoch: float) -> float:
        """The learning rate after so many epochs, parts of one included."""
        return self.learning_rate * float(self.gamma ** bisect.bisect_right(self.milestones, epoch))

    def fitting(self, images: int) -> ImageRecipe:
        """With a batch of at most a quarter of so many training images: a folder of one's own may hold few."""
        return replace(self, batch_size=min(self.batch_size, max(2, images // 4)))

    def scored(self, epoch: int) -> bool:
        """Whether the parts are scored after this epoch (counted from 0)."""
        return not self.evaluate or epoch + 1 in (*self.evaluate, self.watch, self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, lists for tuples."""
        plain = asdict(self) | {"augment": self.augment.to_dict()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @staticmethod
    def classifier() -> type[Classifier]:
        """What Lightning trains."""
        from crossfade.lab.train.deep.lightning import Classifier

        return Classifier

    @staticmethod
    def side_by_side() -> tuple[type[Any], type[Member]]:
        """What lays examples ready and what is trained where several networks are trained at once."""
        from crossfade.lab.train.deep.image_member import ImageFeed, ImageMember

        return ImageFeed, ImageMember

    # The whole batch at once, and no limit to the gradient: what a text's recipe has a choice of.
    accumulate, clip = 1, 0.0

    # What the runner asks of any recipe to show progress.
    @property
    def learning_rates(self) -> tuple[float, ...]:
        """One: a published protocol has its own."""
        return (self.learning_rate,)

    def cost(self, shape: Shape) -> float:
        """A training counts by its images and epochs alone."""
        return 3.0 * shape.rows * shape.inputs * self.epochs
