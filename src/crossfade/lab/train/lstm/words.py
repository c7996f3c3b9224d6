"""From texts to the word numbers that an LSTM reads: the vocabulary comes from the training part alone."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.train.lstm.types import LstmRecipe, TokenPart, TokenSplit

if TYPE_CHECKING:
    from crossfade.lab.data.texts import TextPart, TextSplit

__all__ = ["UNKNOWN", "tokenize", "words"]

UNKNOWN = 0  # a word that the training part doesn't have often enough, and a text without any word
_WORD = re.compile(r"\w+(?:['’]\w+)*|[!?]")  # an exclamation or a question says something about a review


def words(text: str) -> list[str]:
    """Lower-case words, ! and ?; any script.

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
    known = [words(text) for text in split.train.texts]
    counts = Counter(word for text in known for word in text)
    kept = sorted((word for word, count in counts.items() if count >= recipe.min_count), key=lambda w: (-counts[w], w))
    if not kept:
        raise UserError(
            f"no word occurs {recipe.min_count} times in the training texts; an LSTM has nothing to learn from: "
            "give it more texts, or use --net bert:NAME"
        )
    numbers = {word: at for at, word in enumerate(kept[: recipe.vocabulary - 1], 1)}
    train, validation, test = (
        _part(texts, part, numbers, recipe.max_length)
        for texts, part in (
            (known, split.train), ([words(t) for t in split.validation.texts], split.validation),
            ([words(t) for t in split.test.texts], split.test),
        )
    )  # fmt: skip
    return TokenSplit(train, validation, test, len(numbers) + 1, split.classes)


def _part(texts: list[list[str]], part: TextPart, numbers: dict[str, int], longest: int) -> TokenPart:
    coded = [[numbers.get(word, UNKNOWN) for word in text[:longest]] or [UNKNOWN] for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in coded])])
    return TokenPart(np.array([n for text in coded for n in text], np.int32), offsets, part.labels)
