"""Texts as token numbers for an LSTM."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UserError
from crossfade.lab.data.split import Mask
from crossfade.lab.data.texts import TextPart, TextSplit
from crossfade.lab.train.lstm.recipe import LstmRecipe

UNKNOWN = 0  # stands for rare words, and for the missing words of an empty text
_WORD = re.compile(r"\w+(?:'\w+)*|[!?]")  # ! and ? tell something about a review


@dataclass(frozen=True, eq=False)
class TokenPart:
    """Examples of different lengths, with their tokens in one array.

    Args:
        tokens: (total,) token numbers.
        offsets: (N + 1,) example i has tokens[offsets[i] : offsets[i + 1]], at least one.
        labels: (N,) class numbers.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each example."""
        return np.diff(self.offsets)


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """Training, validation and test part; token numbers in [0, vocabulary), labels in [0, classes)."""

    train: TokenPart
    val: TokenPart
    test: TokenPart
    vocabulary: int
    classes: int
    tested: Mask | None = None

    @property
    def parts(self) -> dict[str, TokenPart]:
        """The parts by their names."""
        return {"train": self.train, "val": self.val, "test": self.test}


def words(text: str) -> list[str]:
    """Return the text's words in lower case, ! and ?; in any script.

    >>> words("Don't buy: it's 2 sizes too small!")
    ["don't", 'buy', "it's", '2', 'sizes', 'too', 'small', '!']
    """
    return _WORD.findall(text.lower().replace("’", "'"))


def tokenize(split: TextSplit, recipe: LstmRecipe) -> TokenSplit:
    """Number the words of all parts: the most frequent of the training part first, from 1 on; 0 is any other.

    A text is cut after ``recipe.max_length`` words.

    Raises:
        UserError: no validation part; pairs of texts; or hardly any words in the training part.
    """
    if split.validation is None:
        raise UserError("an LSTM's epoch is chosen on validation texts; use select='validation'")
    if split.train.seconds is not None:
        raise UserError("--text: an LSTM reads one text; name one column, or use --net bert:NAME for pairs")
    counts = Counter(word for text in split.train.texts for word in words(text))
    kept = sorted((word for word, count in counts.items() if count >= recipe.min_count), key=lambda w: (-counts[w], w))
    if not kept:
        raise UserError(
            f"no word occurs {recipe.min_count} times in the training texts; an LSTM has nothing to learn from: "
            "give it more texts, or use --net bert:NAME"
        )
    numbers = {word: at for at, word in enumerate(kept[: recipe.vocabulary - 1], 1)}

    def numbered(part: TextPart) -> TokenPart:
        cut = [words(text)[: recipe.max_length] for text in part.texts]
        coded = [[numbers.get(word, UNKNOWN) for word in text] or [UNKNOWN] for text in cut]
        offsets = np.cumsum([0, *map(len, coded)])
        return TokenPart(np.array([n for text in coded for n in text], np.int32), offsets, part.labels)

    parts = numbered(split.train), numbered(split.validation), numbered(split.test)
    return TokenSplit(*parts, len(numbers) + 1, split.classes, split.tested)
