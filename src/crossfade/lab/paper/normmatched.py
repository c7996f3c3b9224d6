"""Whether a longer gradient explains it: CE with its learning rate multiplied by M of eq. (20)-(22), beside F=0-0.5."""

from __future__ import annotations

from dataclasses import replace

from crossfade.lab.paper.images import ImageStudy, image_cell
from crossfade.lab.paper.table1 import CIFAR

_METHODS = ("ce", "ce-volume-own", "ce-volume-others", "gradual")

STUDY = ImageStudy(
    "normmatched",
    "Gradient volume: CE at the rate that matches F=0-0.5",
    tuple(
        image_cell("cifar100", title, replace(CIFAR, net=net), 4, methods=_METHODS)
        for net, title in (("resnet20", "ResNet20"), ("resnet32", "ResNet32"))
    ),
    choices=(
        "eq. (21) and (22) give two factors, M = alpha + beta/3 (i = j) and alpha + beta/2 (i != j): both are run",
        "eq. (21)'s integrand is negative; its size is taken",
        "M multiplies the learning rate, as in the paper; multiplying the loss (ce-matched, ce-matched-off) isn't the "
        "same with momentum and weight decay",
        "the volumes are taken over the unit interval and square as printed, though p_y + p_j is at most 1",
        "networks and protocol as in Table 1; the paper's numbers are in its supplement, which is not at hand",
    ),
)
