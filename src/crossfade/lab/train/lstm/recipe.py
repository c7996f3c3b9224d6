"""The recipe for training an LSTM, and the networks to train by it: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from crossfade.errors import UserError
from crossfade.lab.checks import check_choices, check_count, check_positive

if TYPE_CHECKING:
    from crossfade.lab.methods import Method
    from crossfade.lab.train.lstm.tokens import TokenSplit
    from crossfade.lab.trial import Shape


@dataclass(frozen=True)
class LstmRecipe:
    """An embedding, LSTM layers, and a linear layer on the output at the last token; trained with Adam.

    Args:
        embedding, hidden, layers: Size of a token's vector, cells of a layer, layers. At most four layers.
        epochs, batch_size: One batch of an epoch may be smaller.
        learning_rate: The rate of ``torch.optim.Adam`` with betas (0.9, 0.999), eps 1e-8 and no weight decay.
        clip: The limit of the 2-norm of a network's whole gradient, as ``clip_grad_norm_``; 0 for no limit.
        max_length: Texts are cut after this many tokens when they are tokenized.
        granularity: The loss's schedule moves at each ``"epoch"`` (progress = epoch / epochs) or each ``"step"``.
        select: The result is that of the epoch with the best ``"validation"`` accuracy (the first of several), or the
            ``"last"`` epoch's.
        min_count, vocabulary: How often a word must occur in the training part, and how many words are kept, when texts
            are tokenized.
        scale: ``"paper"`` for the full protocol; anything shorter says so.
        protocol: Raised when the meaning of a recipe changes.

    Raises:
        UserError: a value out of range.
    """

    embedding: int = 50
    hidden: int = 50
    layers: int = 1
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    clip: float = 0.0
    max_length: int = 128
    granularity: Literal["epoch", "step"] = "epoch"
    select: Literal["validation", "last"] = "validation"
    min_count: int = 2
    vocabulary: int = 20000
    scale: str = "paper"
    protocol: int = 1

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("embedding", "hidden", "layers", "epochs", "batch_size", "max_length", "min_count", "vocabulary"):
            check_count(name, getattr(self, name))
        check_count("protocol", self.protocol)
        if self.layers > 4:
            raise UserError(f"layers must be at most 4, got {self.layers}")
        check_positive("learning_rate", self.learning_rate)
        check_positive("clip", self.clip, zero=True)

    def to_dict(self) -> dict[str, object]:
        """Return plain data: ``LstmRecipe(**recipe.to_dict()) == recipe``, also after a trip through JSON or TOML."""
        return asdict(self)

    @property
    def learning_rates(self) -> tuple[float, ...]:
        return (self.learning_rate,)

    def steps(self, examples: int) -> int:
        """Return the number of steps in an epoch with this number of examples."""
        return -(-examples // self.batch_size)

    def moves(self, examples: int) -> int:
        """Return how often the schedule's weights change in an epoch with this number of examples."""
        return self.steps(examples) if self.granularity == "step" else 1

    def weights(self, classes: int) -> int:
        """Return how many weights are used for a token.

        >>> LstmRecipe().weights(5)
        20250
        """
        first = 4 * self.hidden * (self.embedding + self.hidden)
        return first + 8 * self.hidden**2 * (self.layers - 1) + self.hidden * classes

    def cost(self, shape: Shape) -> float:
        return 3.0 * shape.rows * self.weights(shape.classes) * self.epochs

    def memory(self, shape: Shape, methods: int) -> float:
        """Return the bytes that a repeat takes, roughly: as measured, up to eight times the weights of each network."""
        return 8 * 4.0 * self.weights(shape.classes) * methods


@dataclass(frozen=True, eq=False)
class LstmMember:
    """One network to train. Initial weights and the order of examples follow from seed, shapes and lengths alone."""

    split: TokenSplit
    method: Method
    seed: int
