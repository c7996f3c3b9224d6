"""Random crop, flip, rotation, erasing and colour jitter of small images that live on the device, a batch at a time.

All random choices of an epoch are drawn at once, on the CPU, from a generator of their own. They depend on the seed,
the epoch and the image's index in the data set alone. So they are the same for every method, batch size, device and
number of processes, and in a resumed run, and no batch waits for the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from crossfade.lab.train.deep.recipe import Augment

_GREY = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision and Pillow weigh
_ATTEMPTS = 10


@dataclass(frozen=True, eq=False)
class Draws:
    """The random choices of one epoch, a row for each training image; None for a step that isn't used."""

    top: Tensor | None = None  # (N,) int64, first row of the window in the bordered image
    left: Tensor | None = None
    mirror: Tensor | None = None  # (N,) uint8: 255 where the image is mirrored, else 0
    angle: Tensor | None = None  # (N,) float32, radians, counter-clockwise
    factor: Tensor | None = None  # (N, 3) or with hue (N, 4) float32, in the order in which they are applied
    kind: Tensor | None = None  # int64 of the same shape: 0 brightness, 1 contrast, 2 saturation, 3 hue
    box: Tensor | None = None  # (N, 4) int64: first row, first column, end row, end column; empty for no erasing

    def to(self, device: torch.device) -> Draws:
        return self._map(lambda column: column.to(device, non_blocking=True))

    def rows(self, index: Tensor) -> Draws:
        return self._map(lambda column: column.index_select(0, index))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Draws:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return Draws(**{name: None if column is None else function(column) for name, column in columns.items()})


def draw(augment: Augment, images: int, height: int, width: int, generator: torch.Generator) -> Draws:
    """Return the choices for every image of one epoch.

    Each step has a random stream of its own, derived from ``generator`` in a fixed order, so that erasing, for example,
    doesn't change the crops.
    """
    seeds = torch.randint(0, 2**62, (5,), generator=generator).tolist()
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    columns: dict[str, Tensor] = {}
    if augment.crop:
        columns["top"], columns["left"] = torch.randint(0, 2 * augment.crop + 1, (2, images), generator=streams[0])
    if augment.flip:
        columns["mirror"] = torch.randint(0, 2, (images,), generator=streams[1]).mul_(255).to(torch.uint8)
    if augment.rotation:
        bound = math.radians(augment.rotation)
        columns["angle"] = (2 * torch.rand(images, generator=streams[2]) - 1) * bound
    if augment.jitter or augment.hue:
        steps = 4 if augment.hue else 3
        place = 2 * torch.rand(images, steps, generator=streams[3]) - 1
        columns["kind"] = torch.rand(images, steps, generator=streams[3]).argsort(1)
        columns["factor"] = torch.where(columns["kind"] == 3, augment.hue * place, 1 + augment.jitter * place)
    if augment.erasing:
        columns["box"] = _boxes(augment.erasing, images, height, width, streams[4])
    return Draws(**columns)


