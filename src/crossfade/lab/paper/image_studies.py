"""The studies on images, as ``studies.toml`` defines them: Tables 1, 2, 5 and 6, motivating and normmatched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossfade.lab.paper.images import TITLES, ImageStudy
from crossfade.lab.paper.study import DEFINED, MIXTURES, Cell, by_method
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.trial import Json


def _study(name: str, groups: Sequence[Json], choices: Sequence[str], **about: Any) -> ImageStudy:
    cells = tuple(_cell(group, **cell) for group in groups for cell in group["cells"])
    return ImageStudy(name, cells=cells, choices=tuple(choices), **about)


def _cell(
    group: Json, *, net: str, title: str, printed: Sequence[float | Sequence[float]] = (), **own: Any
) -> Cell[ImageRecipe]:
    fields = group["recipe"] | own
    fields |= {"milestones": tuple(fields["milestones"]), "augment": Augment(**fields.get("augment", {}))}
    methods, label = tuple(group.get("methods", MIXTURES)), f"{TITLES[group['data']]} · {title}"
    recipe, paper = ImageRecipe(net=net, **fields), by_method(methods, printed)
    return Cell(group["data"], net, recipe, group["repeats"], label, paper, methods)


_NAMES = ("table1", "table2", "table5", "table6", "motivating", "normmatched")
IMAGE_STUDIES = {name: _study(name, **DEFINED[name]) for name in _NAMES}
MOTIVATING = IMAGE_STUDIES["motivating"]
