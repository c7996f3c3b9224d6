"""Your own images: a folder of class folders, decoded once into one tensor of bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from crossfade.errors import UserError
from crossfade.lab.data.images import ImageSet, Part

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
_PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_LARGEST = 8 << 30  # bytes of decoded images

Listed = Sequence[tuple[Path, str]]


def is_image_folder(folder: str | Path) -> bool:
    """Return whether there are class folders with images; the search stops at the first image."""
    root = Path(folder)
    return root.is_dir() and any(_images(sub) for base in (root, *_parts(root).values()) for sub in _folders(base))


def load_folder(folder: str | Path, *, size: int | None = None) -> ImageSet:
    """Read a folder ``CLASS/*.png``, or ``train/CLASS/*``, ``val/CLASS/*``, ``test/CLASS/*``, as an image set.

    Args:
        folder: Its class folders may hold PNG, JPEG, BMP, GIF, PPM, TIFF or WebP files, in subfolders too. With a
            ``train`` folder there must be a ``test`` or a ``val`` folder; one of them alone is the test part.
        size: Pixels a side. Images are scaled so that the shorter side has so many, and cut in the middle. Default: 32
            where the median shorter side is at most 40, else 64.

    Raises:
        UserError: not a folder, no class folders, one class only, images that can't be read (named), classes that
            differ between the parts, or more than fits into memory.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: not a folder")
    parts = _parts(root)
    if parts and "train" not in parts:
        raise UserError(f"{root}: has {', '.join(sorted(parts))} but no train folder; expected train/CLASS/*")
    bases = parts or {"train": root}
    listed = {name: _list(base) for name, base in bases.items()}
    if "train" in parts and len(parts) == 1:
        raise UserError(
            f"{root}: has a train folder but neither val nor test; add one, or pass {parts['train']} itself"
        )
    classes = tuple(sorted({name for _, name in listed["train"]}))
    if len(classes) < 2:
        raise UserError(f"{bases['train']}: expected at least two class folders with images, got {len(classes)}")
    for name, files in listed.items():
        strange = sorted({own for _, own in files} - set(classes))
        if strange:
            raise UserError(
                f"{bases[name]}: class {strange[0]!r} isn't in the training part; add images there or remove it"
            )
    size = size or _usual_size([path for path, _ in listed["train"]])
    needed = 3 * size * size * sum(map(len, listed.values()))
    if needed > _LARGEST:
        raise UserError(f"{root}: needs {needed / 2**30:.0f} GiB at {size} x {size} pixels; use a smaller --image-size")
    read = {
        name: read_classes(bases[name], size=size, files=files, classes=classes)[0] for name, files in listed.items()
    }
    test = read.get("test", read.get("val"))
    validation = read.get("val") if "test" in read else None
    return ImageSet(root.resolve().name, classes, read["train"], test, validation, source=str(root))


def read_classes(
    base: Path, *, size: int, inside: str = "", files: Listed | None = None, classes: tuple[str, ...] | None = None
) -> tuple[Part, tuple[str, ...]]:
    """Decode ``base/CLASS[/inside]/*`` (or the listed files) to ``size`` x ``size`` pixels.

    Raises:
        UserError: nothing there, or images that can't be read, named.
    """
    files = _list(base, inside) if files is None else files
    classes = tuple(sorted({name for _, name in files})) if classes is None else classes
    number = {name: at for at, name in enumerate(classes)}
    unknown = sorted({name for _, name in files} - set(number))
    if unknown:
        raise UserError(f"{base}: class {unknown[0]!r} isn't in the training part")
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    broken: list[str] = []

    def decode(at: int) -> None:
        path = files[at][0]
        try:
            images[at] = torch.from_numpy(_decode(path, size))
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            broken.append(f"{path} ({_reason(path, error)})")

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without holding Python's lock
        list(pool.map(decode, range(len(files))))
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise UserError(
            f"{len(broken)} image(s) can't be read: {', '.join(sorted(broken)[:3])}{more}; repair or remove them"
        )
    return Part(images, torch.tensor([number[name] for _, name in files], dtype=torch.int64)), classes


def _decode(path: Path, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as file:
        image = _eight_bits(ImageOps.exif_transpose(file), file.format).convert("RGB")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1).copy()


def _eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """Return the image with eight bits a colour. Pillow cuts 16-bit greys off at 255, and nearly all would be white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PNG"):
        return Image.fromarray((np.asarray(image, dtype=np.int64) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel, expected 8 or 16")
    return image


def _reason(path: Path, error: Exception) -> str:
    if path.exists() and path.stat().st_size == 0:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = str(error)
    return "truncated" if "truncated" in text or "Truncated" in text else text.split("\n")[0] or type(error).__name__


def _usual_size(paths: Sequence[Path]) -> int:
    """Choose the size from the headers of up to 200 images, spread over the list."""
    sides = []
    for path in paths[:: max(1, len(paths) // 200)]:
        try:
            with Image.open(path) as file:
                sides.append(min(file.size))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # named when it is decoded
    return 32 if not sides or float(np.median(sides)) <= 40 else 64


def _parts(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for sub in _folders(root):
        # A class may be called "test": only a folder of folders is a part.
        if sub.name.lower() in _PARTS and _folders(sub):
            found[_PARTS[sub.name.lower()]] = sub
    return found


def _folders(base: Path) -> list[Path]:
    return sorted(sub for sub in base.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _list(base: Path, inside: str = "") -> list[tuple[Path, str]]:
    if not base.is_dir():
        raise UserError(f"{base}: no such folder")
    listed = []
    for sub in _folders(base):
        images = _images(sub / inside) if (sub / inside).is_dir() else []
        if not images:
            raise UserError(
                f"{sub}: a class folder without images (PNG, JPEG, BMP, GIF, PPM, TIFF, WebP); remove it or fill it"
            )
        listed += [(path, sub.name) for path in images]
    if not listed:
        raise UserError(f"{base}: no class folders; expected a folder for each class, with its images inside")
    return listed
