"""Transformers as they are fine-tuned side by side: tokens on the device, AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from crossfade.lab.train.deep.member import Kind, Member
from crossfade.lab.train.deep.text import scored_parts
from crossfade.lab.train.deep.text_models import encode, load_classifier, load_tokenizer
from crossfade.lab.train.lstm.setup import epoch_batches

if TYPE_CHECKING:
    from crossfade.lab.data.texts import TextSplit
    from crossfade.lab.train.deep.text_recipe import TextRecipe
    from crossfade.lab.train.hardware import Hardware

__all__ = ["TextFeed", "TextMember"]

_BUCKET = 32  # texts are filled up to a multiple of this length: a step of another length is another graph
_EVAL_BATCH = 512


class TextFeed:
    """A repeat's tokens and labels on the device, and an epoch's order."""

    def __init__(
        self, split: TextSplit, recipe: TextRecipe, hardware: Hardware, seed: int, device: torch.device
    ) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        tokenizer = load_tokenizer(recipe.model)
        tokens, self.lengths = encode(split.train, recipe.model, recipe.max_length)
        self.left = tokenizer.padding_side == "left"
        self.inputs = {name: values.to(device) for name, values in self._padded(tokens, tokenizer).items()}
        self.labels = torch.as_tensor(split.train.labels).to(device)
        self.order = torch.zeros(len(self.lengths), dtype=torch.int64, device=device)
        self.offsets = torch.arange(recipe.batch_size, device=device)
        self.kinds: list[Kind] = []
        scored = scored_parts(split, recipe, tokenizer, device, rows=_EVAL_BATCH)
        self.parts = {name: list(batches) for name, batches in scored.items()}  # padded once

    def begin(self, epoch: int) -> None:
        """Lay the epoch's order ready."""
        order, starts = epoch_batches(self.seed, epoch, self.lengths, self.recipe.batch_size)
        self.order.copy_(torch.from_numpy(order))
        self.kinds = [
            (int(stop - start), self._filled(int(self.lengths[order[start]]))) for start, stop in pairwise(starts)
        ]

    def batch(self, first: Tensor, kind: Kind) -> tuple[Any, Tensor]:
        """Tokens and labels of the epoch's places ``first``, ``first`` + 1, ..."""
        examples, length = kind
        rows = self.order.index_select(0, first + self.offsets[:examples])
        places = slice(-length, None) if self.left else slice(length)
        inputs = {name: values.index_select(0, rows)[:, places] for name, values in self.inputs.items()}
        return inputs, self.labels.index_select(0, rows)

    def _padded(self, tokens: Mapping[str, list[list[int]]], tokenizer: Any) -> dict[str, Tensor]:
        """As the tokenizer pads, which takes seconds for ten thousand texts."""
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


class TextMember(Member):
    """A transformer of the Hugging Face library with a head for classes; AdamW."""

    def build(self) -> nn.Module:
        net: nn.Module = load_classifier(self.recipe.model, self.job.split.classes)
        return net

    def make_optimizer(self) -> torch.optim.Optimizer:
        on_gpu = self.device.type == "cuda"
        return torch.optim.AdamW(
            self.net.parameters(), self.rate, weight_decay=self.recipe.weight_decay, fused=on_gpu, capturable=on_gpu
        )

    @staticmethod
    def forward(net: nn.Module, x: Any) -> Tensor:
        logits: Tensor = net(**x).logits
        return logits
