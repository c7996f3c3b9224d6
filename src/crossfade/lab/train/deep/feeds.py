"""A repeat's examples as the graphs of an epoch's steps take them: in memory that stays where it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from crossfade.lab.data.images import ImageSplit
from crossfade.lab.data.texts import TextSplit
from crossfade.lab.train.checks import expect
from crossfade.lab.train.deep.batches import Batch, DeepSplit, EvalBatches, TextBatches, TrainBatches
from crossfade.lab.train.deep.pretrained import encode, load_tokenizer
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe, TextRecipe
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.train.lstm.tokens import epoch_batches

Kind: TypeAlias = tuple[int, ...]  # of a step: how many examples, and whatever else its shapes depend on

_SCORED_IMAGES, _SCORED_TEXTS = 2_500, 512  # at once
_BUCKET = 32  # texts are filled up to a multiple of this length: a step of another length is another graph


class ImageFeed:
    """A repeat's images and labels as an epoch takes them.

    Attributes:
        kinds: Of the epoch's steps.
        parts: What is scored.
    """

    def __init__(
        self, split: ImageSplit, recipe: ImageRecipe, hardware: Hardware, seed: int, device: torch.device
    ) -> None:
        self.device = device
        self.batches = TrainBatches(split, recipe.augment, recipe.batch_size, seed, device)
        self.kinds: list[Kind] = [(stop - start,) for start, stop in pairwise(self.batches.bounds)]
        scored = {"val": split.validation, "test": split.test}
        self.parts: Mapping[str, Iterable[Batch]] = {
            name: EvalBatches(part, split, _SCORED_IMAGES, device) for name, part in scored.items() if part is not None
        }
        pixels, self.channels_last = self.batches.pixels, hardware.channels_last
        side = (pixels.height, pixels.width)
        # bfloat16 is what autocast makes of them before the first layer.
        dtype = torch.bfloat16 if recipe.precision == "bf16-mixed" else torch.float32
        shape = (pixels.count, *side, 3) if self.channels_last else (pixels.count, 3, *side)
        self.images = torch.empty(shape, device=device, dtype=dtype)
        self.labels = torch.empty(pixels.count, dtype=torch.int64, device=device)
        self.offsets = torch.arange(max(self.kinds)[0], device=device)

    def begin(self, epoch: int) -> None:
        """Lay the epoch's images ready."""
        self.batches.set_epoch(epoch)
        order, draws = self.batches.choices()
        torch.index_select(self.batches.labels, 0, order, out=self.labels)
        for start in range(0, len(order), _SCORED_IMAGES):
            mine = order[start : start + _SCORED_IMAGES]
            images = self.batches.pixels.batch(mine, draws.rows(mine))
            self.images[start : start + len(mine)].copy_(images.permute(0, 2, 3, 1) if self.channels_last else images)

    def batch(self, first: Tensor, kind: Kind) -> tuple[Any, Tensor]:
        """Return inputs and labels of the epoch's places ``first``, ``first`` + 1, ..."""
        mine = first + self.offsets[: kind[0]]
        images = self.images.index_select(0, mine)
        return images.permute(0, 3, 1, 2) if self.channels_last else images, self.labels.index_select(0, mine)


class TextFeed:
    """A repeat's tokens and labels on the device, and an epoch's order.

    Attributes:
        kinds: Of the epoch's steps; the second number is the texts' length.
        parts: What is scored.
    """

    def __init__(self, split: TextSplit, recipe: TextRecipe, seed: int, device: torch.device) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        tokenizer = load_tokenizer(recipe.model)
        tokens, self.lengths = encode(split.train, recipe.model, recipe.max_length)
        self.left = tokenizer.padding_side == "left"
        self.inputs = {name: values.to(device) for name, values in self._padded(tokens, tokenizer).items()}
        self.labels = torch.as_tensor(split.train.labels).to(device)
        self.order = torch.zeros(len(self.lengths), dtype=torch.int64, device=device)
        self.offsets = torch.arange(recipe.batch_size, device=device)
        self.kinds: list[Kind] = []
        scored = {"val": split.validation, "test": split.test}
        self.parts: Mapping[str, Iterable[Batch]] = {  # padded once
            name: list(TextBatches(part, recipe, tokenizer, None, device, scored=_SCORED_TEXTS))
            for name, part in scored.items()
            if part is not None
        }

    def begin(self, epoch: int) -> None:
        """Lay the epoch's order ready."""
        batches = epoch_batches(self.seed, epoch, self.lengths, self.recipe.batch_size)
        self.order.copy_(torch.from_numpy(np.concatenate(batches)))
        self.kinds = [(len(rows), self._filled(int(self.lengths[rows[0]]))) for rows in batches]

    def batch(self, first: Tensor, kind: Kind) -> tuple[Any, Tensor]:
        """Return tokens and labels of the epoch's places ``first``, ``first`` + 1, ..."""
        examples, length = kind
        rows = self.order.index_select(0, first + self.offsets[:examples])
        places = slice(-length, None) if self.left else slice(length)
        inputs = {name: values.index_select(0, rows)[:, places] for name, values in self.inputs.items()}
        return inputs, self.labels.index_select(0, rows)

    def _padded(self, tokens: Mapping[str, list[list[int]]], tokenizer: Any) -> dict[str, Tensor]:
        """Return the tokens as the tokenizer pads, which itself takes seconds for ten thousand texts."""
        longest, total = self._filled(int(self.lengths.max())), int(self.lengths.sum())
        first = {name: rows[:1] for name, rows in tokens.items()}
        one = tokenizer.pad(first, padding="max_length", max_length=int(self.lengths[0]) + 1)
        places = np.arange(longest)[:: -1 if self.left else 1] < self.lengths[:, None]
        out = {}
        for name, rows in tokens.items():
            array = np.full(places.shape, one[name][0][0 if self.left else -1], dtype=np.int64)
            array[places] = np.fromiter(chain.from_iterable(rows), np.int64, total)
            out[name] = torch.from_numpy(array)
        return out

    def _filled(self, length: int) -> int:
        return min(-(-length // _BUCKET) * _BUCKET, self.recipe.max_length)


Feed: TypeAlias = ImageFeed | TextFeed


def make_feed(split: DeepSplit, recipe: DeepRecipe, hardware: Hardware, seed: int, device: torch.device) -> Feed:
    """Return the feed of a repeat's split, with the order and augmentation of a seed."""
    if isinstance(split, TextSplit):
        return TextFeed(split, expect("recipe", recipe, TextRecipe), seed, device)
    return ImageFeed(expect("split", split, ImageSplit), expect("recipe", recipe, ImageRecipe), hardware, seed, device)
