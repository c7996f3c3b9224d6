"""What goes into the training of an LSTM classifier and what comes out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UserError
from crossfade.lab.train.outcome import Curve, Floats

if TYPE_CHECKING:
    from crossfade.lab.methods import Method
    from crossfade.lab.trial import Shape

__all__ = ["LstmHistory", "LstmMember", "LstmRecipe", "TokenPart", "TokenSplit"]

_INDEX = 2**31  # tokens and examples are counted in 32 bits


@dataclass(frozen=True, eq=False)
class TokenPart:
    """Examples of different lengths: the tokens of all of them one after the other.

    Args:
        tokens: (total,) token numbers; becomes int32.
        offsets: (N + 1,) example i has tokens[offsets[i] : offsets[i + 1]], at least one; becomes int64.
        labels: (N,) class numbers; becomes int64.

    Raises:
        UserError: shapes that don't fit, or an example without tokens.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, kind in (("tokens", np.int32), ("offsets", np.int64), ("labels", np.int64)):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=kind))
        tokens, offsets, labels = self.tokens, self.offsets, self.labels
        if tokens.ndim != 1 or labels.ndim != 1 or offsets.shape != (len(labels) + 1,) or len(tokens) >= _INDEX:
            raise UserError(
                "tokens must be (total,), labels (N,) and offsets (N + 1,), got "
                f"{tokens.shape}, {labels.shape} and {offsets.shape}"
            )
        if offsets[0] != 0 or offsets[-1] != len(tokens):
            raise UserError(f"offsets must run from 0 to {len(tokens)}, got {offsets[0]} to {offsets[-1]}")
        if len(labels) and self.lengths.min() < 1:
            at = int(self.lengths.argmin())
            raise UserError(f"every example must have at least one token, example {at} has {self.lengths[at]}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each example."""
        return np.diff(self.offsets)


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """Training, validation and test part; token numbers in [0, vocabulary), labels in [0, classes).

    Raises:
        UserError: numbers outside these ranges, no training or no validation example. The test part may be empty.
    """

    train: TokenPart
    val: TokenPart
    test: TokenPart
    vocabulary: int
    classes: int

    def __post_init__(self) -> None:
        if self.vocabulary < 1 or self.classes < 1:
            raise UserError(f"vocabulary and classes must be at least 1, got {self.vocabulary} and {self.classes}")
        for name in ("train", "val", "test"):
            part: TokenPart = getattr(self, name)
            for what, values, limit in (
                ("token numbers", part.tokens, self.vocabulary), ("class numbers", part.labels, self.classes),
            ):  # fmt: skip
                if len(values) and not (values.min() >= 0 and values.max() < limit):
                    got = f"{values.min()} to {values.max()}"
                    raise UserError(f"{name} must hold {what} in [0, {limit}), got {got}")
        if not len(self.train):
            raise UserError("the training part has no examples: there is nothing to learn from")
        if not len(self.val):
            raise UserError("the validation part has no examples: it chooses the epoch; give it some")


@dataclass(frozen=True)
class LstmRecipe:
    """An embedding, LSTM layers, a linear layer on the output at the last token; trained with Adam.

    Args:
        embedding, hidden, layers: Size of a token's vector, cells of a layer, layers. At most four layers.
        epochs, batch_size: The last batch cut may be smaller.
        learning_rate: Of ``torch.optim.Adam`` with betas (0.9, 0.999), eps 1e-8 and no weight decay.
        clip: Greatest 2-norm of a network's whole gradient, as ``clip_grad_norm_``; 0 for no limit.
        max_length: Tokens of a text that are kept. Applied where tokens are made.
        granularity: The loss's schedule moves at each ``"epoch"`` (progress = epoch / epochs) or each ``"step"``.
        select: The result is that of the epoch with the best ``"validation"`` accuracy (the first of several), or the
            ``"last"`` epoch's.
        min_count, vocabulary: A word must be seen so often in the training part, and so many words are kept. Applied
            where tokens are made.
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
        for name, choices in (("granularity", ("epoch", "step")), ("select", ("validation", "last"))):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in (
            "embedding", "hidden", "layers", "epochs", "batch_size", "max_length", "min_count", "vocabulary",
            "protocol",
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < _INDEX:
                raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.layers > 4:
            raise UserError(f"layers must be at most 4, got {self.layers}")
        if not 0.0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be a finite number above 0, got {self.learning_rate!r}")
        if not 0.0 <= self.clip < math.inf:
            raise UserError(f"clip must be a finite number of at least 0 (0 for no limit), got {self.clip!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``LstmRecipe(**recipe.to_dict()) == recipe``, also after a trip through JSON or TOML."""
        return asdict(self)

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """One: what a comparison tries for each method."""
        return (self.learning_rate,)

    def weights(self, classes: int) -> int:
        """Weights that a token meets.

        >>> LstmRecipe().weights(5)
        20250
        """
        first = 4 * self.hidden * (self.embedding + self.hidden)
        return first + 8 * self.hidden**2 * (self.layers - 1) + self.hidden * classes

    def cost(self, shape: Shape) -> float:
        """Multiply-adds of the whole training."""
        return 3.0 * shape.rows * self.weights(shape.classes) * self.epochs


@dataclass(frozen=True, eq=False)
class LstmMember:
    """One network to train. Initial weights and the order of examples derive from ``seed``, shapes and lengths alone.

    Raises:
        UserError: a seed out of range.
    """

    split: TokenSplit
    method: Method
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed must be a whole number in [0, 2^63), got {self.seed!r}")


@dataclass(frozen=True, eq=False)
class LstmHistory:
    """One network's training. Curves have one value an epoch, measured after it; nll is the mean CE in nats.

    From the epoch on in which weights or loss stopped being finite, the curves are NaN; the best epoch is one before
    it. If there is none it is -1, and weights and test probabilities are NaN.
    """

    train_loss: Curve  # mean of the method's own loss over the epoch's examples
    val_accuracy: Curve
    val_nll: Curve
    test_accuracy: Curve
    test_nll: Curve
    best_epoch: int  # counted from 0
    test_probabilities: Floats  # (test examples, classes) at the best epoch
    weights: dict[str, Floats]  # at the best epoch, in the names and shapes of LstmClassifier.state_dict()
    engine: str  # which engine trained it
