"""The studies on images, as ``image_studies.toml`` defines them: Tables 1, 2, 5 and 6, motivating and normmatched."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossfade.lab.paper.images import TITLES, ImageStudy
from crossfade.lab.paper.study import MIXTURES, Cell
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.trial import Json


def _study(name: str, groups: Sequence[Json], choices: Sequence[str], **about: Any) -> ImageStudy:
    cells = tuple(_cell(group, **cell) for group in groups for cell in group["cells"])
    return ImageStudy(name, cells=cells, choices=tuple(choices), **about)


def _cell(group: Json, *, net: str, title: str, printed: Sequence[Any] = (), **own: Any) -> Cell[ImageRecipe]:
    fields = group["recipe"] | own
    fields |= {"milestones": tuple(fields["milestones"]), "augment": Augment(**fields.get("augment", {}))}
    pairs = [tuple(value) if isinstance(value, list) else (value, None) for value in printed]
    methods = tuple(group.get("methods", MIXTURES))
    paper, label = dict(zip(methods, pairs, strict=False)), f"{TITLES[group['data']]} · {title}"
    return Cell(group["data"], net, ImageRecipe(net=net, **fields), group["repeats"], label, paper, methods)


_DEFINED = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
IMAGE_STUDIES = {name: _study(name, **about) for name, about in _DEFINED.items()}
MOTIVATING = IMAGE_STUDIES["motivating"]
