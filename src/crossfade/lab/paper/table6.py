"""Table 6: CE and F=0-0.5 with more regularisation, ResNet34 on CINIC-10."""

from __future__ import annotations

from dataclasses import replace

from crossfade.lab.paper.images import ImageStudy, image_cell
from crossfade.lab.paper.table1 import cinic_recipe
from crossfade.lab.train.deep.recipe import Augment

_METHODS = ("ce", "gradual")
_BASE = cinic_recipe("resnet34_small")
_TURNED = _BASE.augment
_ROWS = (
    ("baseline", _BASE, (88.10, 88.85)),
    ("random erasing", replace(_BASE, augment=replace(_TURNED, erasing=0.5)), (89.11, 89.66)),
    ("random erasing, no rotation", replace(_BASE, augment=Augment(erasing=0.5)), (89.34, 89.82)),
    ("colour jitter", replace(_BASE, augment=replace(_TURNED, jitter=0.4, hue=0.1)), (87.68, 88.81)),
    ("dropout", replace(_BASE, dropout=0.2), (88.35, 88.61)),
)

STUDY = ImageStudy(
    "table6",
    "Table 6: regularisation, ResNet34 on CINIC-10",
    tuple(
        image_cell("cinic10", f"ResNet34 · {title}", recipe, 1, printed, _METHODS) for title, recipe, printed in _ROWS
    ),
    choices=(
        "random erasing with probability 0.5, area 2 to 40 %, set to the mean colour (Zhong et al. 2020): not printed",
        "colour jitter: torchvision's, brightness, contrast and saturation within 40 %, hue within a tenth of the "
        "circle, in random order, every image: not printed",
        "dropout 0.2 before the last linear layer: the place isn't printed",
        "one seed; the number of seeds isn't printed",
    ),
)
