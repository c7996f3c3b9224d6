"""The published small-image sets: CIFAR-10, CIFAR-100, CINIC-10 and Tiny-ImageNet, from the files people have."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossfade.errors import UserError
from crossfade.lab.data.image_folder import read_classes
from crossfade.lab.data.images import ImageSet, Part


@dataclass(frozen=True)
class Published:
    """A complete copy: its images for training and test, classes and pixels a side, and how to come by it."""

    title: str
    train: int
    test: int
    classes: int
    size: int
    folder: str
    how: str


_FETCH = "`crossfade data NAME --download`"

IMAGE_SETS = {
    "cifar10": Published("CIFAR-10", 50_000, 10_000, 10, 32, "cifar-10-batches-py", _FETCH),
    "cifar100": Published("CIFAR-100", 50_000, 10_000, 100, 32, "cifar-100-python", _FETCH),
    "cinic10": Published(
        "CINIC-10", 180_000, 90_000, 10, 32, "cinic-10",
        "CINIC-10.tar.gz from the authors (Darlow et al. 2018), unpacked as cinic-10/{train,valid,test}/CLASS/*.png",
    ),
    "tinyimagenet": Published(
        "Tiny-ImageNet", 100_000, 10_000, 200, 64, "tiny-imagenet-200",
        "tiny-imagenet-200.zip of Stanford's CS231n, unpacked: train/WNID/images/*, val/images/*, val/*.txt",
    ),
}  # fmt: skip


def find_images(name: str, folder: Path) -> Path | None:
    """Return the file or folder that ``load_images`` would read, or None."""
    known = _published(name)
    for place in (folder / f"{name}.npz", folder / known.folder, folder / name, folder / known.folder.upper()):
        if place.exists():
            return place
    return None


def load_images(name: str, folder: str | Path) -> ImageSet:
    """Return one of ``IMAGE_SETS``.

    Args:
        name: Its key.
        folder: Holds ``NAME.npz`` (``x_train, y_train, x_test, y_test``, images (N, 32, 32, 3) uint8, and perhaps
            ``class_names``) or the folder of the published archive. CINIC-10's train and valid are both learnt from,
            as in the paper.

    Raises:
        UserError: unknown name, nothing there, a damaged file, or counts that aren't the published ones.
    """
    known, folder = _published(name), Path(folder)
    place = find_images(name, folder)
    if place is None:
        raise UserError(
            f"{name}: not in {folder} (looked for {name}.npz and {known.folder}/); how to get it: {known.how}"
        )
    if place.suffix == ".npz":
        train, test, classes = _npz(place)
    else:
        train, test, classes = _READERS[name](place)
    for word, part, wanted in (("training", train, known.train), ("test", test, known.test)):
        if len(part) != wanted:
            raise UserError(f"{name} in {place}: {len(part)} {word} images, expected {wanted}; the copy isn't complete")
    if len(classes) != known.classes or tuple(train.images.shape[2:]) != (known.size, known.size):
        raise UserError(
            f"{name} in {place}: {len(classes)} classes of {train.images.shape[2]} x {train.images.shape[3]} pixels, "
            f"expected {known.classes} of {known.size} x {known.size}"
        )
    return ImageSet(known.title, classes, train.in_order(), test.in_order(), source=f"{known.title}, {place.name}")


def _published(name: str) -> Published:
    if name not in IMAGE_SETS:
        raise UserError(f"image data set {name!r} is unknown (known: {', '.join(IMAGE_SETS)})")
    return IMAGE_SETS[name]


def _part(images: Any, labels: Any, where: Path) -> Part:
    """Return a part made of (N, H, W, 3) or (N, H, W) bytes."""
    pixels, numbers = np.asarray(images), np.asarray(labels)
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[..., None], 3, axis=3)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise UserError(f"{where}: images must be uint8 (N, H, W, 3), got {pixels.dtype} {pixels.shape}")
    if numbers.shape not in (pixels.shape[:1], (len(pixels), 1)) or not np.issubdtype(numbers.dtype, np.integer):
        raise UserError(f"{where}: labels must be {len(pixels)} whole numbers, got {numbers.dtype} {numbers.shape}")
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return Part(torch.from_numpy(planes), torch.from_numpy(numbers.reshape(-1).astype(np.int64)))


def _npz(path: Path) -> tuple[Part, Part, tuple[str, ...]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in file]
            if missing:
                raise UserError(f"{path}: no array {', '.join(missing)}; expected x_train, y_train, x_test, y_test")
            train, test = (_part(file[f"x_{part}"], file[f"y_{part}"], path) for part in ("train", "test"))
            names = file["class_names"].tolist() if "class_names" in file else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: can't be read as an npz file ({error}); get it again") from None
    number = int(train.labels.max()) + 1 if len(train) else 0
    return train, test, tuple(map(str, names if names is not None else range(number)))


def _cifar(batches: tuple[str, ...], test: str, labels: str, meta: str, names: str) -> Callable[[Path], Any]:
    """Return a reader of the archives of Krizhevsky 2009 as torchvision unpacks them: pickles of arrays and lists."""

    def read(folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
        parts = []
        for files in (batches, (test,)):
            content = [_unpickle(folder / file) for file in files]
            pixels = np.concatenate([part[b"data"] for part in content]).reshape(-1, 3, 32, 32)
            numbers = np.concatenate([part[labels.encode()] for part in content]).astype(np.int64)
            parts.append(Part(torch.from_numpy(pixels), torch.from_numpy(numbers)))
        classes = tuple(name.decode() for name in _unpickle(folder / meta)[names.encode()])
        return parts[0], parts[1], classes

    return read


class _Plain(pickle.Unpickler):
    """A reader of arrays, lists and dicts alone: a downloaded file must not be able to run code."""

    def find_class(self, module: str, name: str) -> Any:
        if name in ("_reconstruct", "ndarray", "dtype", "scalar") and module.split(".")[0] == "numpy":
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} isn't plain data")


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Plain(file, encoding="bytes").load()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); get the archive again") from None
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); get the archive again") from None


def _cinic(folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    parts = {name: read_classes(folder / name, size=32) for name in ("train", "valid", "test")}
    classes = parts["train"][1]
    for name, (_, own) in parts.items():
        if own != classes:
            raise UserError(
                f"{folder / name}: classes {', '.join(own)} differ from those of train ({', '.join(classes)})"
            )
    train, valid, test = (part for part, _ in parts.values())
    both = Part(torch.cat([train.images, valid.images]), torch.cat([train.labels, valid.labels]))
    return both, test, classes


def _tiny(folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    train, classes = read_classes(folder / "train", size=64, inside="images")
    notes = folder / "val" / "val_annotations.txt"
    try:
        rows = [line.split("\t")[:2] for line in notes.read_text().splitlines() if line.strip()]
        files = [(folder / "val" / "images" / name, wnid) for name, wnid in rows]
    except (OSError, ValueError):
        raise UserError(f"{notes}: can't be read; expected a file name and a class in each line") from None
    test, _ = read_classes(folder / "val", size=64, files=files, classes=classes)
    return train, test, classes


_READERS: dict[str, Callable[[Path], Any]] = {
    "cifar10": _cifar(
        tuple(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "labels", "batches.meta", "label_names"
    ),
    "cifar100": _cifar(("train",), "test", "fine_labels", "meta", "fine_label_names"),
    "cinic10": _cinic,
    "tinyimagenet": _tiny,
}
