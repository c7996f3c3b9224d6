"""Studies on images, as ``studies.toml`` defines them: their data, their shortened scales, and their tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from crossfade.errors import UserError
from crossfade.lab.data.image_sets import IMAGE_SETS, load_folder, load_images
from crossfade.lab.data.images import ImageSet, ImageTask, stream_task
from crossfade.lab.data.sources import CATALOGUE, find_imagenet
from crossfade.lab.methods import MIXTURES
from crossfade.lab.nets import check_name
from crossfade.lab.paper.page import MarkdownStudy, row, table
from crossfade.lab.paper.study import DEFINED, Cell, NotHereError, Prepared, Request, by_method, check_known
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.trial import Json, Task

TITLES = {name: CATALOGUE[name].title for name in IMAGE_SETS} | {"imagenet": "ImageNet"}
_CLASSES = {name: one.classes for name, one in IMAGE_SETS.items()} | {"imagenet": 1000}
_GROUPS = ("right", "near", "far")
# Epochs, batch size, training images in all, test images of each class (None: all), the most seeds.
_SHORTENED: dict[str, tuple[int, int, int, int | None, int]] = {
    "smoke": (2, 32, 1_000, 2, 1),
    "short": (9, 64, 4_800, None, 2),
}


@dataclass(frozen=True)
class ImageStudy(MarkdownStudy[ImageRecipe, ImageSet | Path]):
    """A study on images.

    Args:
        counted: The paper's counts under CE of the groups at ``ImageRecipe.watch`` and at the end, for the first cell.
        any_cell: Whether other networks and data sets can be requested, to be trained by the first cell's protocol.
        protocols: Other protocols by name: what differs in the recipes of some data sets.
    """

    counted: Mapping[str, int] = field(default_factory=dict)
    any_cell: bool = False
    protocols: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    above_choices: ClassVar[str] = "What the paper leaves open, and the choice here:"

    def by(self, protocol: str | None) -> ImageStudy:
        """Return the study by another protocol; None is the printed one.

        Raises:
            UserError: a protocol that it doesn't have.
        """
        if protocol is None:
            return self
        if protocol not in self.protocols:
            known = ", ".join(self.protocols) or "no other than the paper's"
            raise UserError(f"--protocol: {self.name} has {known}, got {protocol!r}")
        changed = {data: _fields(fields) for data, fields in self.protocols[protocol].items()}
        cells = (replace(cell, recipe=replace(cell.recipe, **changed.get(cell.data, {}))) for cell in self.cells)
        return replace(self, cells=tuple(cells), title=f"{self.title}, protocol {protocol}")

    def scale_label(self, request: Request) -> str:
        """Return the scale; ``"own"`` for the paper's data with another number of epochs."""
        own = request.scale == "paper" and request.epochs is not None
        return "own" if own else super().scale_label(request)

    def chosen(self, request: Request) -> list[Cell[ImageRecipe]]:
        """Return the requested cells, with new ones if the study accepts any network and data set."""
        if not self.any_cell:
            return super().chosen(request)
        for net in request.nets:
            check_name(net)
        folders = {name for name in request.datasets if Path(name).is_dir()}
        published = sorted(set(request.datasets) - folders)
        check_known("--datasets", published, list(TITLES), self.name, more=", and any folder of class folders")
        names = Counter(place.name for place in {Path(name).resolve() for name in folders})
        if twice := [name for name, count in names.items() if count > 1]:
            raise UserError(f"--datasets: two folders are called {twice[0]!r}, and tables go by it; rename one")
        first = self.cells[0]
        known = {(cell.data, cell.net): cell for cell in self.cells}
        return [
            known.get((data, net)) or _like(first, data, net)
            for data in request.datasets or (first.data,)
            for net in request.nets or (first.net,)
        ]

    def load(self, data: str, request: Request) -> ImageSet | Path:
        """Return the images, or the folder of ImageNet, which is read during training."""
        folder = request.data_dir
        if data == "imagenet":
            place = find_imagenet(folder)
            if place is None:
                raise NotHereError(
                    f"ImageNet: expected imagenet/train/WNID/*.JPEG and imagenet/val/WNID/*.JPEG in {folder}"
                )
            return place
        if data not in TITLES:
            return load_folder(data)
        if CATALOGUE[data].place(folder) is None:
            raise NotHereError(f"{TITLES[data]}: not in {folder}; `crossfade data` says how to get it")
        return load_images(data, folder)

    def protocol(self, cell: Cell[ImageRecipe], request: Request) -> tuple[ImageRecipe, int]:
        recipe, _, _, repeats = scaled(cell, request.scale, request.repeats, request.epochs)
        return replace(recipe, **request.recipe), repeats

    def prepare(self, cell: Cell[ImageRecipe], data: ImageSet | Path, request: Request) -> Prepared:
        _, each, test, repeats = scaled(cell, request.scale, request.repeats, request.epochs)
        recipe, _ = self.protocol(cell, request)
        task: Task
        if isinstance(data, Path):
            if request.validation:
                raise UserError(
                    "--validation: ImageNet's files aren't divided; leave it out or choose other --datasets"
                )
            task = stream_task(data, each, test, label=cell.label)
        else:
            task = ImageTask(data, per_class=each, test_per_class=test, label=cell.label, **request.division)
            if cell.data not in TITLES:  # a user's folder may hold few images
                recipe = recipe.fitting(len(task.split(0).train))
        falls = ", ".join(f"{at:.4g}" for at in recipe.milestones) or "no epoch"
        about = f"{recipe.epochs} epochs, batch {recipe.batch_size}, rate {recipe.learning_rate:g} falling at {falls}"
        return Prepared(cell.label, (task,), recipe, tuple(range(repeats)), about, request.notes)

    def lead(self, results: pd.DataFrame, scale: str) -> str:
        """Return what the tables show, with a warning if the scale is a shortened one."""
        lead = "Accuracy on the test part, percent."
        if scale == "paper" or not len(results):
            return lead
        images, epochs = int(results["n_train"].max()), int(results["epoch"].max())
        batch = f", batch {_SHORTENED[scale][1]}" if scale in _SHORTENED else ""
        return (
            f"{lead} Scale **{scale}**: {images:,} training images, {epochs} epochs{batch}, the last one's accuracy. "
            "The paper's protocol is far longer: its numbers are here for reference, and ours say nothing about them."
        )

    def tables(self, results: pd.DataFrame) -> str:
        """Return the accuracies beside the paper's and, if they were watched, the fate of wrong images."""
        parts = [table(self.cells, results)]
        escapes = escape_table(results)
        if len(escapes):
            printed = {"dataset": f"{self.cells[0].label}, the paper", "method": "ce", **self.counted}
            counted = pd.DataFrame([printed] if self.counted else [])
            lines = ["| | method | right | wrong, p_y > 0.2 | wrong, p_y < 0.2 |", "|---|---|---:|---:|---:|"]
            for line in pd.concat([_with_shares(counted), escapes]).to_dict("records"):
                counts = [(line[f"watch_{group}"], line[f"share_{group}"]) for group in _GROUPS]
                shares = [f"{count:,.0f}: {share:.2f} %" if count else "0" for count, share in counts]
                lines.append(row(line["dataset"], line["method"], *shares))
            parts += [
                "Test images by their state at the watched epoch, and the share of each group that is right at the "
                "end (means over seeds):",
                "\n".join(lines),
            ]
        return "\n\n".join(parts)


