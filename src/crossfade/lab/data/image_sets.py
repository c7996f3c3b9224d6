"""Image sets read from files: a user's folder with a folder for each class, and the published sets of small images."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from crossfade.errors import UserError
from crossfade.lab.data.images import ImageSet, Part
from crossfade.lab.data.sources import CATALOGUE
from crossfade.lab.hardware import check_memory

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
_PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Read: TypeAlias = tuple[Part, Part, tuple[str, ...]]  # training part, test part, classes
_Files: TypeAlias = Sequence[tuple[Path, str]]  # each with its class


def load_folder(folder: str | Path, *, size: int | None = None) -> ImageSet:
    """Read a folder ``CLASS/*.png``, or ``train/CLASS/*``, ``val/CLASS/*``, ``test/CLASS/*``, as an image set.

    Args:
        folder: Its class folders may hold PNG, JPEG, BMP, GIF, PPM, TIFF or WebP files, in subfolders too. With a
            ``train`` folder there must be a ``test`` or a ``val`` folder; one of them alone is the test part.
        size: The width and height in pixels. Images are scaled by their shorter side and cropped in the middle. The
            default is 32 if the median shorter side is at most 40, else 64.

    Raises:
        UserError: not a folder, no class folders, one class only, images that can't be read (named), classes that
            differ between the parts, or more than fits into memory.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: not a folder")
    # A class may be called "test": only a folder of folders is a part.
    named = [sub for sub in _folders(root) if sub.name.lower() in _PARTS and _folders(sub)]
    parts = {_PARTS[sub.name.lower()]: sub for sub in named}
    if len(parts) < len(named):
        raise UserError(f"{root}: two of {', '.join(sub.name for sub in named)} are the same part; put them together")
    if parts and "train" not in parts:
        raise UserError(f"{root}: has {', '.join(sorted(parts))} but no train folder; expected train/CLASS/*")
    if len(parts) == 1:
        raise UserError(
            f"{root}: has a train folder but neither val nor test; add one, or pass {parts['train']} itself"
        )
    bases = parts or {"train": root}
    listed = {name: _list(base) for name, base in bases.items()}
    classes = _classes(listed["train"])
    if {name.lower() for name in classes} <= set(_PARTS):
        raise UserError(f"{root}: {', '.join(classes)} hold images but no class folders; expected train/CLASS/*")
    if len(classes) < 2:
        raise UserError(f"{bases['train']}: expected at least two class folders with images, got {len(classes)}")
    size = size or _usual_size([path for path, _ in listed["train"]])
    count = sum(map(len, listed.values()))  # in memory once as read and once in the parts of a repeat
    check_memory(
        f"{root}: {count:,} images of {size} x {size} pixels", 2.0 * 3 * size**2 * count, "use a smaller --image-size"
    )
    for name, files in listed.items():
        _check_classes(files, classes, bases[name])
    read = {name: _read(files, classes, size) for name, files in listed.items()}
    test = read.get("test", read.get("val"))
    validation = read.get("val") if "test" in read else None
    return ImageSet(root.resolve().name, classes, read["train"], test, validation, source=str(root))


def load_images(name: str, folder: Path) -> ImageSet:
    """Return the set of ``IMAGE_SETS`` with this name.

    The folder holds ``NAME.npz`` (``x_train, y_train, x_test, y_test``, images (N, H, W, 3) uint8, and perhaps
    ``class_names``) or the folder of the published archive. CINIC-10's train and valid together are the training part,
    as in the paper.

    Raises:
        UserError: a missing or damaged file, or counts that aren't the published ones.
    """
    known, source = IMAGE_SETS[name], CATALOGUE[name]
    place = source.place(folder)
    if place is None:
        raise UserError(
            f"{name}: not in {folder} (looked for {name}.npz and {source.folder}/); how to get it: {source.how}"
        )
    train, test, classes = _npz(place) if place.suffix == ".npz" else known.read(place)
    for word, part, wanted in (("training", train, known.train), ("test", test, known.test)):
        if len(part) != wanted:
            raise UserError(f"{name} in {place}: {len(part)} {word} images, expected {wanted}; the copy isn't complete")
        height, width = part.images.shape[2:]
        if len(classes) != known.classes or (height, width) != (known.size, known.size):
            raise UserError(
                f"{name} in {place}: {len(classes)} classes of {height} x {width} pixels, expected {known.classes} of "
                f"{known.size} x {known.size}"
            )
    return ImageSet(source.title, classes, train.in_order(), test.in_order(), source=f"{source.title}, {place.name}")


def _npz(path: Path) -> Read:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: can't be read as an npz file ({error}); get it again") from None
    missing = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in arrays]
    if missing:
        raise UserError(f"{path}: no array {', '.join(missing)}; expected x_train, y_train, x_test, y_test")
    train, test = (_part(arrays[f"x_{part}"], arrays[f"y_{part}"], path) for part in ("train", "test"))
    number = int(train.labels.max()) + 1 if len(train) else 0
    return train, test, tuple(map(str, arrays.get("class_names", range(number))))


def _part(pixels: NDArray[np.generic], numbers: NDArray[np.generic], where: Path) -> Part:
    """Return a part made of (N, H, W, 3) or (N, H, W) bytes."""
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[..., None], 3, axis=3)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise UserError(f"{where}: images must be uint8 (N, H, W, 3), got {pixels.dtype} {pixels.shape}")
    if numbers.shape not in (pixels.shape[:1], (len(pixels), 1)) or not np.issubdtype(numbers.dtype, np.integer):
        raise UserError(f"{where}: labels must be {len(pixels)} whole numbers, got {numbers.dtype} {numbers.shape}")
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return Part(torch.from_numpy(planes), torch.from_numpy(numbers.reshape(-1).astype(np.int64)))


def _cifar(names: Sequence[str], test: str, meta: str, kind: str, folder: Path) -> Read:
    """Read an archive of Krizhevsky 2009: pickles of arrays and lists, of which some make the training part."""
    parts = []
    for path in (*(folder / name for name in names), folder / test):
        pixels, labels = _unpickle(path, "data", f"{kind}s")
        parts.append(_part(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels), path))
    (classes,) = _unpickle(folder / meta, f"{kind}_names")
    *train, last = parts
    whole = Part(torch.cat([part.images for part in train]), torch.cat([part.labels for part in train]))
    return whole, last, tuple(name.decode() for name in classes)


class _Plain(pickle.Unpickler):
    """An unpickler of arrays, lists and dicts alone, so that a downloaded file can't run code."""

    def find_class(self, module: str, name: str) -> Any:
        of_numpy = module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar")
        if of_numpy or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} isn't plain data")


def _unpickle(path: Path, *keys: str) -> list[Any]:
    """Return a file's entries with these names."""
    try:
        with path.open("rb") as file:
            content = _Plain(file, encoding="bytes").load()
        return [content[key.encode()] for key in keys]
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); get the archive again") from None
    except (pickle.UnpicklingError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); get the archive again") from None


def _cinic10(folder: Path) -> Read:
    listed = {name: _list(folder / name) for name in ("train", "valid", "test")}
    classes = _classes(listed["train"])
    for name, files in listed.items():
        _check_classes(files, classes, folder / name)
    return _read([*listed["train"], *listed["valid"]], classes, 32), _read(listed["test"], classes, 32), classes


def _tiny_imagenet(folder: Path) -> Read:
    files = _list(folder / "train", "images")
    classes, val = _classes(files), folder / "val"
    notes = val / "val_annotations.txt"
    try:
        rows = [line.split("\t")[:2] for line in notes.read_text().splitlines() if line.strip()]
        test = [(val / "images" / name, wnid) for name, wnid in rows]
    except (OSError, ValueError):
        raise UserError(f"{notes}: can't be read; expected a file name and a class in each line") from None
    _check_classes(test, classes, val)
    return _read(files, classes, 64), _read(test, classes, 64), classes


@dataclass(frozen=True)
class Published:
    """A published set: its numbers of training and test images, of classes and of pixels per side, and its reader."""

    train: int
    test: int
    classes: int
    size: int
    read: Callable[[Path], Read]


_TEN = ([f"data_batch_{number}" for number in range(1, 6)], "test_batch", "batches.meta", "label")
IMAGE_SETS = {
    "cifar100": Published(50_000, 10_000, 100, 32, partial(_cifar, ["train"], "test", "meta", "fine_label")),
    "cifar10": Published(50_000, 10_000, 10, 32, partial(_cifar, *_TEN)),
    "cinic10": Published(180_000, 90_000, 10, 32, _cinic10),
    "tinyimagenet": Published(100_000, 10_000, 200, 64, _tiny_imagenet),
}


def _read(files: _Files, classes: Sequence[str], size: int) -> Part:
    """Return the images as ``size`` x ``size`` pixels; raises UserError with the names of unreadable files."""
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    broken: list[str] = []

    def decode(at: int) -> None:
        path = files[at][0]
        try:
            images[at] = torch.from_numpy(_decode(path, size))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            broken.append(f"{path} ({_reason(path, error)})")

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without holding Python's lock
        list(pool.map(decode, range(len(files))))
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise UserError(
            f"{len(broken)} image(s) can't be read: {', '.join(sorted(broken)[:3])}{more}; repair or remove them"
        )
    number = {name: at for at, name in enumerate(classes)}
    return Part(images, torch.tensor([number[name] for _, name in files], dtype=torch.int64))


def _decode(path: Path, size: int) -> NDArray[np.uint8]:
    with Image.open(path) as file:
        image = _eight_bits(ImageOps.exif_transpose(file), file.format).convert("RGB")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1).copy()


def _eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """Return the image with eight bits per colour. Pillow itself would clip 16-bit greys at 255, to nearly white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image, dtype=np.int64) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel, expected 8 or 16")
    return image


def _reason(path: Path, error: Exception) -> str:
    if path.exists() and path.stat().st_size == 0:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return "truncated" if "truncated" in str(error).lower() else str(error).split("\n")[0] or type(error).__name__


def _usual_size(paths: Sequence[Path]) -> int:
    """Choose the size from the headers of up to 200 images, spread over the list."""
    sides = []
    for path in paths[:: max(1, len(paths) // 200)]:
        try:
            with Image.open(path) as file:
                sides.append(min(file.size))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # reported when it is decoded
    return 32 if not sides or float(np.median(sides)) <= 40 else 64


def _classes(files: _Files) -> tuple[str, ...]:
    return tuple(sorted({name for _, name in files}))


def _check_classes(files: _Files, classes: Sequence[str], base: Path) -> None:
    unknown = sorted({name for _, name in files} - set(classes))
    if unknown:
        raise UserError(f"{base}: class {unknown[0]!r} isn't in the training part; add images there or remove it")


def _folders(base: Path) -> list[Path]:
    return sorted(sub for sub in base.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _list(base: Path, inside: str = "") -> _Files:
    """Return the images in ``base/CLASS[/inside]``, at any depth."""
    if not base.is_dir():
        raise UserError(f"{base}: no such folder")
    listed = []
    for sub in _folders(base):
        images = [
            (path, sub.name)
            for path in sorted((sub / inside).rglob("*"))
            if path.suffix.lower() in _SUFFIXES and path.is_file() and "/." not in path.relative_to(base).as_posix()
        ]
        if not images:
            raise UserError(
                f"{sub}: a class folder without images (PNG, JPEG, BMP, GIF, PPM, TIFF, WebP); remove it or fill it"
            )
        listed += images
    if not listed:
        raise UserError(f"{base}: no class folders; expected a folder for each class, with its images inside")
    return listed
