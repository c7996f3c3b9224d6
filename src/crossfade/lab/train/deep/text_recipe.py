"""How a BERT is fine-tuned. The recipe decides the numbers; the machine (``Hardware``) only the time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.train.deep.lightning import Classifier
    from crossfade.lab.train.deep.member import Member
    from crossfade.lab.trial import Shape

__all__ = ["TextRecipe"]


@dataclass(frozen=True)
class TextRecipe:
    """AdamW with a learning rate that falls linearly to zero, as the Hugging Face Trainer does by default.

    Args:
        model: A name on the hub, or a folder with weights and tokenizer.
        net: What tables call it; default: the end of ``model``.
        digest: Hash of a folder's files: it stands for the folder in a trial's key, wherever that lies.
        max_length: Tokens that are kept of a text or a pair.
        epochs, batch_size: The batch is the global one: over all processes, and all parts of an accumulated step.
        accumulate: A step's batch is computed in so many parts, each weighted by its share of the batch.
        learning_rate, warmup: The rate rises over this share of the steps and falls linearly afterwards.
        weight_decay, clip: Of AdamW (betas 0.9, 0.999, eps 1e-8); greatest 2-norm of the gradient, 0 for no limit.
        precision, granularity, select, evaluate, scale, protocol: As ``ImageRecipe``'s.

    Raises:
        UserError: a value out of range.
    """

    model: str = "bert-base-uncased"
    net: str = ""
    max_length: int = 64
    epochs: int = 6
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 2e-5
    warmup: float = 0.0
    weight_decay: float = 0.0
    clip: float = 1.0
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    granularity: Literal["epoch", "step"] = "step"
    select: Literal["last", "validation"] = "last"
    evaluate: tuple[int, ...] = ()
    scale: str = "paper"
    protocol: int = 1
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("model must be a name on the hub or a folder, got nothing")
        if not self.net:
            parts = [part for part in self.model.replace("\\", "/").split("/") if part]
            generic = len(parts) > 1 and parts[-1] in ("model", "models", "checkpoint")
            object.__setattr__(self, "net", parts[-2] if generic else parts[-1] if parts else self.model)
        for name, choices in (
            ("precision", ("32-true", "16-mixed", "bf16-mixed")), ("granularity", ("epoch", "step")),
            ("select", ("last", "validation")),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("max_length", "epochs", "batch_size", "accumulate", "protocol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.accumulate > self.batch_size:
            raise UserError(f"accumulate must be at most batch_size ({self.batch_size}), got {self.accumulate}")
        if not 0.0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be a number above 0, got {self.learning_rate!r}")
        if not 0.0 <= self.warmup < 1.0 or not 0.0 <= self.clip < math.inf or not 0.0 <= self.weight_decay < math.inf:
            raise UserError(
                "warmup must be in [0, 1), clip and weight_decay at least 0, got "
                f"{self.warmup!r}, {self.clip!r} and {self.weight_decay!r}"
            )

    def rate(self, epoch: float) -> float:
        """The learning rate after so many epochs, parts of one included."""
        done = epoch / self.epochs
        if done < self.warmup:
            return self.learning_rate * done / self.warmup
        return self.learning_rate * max(0.0, 1.0 - done) / (1.0 - self.warmup)

    def scored(self, epoch: int) -> bool:
        """Whether the parts are scored after this epoch (counted from 0)."""
        return not self.evaluate or epoch + 1 in (*self.evaluate, self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, lists for tuples."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return plain | {"model": self.net} if self.digest else plain

    @staticmethod
    def classifier() -> type[Classifier]:
        """What Lightning trains."""
        from crossfade.lab.train.deep.text import TextClassifier

        return TextClassifier

    @staticmethod
    def side_by_side() -> tuple[type[Any], type[Member]]:
        """What lays examples ready and what is trained where several networks are trained at once."""
        from crossfade.lab.train.deep.text_member import TextFeed, TextMember

        return TextFeed, TextMember

    # What the runner asks of any recipe.
    watch = 0

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """One: a published protocol has its own."""
        return (self.learning_rate,)

    def cost(self, shape: Shape) -> float:
        """A training counts by its words and epochs alone."""
        return 3.0 * shape.rows * self.epochs
