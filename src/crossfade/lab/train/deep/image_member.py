"""Image networks as they are trained side by side: images on the device, SGD, batch normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossfade.lab.data.images import ImageSplit
from crossfade.lab.nets import build
from crossfade.lab.train.deep.batches import EvalBatches, TrainBatches
from crossfade.lab.train.deep.member import Kind, Member
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.hardware import Hardware

__all__ = ["ImageFeed", "ImageMember"]

_EVAL_BATCH = 2_500


class ImageFeed:
    """A repeat's images and labels as an epoch takes them, in memory that stays where it is."""

    def __init__(
        self, split: ImageSplit, recipe: ImageRecipe, hardware: Hardware, seed: int, device: torch.device
    ) -> None:
        self.device = device
        self.batches = TrainBatches(split, recipe.augment, recipe.batch_size, seed, device)
        self.kinds: list[Kind] = [(stop - start,) for start, stop in pairwise(self.batches.bounds)]
        scored = {"val": split.validation, "test": split.test}
        self.parts = {name: EvalBatches(part, split, _EVAL_BATCH, device) for name, part in scored.items() if part}
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
        for start in range(0, len(order), _EVAL_BATCH):
            mine = order[start : start + _EVAL_BATCH]
            images = self.batches.pixels.batch(mine, draws.rows(mine))
            self.images[start : start + len(mine)].copy_(images.permute(0, 2, 3, 1) if self.channels_last else images)

    def batch(self, first: Tensor, kind: Kind) -> tuple[Any, Tensor]:
        """Inputs and labels of the epoch's places ``first``, ``first`` + 1, ..."""
        mine = first + self.offsets[: kind[0]]
        images = self.images.index_select(0, mine)
        return images.permute(0, 3, 1, 2) if self.channels_last else images, self.labels.index_select(0, mine)


class ImageMember(Member):
    """A network of ``crossfade.lab.nets`` and SGD."""

    def build(self) -> nn.Module:
        recipe: ImageRecipe = self.recipe
        net = build(recipe.net, self.job.split.classes, pretrained=recipe.pretrained, dropout=recipe.dropout)
        self.norms = [
            layer
            for layer in net.modules()
            # without a momentum, the count is the average's divisor
            if isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.momentum is not None
        ]
        return net.to(memory_format=torch.channels_last) if self.hardware.channels_last else net

    def make_optimizer(self) -> torch.optim.Optimizer:
        recipe: ImageRecipe = self.recipe
        return torch.optim.SGD(
            self.net.parameters(), self.rate, recipe.momentum, weight_decay=recipe.weight_decay,
            fused=self.device.type == "cuda",
        )  # fmt: skip

    def around_step(self) -> AbstractContextManager[None]:
        return _uncounted(self.norms)

    def end(self, epoch: int) -> None:
        for norm in self.norms:
            cast("Tensor", norm.num_batches_tracked).add_(len(self.feed.kinds))
        super().end(epoch)

    def scoring_inputs(self, x: Any) -> Any:
        return x.contiguous(memory_format=torch.channels_last) if self.hardware.channels_last else x


@contextmanager
def _uncounted(norms: Sequence[Any]) -> Iterator[None]:
    """Batch normalisation without its count of batches, a kernel for each layer: the host counts."""
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, count in zip(norms, counts, strict=True):
            norm.num_batches_tracked = count
