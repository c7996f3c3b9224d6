"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import nn

from crossfade.lab.data.images import Part
from crossfade.lab.methods import method as method


def noise(count: int, classes: int = 4, side: int = 8, seed: int = 0) -> Part:
    """Dark noise whose red channel grows with the class: something that can be learnt in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 128, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    images[:, 0] += (labels * 30).to(torch.uint8).view(-1, 1, 1)
    return Part(images, labels)


def folder(root: Path, each: int = 10) -> None:
    """Write images of noise, ``each`` of every class, in folders x, y and z of a folder."""
    part = noise(3 * each, classes=3, side=16)
    for at, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
        place = root / "xyz"[int(label)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{at}.png")


def tiny(norm: bool):
    """A network that trains in milliseconds; without batch normalisation it can be split over processes exactly."""

    def make(classes: int) -> nn.Module:
        layer = nn.BatchNorm2d(8) if norm else nn.Identity()
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), layer, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
        )

    return make
