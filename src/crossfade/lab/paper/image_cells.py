"""Which cells of an image study a request means, and where their images are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.errors import UserError
from crossfade.lab.nets import check_name
from crossfade.lab.paper.image_study import TITLES, Cell
from crossfade.lab.train.deep.augment import Augment

if TYPE_CHECKING:
    from crossfade.lab.data.image_stream import StreamTask
    from crossfade.lab.data.images import ImageTask
    from crossfade.lab.paper.image_study import ImageRequest

__all__ = ["NotHereError", "chosen", "methods_of", "task_of"]


class NotHereError(Exception):
    """The data of a cell isn't in the data folder: no reason to refuse the others."""


def chosen(request: ImageRequest) -> list[Cell]:
    """The study's cells that are asked for, and where a study takes any network and data set, cells that it hasn't.

    Raises:
        UserError: names that are unknown, a count out of range, nothing left.
    """
    _check(request)
    study = request.study
    if study.any_cell:
        nets, datasets = request.nets or (study.cells[0].recipe.net,), request.datasets or (study.cells[0].data,)
        known = {(cell.data, cell.recipe.net): cell for cell in study.cells}
        return [known.get((data, net)) or _new(study.cells[0], data, net) for data in datasets for net in nets]
    found = [
        cell
        for cell in study.cells
        if (not request.datasets or cell.data in request.datasets)
        and (not request.nets or cell.recipe.net in request.nets)
    ]
    if not found:
        raise UserError(f"{study.name}: no such network on such a data set; leave out --nets or --datasets")
    return found


def _check(request: ImageRequest) -> None:
    study = request.study
    asked = [("--methods", request.methods, {name for cell in study.cells for name in cell.methods})]
    if study.any_cell:
        for net in request.nets:
            check_name(net)
        folders = tuple(name for name in request.datasets if Path(name).is_dir())
        names = Counter(place.name for place in {Path(name).resolve() for name in folders})
        if twice := [name for name, count in names.items() if count > 1]:
            raise UserError(f"--datasets: two folders are called {twice[0]!r}, and tables go by it; rename one")
        asked.append(("--datasets", tuple(set(request.datasets) - set(folders)), set(TITLES)))
    else:
        asked.append(("--datasets", request.datasets, {cell.data for cell in study.cells}))
        asked.append(("--nets", request.nets, {cell.recipe.net for cell in study.cells}))
    for option, wanted, known in asked:
        if unknown := sorted(set(wanted) - known):
            there = ", ".join(sorted(known))
            if study.any_cell and option == "--datasets":
                there += ", and any folder of class folders"
            raise UserError(f"{option}: {unknown[0]!r} isn't in {study.name} (there are {there})")
    if request.scale not in ("smoke", "short", "paper"):
        raise UserError(f"--scale: expected smoke, short or paper, got {request.scale!r}")
    for option, count in (("--repeats", request.repeats), ("--epochs", request.epochs)):
        if count is not None and count < 1:
            raise UserError(f"{option}: expected a whole number of at least 1, got {count}")


def _new(like: Cell, data: str, net: str) -> Cell:
    """Another network or data set by a cell's protocol; ImageNet with its own batch, size and augmentation."""
    recipe = replace(like.recipe, net=net)
    if data == "imagenet":
        recipe = replace(recipe, batch_size=256, size=224, augment=Augment(crop=0))
    title = TITLES.get(data, Path(data).resolve().name)
    return replace(like, data=data, recipe=recipe, paper={}, label=f"{title} · {net}")


def methods_of(cell: Cell, request: ImageRequest) -> tuple[str, ...]:
    """Those that are asked for."""
    return tuple(name for name in cell.methods if not request.methods or name in request.methods)


def task_of(
    cell: Cell, folder: Path, each: int | None, test: int | None, known: Mapping[tuple[Any, ...], object]
) -> ImageTask | StreamTask:
    """Where a cell's images are; those of a data set are read once.

    Raises:
        NotHereError: they aren't.
    """
    from crossfade.lab.data.image_folder import load_folder
    from crossfade.lab.data.image_sets import find_images, load_images
    from crossfade.lab.data.images import ImageTask

    if cell.data == "imagenet":
        from crossfade.lab.data.image_stream import find_imagenet, stream_task

        place = find_imagenet(folder)
        if place is None:
            raise NotHereError(
                f"ImageNet: expected imagenet/train/WNID/*.JPEG and imagenet/val/WNID/*.JPEG in {folder}"
            )
        return stream_task(place, each, test, label=cell.label)
    loaded = next((task.data for at, task in known.items() if at[0] == cell.data and isinstance(task, ImageTask)), None)
    if loaded is None and cell.data not in TITLES:
        loaded = load_folder(cell.data)
    if loaded is None:
        if find_images(cell.data, folder) is None:
            raise NotHereError(f"{TITLES[cell.data]}: not in {folder}; `crossfade data` says how to get it")
        loaded = load_images(cell.data, folder)
    return ImageTask(loaded, per_class=each, test_per_class=test, label=cell.label)