def scaled(
    cell: Cell[ImageRecipe], scale: str, repeats: int | None = None, epochs: int | None = None
) -> tuple[ImageRecipe, int | None, int | None, int]:
    """Return recipe, training and test images of a class (None: all) and repeats of a cell at a scale.

    A shortened recipe keeps the learning rate, and the milestones and phases as fractions of the training. Its schedule
    changes with each step, since 5 % of 9 epochs are less than one. ``epochs`` replaces the scale's own number.
    """
    whole = cell.recipe
    if scale == "paper" and epochs is None:
        return whole, None, None, repeats or cell.repeats
    printed = (whole.epochs, whole.batch_size, 0, None, cell.repeats)
    short_epochs, batch, images, tests, most = _SHORTENED.get(scale, printed)
    count = epochs or short_epochs
    recipe = replace(
        whole,
        epochs=count,
        batch_size=batch,
        granularity="step",
        scale="own" if scale == "paper" else scale,
        milestones=tuple(round(at * count / whole.epochs, 6) for at in whole.milestones),
        watch=min(count - 1, max(1, round(whole.watch * count / whole.epochs))) if whole.watch else 0,
        evaluate=(count,),
    )
    each = max(2, images // _CLASSES.get(cell.data, 100)) if images else None
    return recipe, each, tests, repeats or min(cell.repeats, most)


def _like(cell: Cell[ImageRecipe], data: str, net: str) -> Cell[ImageRecipe]:
    """Return the cell for another network or data set; ImageNet has its own batch, size and augmentation."""
    recipe = replace(cell.recipe, net=net)
    if data == "imagenet":
        recipe = replace(recipe, batch_size=256, size=224, augment=Augment(crop=0))
    title = TITLES.get(data, Path(data).resolve().name)
    return replace(cell, data=data, net=net, recipe=recipe, paper={}, label=f"{title} · {net}")


def escape_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return the motivating example's table, from the results of recipes with a watched epoch.

    It holds the number of test images in each group at that epoch, of those that are right at the end, and their share
    in percent, as means over seeds.
    """
    counts = [f"{when}_{group}" for when in ("watch", "end") for group in _GROUPS]
    if not set(counts) <= set(results.columns):
        return pd.DataFrame(columns=["dataset", "method", *counts])
    own = results.dropna(subset=counts)
    return _with_shares(own.groupby(["dataset", "method"], sort=False)[counts].mean().reset_index())


def _with_shares(counts: pd.DataFrame) -> pd.DataFrame:
    for group in _GROUPS if len(counts) else ():
        counts[f"share_{group}"] = 100 * counts[f"end_{group}"] / counts[f"watch_{group}"]
    return counts


def _study(name: str, groups: Sequence[Json], choices: Sequence[str], **about: Any) -> ImageStudy:
    cells = tuple(_cell(group, **cell) for group in groups for cell in group["cells"])
    return ImageStudy(name, cells=cells, choices=tuple(choices), **about)


def _fields(written: Json) -> Json:
    """Return the fields of a recipe from those of a file, where tuples are lists."""
    return written | {"milestones": tuple(written["milestones"])}


def _cell(
    group: Json, *, net: str, title: str, printed: Sequence[float | Sequence[float]] = (), **own: Any
) -> Cell[ImageRecipe]:
    fields = _fields(group["recipe"] | own)
    fields |= {"augment": Augment(**fields.get("augment", {}))}
    methods, label = tuple(group.get("methods", MIXTURES)), f"{TITLES[group['data']]} · {title}"
    recipe, paper = ImageRecipe(net=net, **fields), by_method(methods, printed)
    return Cell(group["data"], net, recipe, group["repeats"], label, paper, methods)


_NAMES = ("table1", "table2", "table5", "table6", "motivating", "normmatched")
IMAGE_STUDIES = {name: _study(name, **DEFINED[name]) for name in _NAMES}
MOTIVATING = IMAGE_STUDIES["motivating"]
