"""Fine-tuning of a pretrained transformer under one method: what differs from an image network's training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from crossfade.lab.methods import TwoPass
from crossfade.lab.train.deep.lightning import Classifier
from crossfade.lab.train.deep.text_models import encode, load_classifier, load_tokenizer
from crossfade.lab.train.lstm.setup import epoch_batches, scoring_batches

if TYPE_CHECKING:
    from crossfade.lab.data.texts import TextPart, TextSplit
    from crossfade.lab.train.deep.batches import Batch
    from crossfade.lab.train.deep.text_recipe import TextRecipe

__all__ = ["TextBatches", "TextClassifier", "scored_parts"]

_EVAL_BATCH = 64


class TextClassifier(Classifier):
    """A transformer of the Hugging Face library with a head for classes; AdamW."""

    def build(self) -> nn.Module:
        """The pretrained network with a new head."""
        net: nn.Module = load_classifier(self.recipe.model, self.split.classes)
        return net

    def forward(self, x: Any) -> Tensor:
        logits: Tensor = self.net(**x).logits
        return logits

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        recipe = self.recipe
        # Lightning refuses to limit a gradient under mixed precision where the optimizer could unscale it itself.
        fused = recipe.precision == "32-true" or None
        return [
            torch.optim.AdamW(
                self.net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
            )
            for _ in range(1 + isinstance(self.method, TwoPass))
        ]

    def feeds(self, rank: int, world: int) -> tuple[Any, dict[str, Iterable[Batch]]]:
        """Batches of token numbers, padded to their longest example."""
        recipe, tokenizer = self.recipe, load_tokenizer(self.recipe.model)
        scored = scored_parts(self.split, recipe, tokenizer, self.device, rank, world)
        return TextBatches(self.split.train, recipe, tokenizer, self.seed, self.device, rank, world), scored


def scored_parts(
    split: TextSplit,
    recipe: TextRecipe,
    tokenizer: Any,
    device: Any,
    rank: int = 0,
    world: int = 1,
    rows: int = _EVAL_BATCH,
) -> dict[str, Iterable[Batch]]:
    """Batches of ``"val"`` and ``"test"``, as far as there are such parts."""
    parts = {"val": split.validation, "test": split.test}
    return {
        name: TextBatches(part, recipe, tokenizer, None, device, rank, world, rows)
        for name, part in parts.items()
        if part is not None
    }


class TextBatches:
    """Batches of examples of similar length, each padded to its longest.

    Args:
        part: The examples.
        recipe: Batch size, length, and in how many pieces a batch comes.
        tokenizer: Pads.
        seed: Of the order; all of an epoch's randomness comes from (seed, epoch). None: by length, for scoring.
        device: Where the tokens are needed.
        rank, world: This process and how many there are: each gets an equal run of every piece.
        rows: Texts that a process scores at once.
    """

    def __init__(
        self,
        part: TextPart,
        recipe: TextRecipe,
        tokenizer: Any,
        seed: int | None,
        device: Any,
        rank: int,
        world: int,
        rows: int = _EVAL_BATCH,
    ) -> None:
        self.tokens, self.lengths = encode(part, recipe.model, recipe.max_length)
        self.labels = torch.from_numpy(np.ascontiguousarray(part.labels))
        self.tokenizer, self.seed, self.device, self.rank, self.world = tokenizer, seed, device, rank, world
        self.size = recipe.batch_size if seed is not None else rows * world
        self.pieces = recipe.accumulate if seed is not None else 1
        self.epoch = 0

    @property
    def sampler(self) -> TextBatches:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch's."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size) * self.pieces

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            order, starts = scoring_batches(self.lengths, self.size)
        else:
            order, starts = epoch_batches(self.seed, self.epoch, self.lengths, self.size)
        for start, stop in pairwise(starts):
            whole = order[start:stop].astype(np.int64)
            for piece in range(self.pieces):
                mine = np.array_split(np.array_split(whole, self.pieces)[piece], self.world)[self.rank]
                # The loss is a mean over ``mine``; times its share, summed over pieces and averaged over processes (as
                # Lightning and DDP do), it is the mean over the batch.
                share = len(mine) * self.pieces * self.world / len(whole)
                if not len(mine) and self.seed is None:
                    continue
                rows = mine if len(mine) else whole[:1]  # nothing left: all processes must step, with weight 0 then
                yield self._padded(rows), self.labels[rows].to(self.device), torch.from_numpy(rows), share

    def _padded(self, rows: Any) -> Any:
        chosen = {name: [values[at] for at in rows] for name, values in self.tokens.items()}
        return self.tokenizer.pad(chosen, return_tensors="pt").to(self.device)
