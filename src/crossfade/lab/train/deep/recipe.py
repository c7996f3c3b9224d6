"""Recipes for training deep networks, as plain data."""

from __future__ import annotations

import bisect
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from crossfade.errors import UserError
from crossfade.lab.checks import Precision, check_choices, check_count, check_positive, check_share

if TYPE_CHECKING:
    from crossfade.lab.trial import Shape


@dataclass(frozen=True)
class Augment:
    """The augmentation of a training image, in this order: crop, flip, rotate, jitter, normalise, erase.

    Args:
        crop: Pixels of black border on each side from which a window of the image's size is cut; 0 for none.
        flip: Mirror horizontally with probability 1/2.
        rotation: Angle uniform in [-rotation, rotation], degrees; nearest pixel, black outside.
        jitter: Brightness, contrast and saturation, each by a factor uniform in [1 - jitter, 1 + jitter], in random
            order, hue among them (torchvision's ``ColorJitter``).
        hue: How far hue is turned, uniform in [-hue, hue] of the colour circle.
        erasing: Probability of a rectangle set to the mean colour. Its area is uniform in [0.02, 0.4] of the image and
            its aspect ratio log-uniform in [0.3, 1/0.3] (Zhong et al. 2020).

    Raises:
        UserError: a value out of range.
    """

    crop: int = 4
    flip: bool = True
    rotation: float = 0.0
    jitter: float = 0.0
    erasing: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        check_count("crop", self.crop, least=0)
        for name, high in (("rotation", 180.0), ("jitter", 1.0), ("erasing", 1.0), ("hue", 0.5)):
            if not 0.0 <= getattr(self, name) <= high:
                raise UserError(f"{name} must be in [0, {high:g}], got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, object]:
        """Return plain data, without a hue of 0: so trials stored before there was a hue keep their keys."""
        return {name: value for name, value in asdict(self).items() if name != "hue" or value}


@dataclass(frozen=True, kw_only=True)
class DeepRecipe:
    """The settings that the recipes of deep networks have in common.

    Args:
        epochs, batch_size: A batch is that of all processes together.
        learning_rate: The highest rate of the training.
        weight_decay: The optimizer's.
        precision: ``"32-true"``, or mixed with ``"16-mixed"`` or ``"bf16-mixed"``.
        granularity: The loss's schedule moves at each ``"epoch"`` (progress = epoch / epochs) or each ``"step"``.
        select: The result is the ``"last"`` epoch's, or that of the epoch with the best ``"validation"`` accuracy (the
            first of several).
        evaluate: Epochs (from 1) after which the parts are scored; empty for all. The last one always is.
        scale: ``"paper"`` for a protocol as printed; anything shorter says so.
        protocol: Raised when the meaning of a recipe changes.

    Raises:
        UserError: a value out of range.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    granularity: Literal["epoch", "step"]
    precision: Precision = "32-true"
    select: Literal["last", "validation"] = "last"
    evaluate: tuple[int, ...] = ()
    scale: str = "paper"
    protocol: int = 1

    # Settings of only one kind of recipe.
    accumulate = 1
    clip = 0.0
    watch = 0

    def __post_init__(self) -> None:
        check_choices(self)
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_count("protocol", self.protocol)
        check_positive("learning_rate", self.learning_rate)
        check_positive("weight_decay", self.weight_decay, zero=True)

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The one rate, as a published protocol has its own."""
        return (self.learning_rate,)

    def rate(self, epoch: float) -> float:
        """Return the learning rate after this number of epochs, which may end within one."""
        raise NotImplementedError

    def cost(self, shape: Shape) -> float:
        """Return the relative cost of a training, by its examples and epochs."""
        return 3.0 * shape.rows * self.epochs

    def scored(self, epoch: int) -> bool:
        """Return whether the parts are scored after this epoch (counted from 0)."""
        return not self.evaluate or epoch + 1 in (*self.evaluate, self.watch, self.epochs)

    def to_dict(self) -> dict[str, object]:
        """Return plain data, lists for tuples."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(DeepRecipe):
    """SGD with a learning rate that falls in steps.

    Args:
        net: A name for ``crossfade.lab.nets.build``.
        pretrained: Start from torchvision's weights.
        dropout: Probability of dropping an input of the last linear layer.
        milestones, gamma: The rate is ``learning_rate * gamma ** (milestones passed)``, in epochs.
        momentum: SGD's.
        augment: The augmentation of training images.
        size: Height and width of the images in pixels; None for the data's own.
        watch: Epoch (from 1) after which p_y of every test image is recorded, to be compared with the last epoch's, as
            in "A Motivating Example"; 0 for none.

    The other arguments are :class:`DeepRecipe`'s.
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
    granularity: Literal["epoch", "step"] = "epoch"
    watch: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("momentum", self.momentum)
        check_share("dropout", self.dropout)
        if list(self.milestones) != sorted(self.milestones):
            raise UserError(f"milestones must rise, got {self.milestones!r}")

    def rate(self, epoch: float) -> float:
        return self.learning_rate * float(self.gamma ** bisect.bisect_right(self.milestones, epoch))

    def cost(self, shape: Shape) -> float:
        """Return the relative cost of a training, by its images, their size and epochs."""
        return super().cost(shape) * shape.inputs

    def fitting(self, images: int) -> ImageRecipe:
        """Return the recipe with a batch of at most a quarter of the training images, as a folder may hold few."""
        return replace(self, batch_size=min(self.batch_size, max(2, images // 4)))

    def to_dict(self) -> dict[str, object]:
        return super().to_dict() | {"augment": self.augment.to_dict()}


@dataclass(frozen=True, kw_only=True)
class TextRecipe(DeepRecipe):
    """AdamW with a learning rate that falls linearly to zero, as the Hugging Face Trainer does by default.

    Args:
        model: A name on the hub, or a folder with weights and tokenizer.
        net: The name in tables; by default the end of ``model``.
        digest: Hash of a folder's files, which replaces the folder's path in a trial's key.
        max_length: Tokens that are kept of a text or a pair.
        accumulate: The number of parts in which a batch is computed, each weighted by its share of the batch.
        warmup: The share of the steps in which the rate rises; afterwards it falls linearly.
        clip: The limit of the gradient's 2-norm; 0 for no limit.

    The other arguments are :class:`DeepRecipe`'s.
    """

    model: str = field(default="bert-base-uncased", kw_only=False)
    net: str = ""
    max_length: int = 64
    epochs: int = 6
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 2e-5
    warmup: float = 0.0
    weight_decay: float = 0.0
    clip: float = 1.0
    granularity: Literal["epoch", "step"] = "step"
    digest: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise UserError("model must be a name on the hub or a folder, got nothing")
        if not self.net:
            parts = [part for part in self.model.replace("\\", "/").split("/") if part]
            generic = len(parts) > 1 and parts[-1] in ("model", "models", "checkpoint")
            object.__setattr__(self, "net", parts[-2] if generic else parts[-1] if parts else self.model)
        check_count("max_length", self.max_length)
        check_count("accumulate", self.accumulate)
        if self.accumulate > self.batch_size:
            raise UserError(f"accumulate must be at most batch_size ({self.batch_size}), got {self.accumulate}")
        check_share("warmup", self.warmup)
        check_positive("clip", self.clip, zero=True)

    def rate(self, epoch: float) -> float:
        done = epoch / self.epochs
        if done < self.warmup:
            return self.learning_rate * done / self.warmup
        return self.learning_rate * max(0.0, 1.0 - done) / (1.0 - self.warmup)

    def to_dict(self) -> dict[str, object]:
        """Return plain data, lists for tuples, with the digest of a folder instead of its path."""
        return super().to_dict() | ({"model": self.net} if self.digest else {})