def _boxes(probability: float, images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return boxes as torchvision's ``RandomErasing``: the first of ten that fits into the image, or an empty one."""
    tries = torch.rand(4, images, _ATTEMPTS, generator=generator, dtype=torch.float64)
    area = height * width * (0.02 + (0.4 - 0.02) * tries[0])
    ratio = torch.exp(math.log(0.3) * (1 - 2 * tries[1]))
    high, wide = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (high < height) & (wide < width)
    first = fits.long().argmax(1, keepdim=True)
    high, wide = high.gather(1, first).squeeze(1), wide.gather(1, first).squeeze(1)
    row = (tries[2].gather(1, first).squeeze(1) * (height - high + 1)).long()
    column = (tries[3].gather(1, first).squeeze(1) * (width - wide + 1)).long()
    done = fits.any(1) & (torch.rand(images, generator=generator) < probability)
    return torch.stack([row, column, row + high, column + wide], 1) * done.unsqueeze(1)


class Pixels:
    """Images on a device, from which augmented batches are made.

    They are stored as uint8 with their black border, plane by plane, so that a row of any window is contiguous.

    Args:
        images: (N, 3, H, W) uint8.
        mean, std: (3,) mean and standard deviation of the training part's pixels in [0, 1].
        border: The ``crop`` of the augmentation.
    """

    def __init__(
        self, images: Tensor, mean: Tensor, std: Tensor, *, border: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.count, _, self.height, self.width = images.shape
        self.border = border
        self.device = torch.device(device)
        high, wide = self.height + 2 * border, self.width + 2 * border
        bordered = torch.zeros(self.count, 3, high, wide, dtype=torch.uint8, device=self.device)
        bordered[:, :, border : border + self.height, border : border + self.width] = images.to(self.device)
        flat = bordered.view(-1)
        # All windows of one row, overlapping: a batch's rows are then plain copies of W bytes each.
        self._windows = flat.as_strided((max(flat.numel() - self.width + 1, 0), self.width), (1, 1))
        self._strides = (3 * high * wide, wide)  # of an image and of a row
        row = torch.arange(self.height, device=self.device) * wide
        self._place = torch.arange(3, device=self.device).view(1, 3, 1) * (high * wide) + row
        self._scale = (1 / (255 * std)).float().view(3, 1, 1).to(self.device)
        self._shift = (-mean / std).float().view(3, 1, 1).to(self.device)

    def batch(self, index: Tensor, draws: Draws | None = None) -> Tensor:
        """Return the images (B, 3, H, W) with these indices, normalised, float32, and augmented by their own draws."""
        draws = draws or Draws()
        images = self._cut(index, draws)
        if draws.mirror is not None:
            mirrored = images.flip(3)
            # x ^ ((x ^ y) & mask) selects bytes without a branch, several times faster on a CPU than torch.where
            images = mirrored.bitwise_xor_(images).bitwise_and_(draws.mirror.view(-1, 1, 1, 1)).bitwise_xor_(images)
        if draws.angle is not None:
            images = _rotate(images, draws.angle)
        batch = images.float()
        if draws.factor is not None and draws.kind is not None:
            batch = self._jitter(batch.div_(255), draws.factor, draws.kind).mul_(255)
        batch.mul_(self._scale).add_(self._shift)
        if draws.box is not None:
            _erase(batch, draws.box)
        return batch

    def _cut(self, index: Tensor, draws: Draws) -> Tensor:
        image, row = self._strides
        start = index * image
        if draws.top is not None and draws.left is not None:
            start = start + draws.top * row + draws.left
        else:
            start = start + self.border * (row + 1)
        place = (start.view(-1, 1, 1) + self._place).view(-1)
        return self._windows.index_select(0, place).view(len(index), 3, self.height, self.width)

    def _jitter(self, batch: Tensor, factor: Tensor, kind: Tensor) -> Tensor:
        """Apply the steps in each image's own order, but hue, the most expensive one, once for all images together."""
        hue = kind == 3
        if factor.shape[1] == 3:
            return self._blend(batch, factor, kind)
        later = hue.cumsum(1) > 0
        # A factor of 1 doesn't change a bit of an image.
        batch = self._blend(batch, factor.masked_fill(later, 1.0)[:, :3], kind[:, :3])
        batch = _turn_hue(batch, (factor * hue).sum(1))
        return self._blend(batch, factor.masked_fill(~later | hue, 1.0)[:, 1:], kind[:, 1:])

    def _blend(self, batch: Tensor, factor: Tensor, kind: Tensor) -> Tensor:
        """Blend each image in place: with black, with its mean grey or with its grey version."""
        flat = batch.view(len(batch), 3, -1)
        red, green, blue = torch.split(flat, 1, dim=1)
        steps = torch.stack([factor, (1 - factor) * (kind == 1), (1 - factor) * (kind == 2)])
        for own, mean, pixel in steps.view(3, len(batch), 3, 1, 1).unbind(2):
            grey = (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])
            other = grey.mul(pixel).add_(grey.mean(2, keepdim=True).mul_(mean))
            flat.mul_(own).add_(other).clamp_(0, 1)
        return batch


def _turn_hue(batch: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by ``shift`` circles (Smith 1978), without a branch for each sector.

    With h in sixths of the circle, channel n = 5, 3, 1 (red, green, blue) is V - C clamp(min(k, 4 - k), 0, 1) with
    k = (n + h) mod 6, V the largest of the three channels and C its difference to the smallest.
    """
    largest, smallest = batch.amax(1), batch.amin(1)
    chroma = largest - smallest
    red, green, blue = batch.unbind(1)
    scale = torch.where(chroma > 0, chroma, 1.0)
    sixth = torch.where(
        largest == red,
        (green - blue) / scale,
        torch.where(largest == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    sixth = sixth + 6 * shift.view(-1, 1, 1)
    k = (sixth.unsqueeze(1) + torch.arange(5, 0, -2, device=batch.device).view(3, 1, 1)).remainder_(6)
    return largest.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp_(0, 1)


def _rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate counter-clockwise about the centre by the nearest pixel, with black outside."""
    number, _, height, width = images.shape
    radius = math.hypot(height - 1, width - 1) / 2
    # With a black margin that the corners stay in, no pixel has to be tested.
    top, left = (math.ceil(radius - (side - 1) / 2) + 1 for side in (height, width))
    canvas = torch.nn.functional.pad(images, (left, left, top, top))
    y = torch.arange(height, device=images.device).view(1, -1, 1) - (height - 1) / 2
    x = torch.arange(width, device=images.device).view(1, 1, -1) - (width - 1) / 2
    sine, cosine = angle.sin().view(-1, 1, 1), angle.cos().view(-1, 1, 1)
    row = (x * sine + y * cosine).add_((height - 1) / 2).round_()
    column = (x * cosine - y * sine).add_((width - 1) / 2).round_()
    stride = canvas.shape[3]
    source = column.add_(row, alpha=stride).add_(top * stride + left).long().view(number, 1, -1).expand(-1, 3, -1)
    return canvas.view(number, 3, -1).gather(2, source).view_as(images)


def _erase(batch: Tensor, box: Tensor) -> None:
    """Set the boxes of normalised images to zero, the mean colour, in place."""
    y = torch.arange(batch.shape[2], device=batch.device).view(1, -1, 1)
    x = torch.arange(batch.shape[3], device=batch.device).view(1, 1, -1)
    top, left, bottom, right = (edge.view(-1, 1, 1) for edge in box.unbind(1))
    # The product of a row's and a column's test is faster than a test of every pixel.
    inside = ((y >= top) & (y < bottom)).to(batch.dtype) * ((x >= left) & (x < right)).to(batch.dtype)
    batch.mul_((1 - inside).unsqueeze(1))
