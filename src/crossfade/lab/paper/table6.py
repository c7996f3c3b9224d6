"""Table 6: does more regularisation close the gap? ResNet34 on CINIC-10, CE against F=0-0.5."""

from __future__ import annotations

from dataclasses import replace

from crossfade.lab.paper.image_study import Cell, ImageStudy
from crossfade.lab.paper.table1 import ROTATION, cinic_recipe
from crossfade.lab.train.deep.augment import Augment
from crossfade.lab.train.deep.recipe import ImageRecipe

__all__ = ["STUDY"]

_METHODS = ("ce", "gradual")
_BASE = cinic_recipe("resnet34_small")


def _with(**changes: float) -> ImageRecipe:
    return replace(_BASE, augment=Augment(**{"rotation": ROTATION, **changes}))  # type: ignore[arg-type]


_ROWS = (
    ("baseline", _BASE, (88.10, 88.85)),
    ("random erasing", _with(erasing=0.5), (89.11, 89.66)),
    ("random erasing, no rotation", _with(erasing=0.5, rotation=0.0), (89.34, 89.82)),
    ("colour jitter", _with(jitter=0.4, hue=0.1), (87.68, 88.81)),
    ("dropout", replace(_BASE, dropout=0.2), (88.35, 88.61)),
)

STUDY = ImageStudy(
    "table6",
    "Table 6: regularisation, ResNet34 on CINIC-10",
    tuple(
        Cell(
            "cinic10", recipe, _METHODS, 1,
            {name: (value, None) for name, value in zip(_METHODS, printed, strict=True)},
            f"CINIC-10 · ResNet34 · {title}",
        )
        for title, recipe, printed in _ROWS
    ),
    choices=(
        "random erasing with probability 0.5, area 2 to 40 %, set to the mean colour (Zhong et al. 2020): not printed",
        "colour jitter: torchvision's, brightness, contrast and saturation within 40 %, hue within a tenth of the "
        "circle, in random order, every image: not printed",
        "dropout 0.2 before the last linear layer: the place isn't printed",
        "one seed; the number of seeds isn't printed",
    ),
)  # fmt: skip
