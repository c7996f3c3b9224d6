"""Table 1: CE and its three mixtures with EL on CIFAR-100 and CINIC-10, eight networks."""

from __future__ import annotations

from dataclasses import replace

from crossfade.lab.paper.images import ImageStudy, image_cell
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe

# "random rotation for DNNs with more than one million parameters"; the angle isn't printed.
ROTATION = 15.0

CIFAR = ImageRecipe(epochs=240, milestones=(120, 160, 200), watch=187)
CINIC = ImageRecipe(epochs=90, milestones=(30, 60))

# Title, and whether the network has more than a million parameters.
_NETS = {
    "shufflenetv2_small": ("ShuffleNetV2", True),
    "resnet20": ("ResNet20", False),
    "resnet32": ("ResNet32", False),
    "resnet44": ("ResNet44", False),
    "resnet18_small": ("ResNet18", True),
    "resnet34_small": ("ResNet34", True),
    "preactresnet18": ("PreAct ResNet18", True),
    "resnext29": ("ResNeXt29", True),
}

# Percent and standard deviation of CE, F=0, F=0,0.5 and F=0-0.5.
_CIFAR100 = {
    "shufflenetv2_small": ((68.10, 0.08), (68.46, 0.42), (68.46, 0.42), (68.51, 0.45)),
    "resnet20": ((68.25, 0.53), (68.58, 0.08), (68.58, 0.08), (68.48, 0.14)),
    "resnet32": ((69.66, 0.17), (70.02, 0.21), (70.02, 0.21), (69.83, 0.45)),
    "resnet44": ((70.71, 0.38), (71.06, 0.45), (71.06, 0.45), (70.93, 0.30)),
    "resnet18_small": ((74.54, 0.62), (74.58, 0.69), (74.58, 0.69), (74.60, 0.57)),
    "resnet34_small": ((74.35, 0.62), (74.77, 0.72), (74.77, 0.72), (74.69, 1.00)),
    "preactresnet18": ((74.39, 0.68), (74.82, 0.36), (74.82, 0.36), (74.81, 0.12)),
    "resnext29": ((76.04, 0.64), (76.47, 0.33), (76.47, 0.33), (76.52, 0.52)),
}
_CINIC10 = {
    "shufflenetv2_small": ((81.35, 0.22), (81.55, 0.16), (81.59, 0.11), (81.79, 0.15)),
    "resnet20": ((83.35, 0.10), (83.53, 0.14), (83.53, 0.14), (83.72, 0.06)),
    "resnet32": ((84.74, 0.14), (84.91, 0.08), (84.96, 0.13), (85.10, 0.10)),
    "resnet44": ((84.81, 0.69), (84.99, 0.54), (85.00, 0.55), (85.18, 0.50)),
    "resnet18_small": ((88.02, 0.24), (88.22, 0.13), (88.26, 0.12), (88.25, 0.25)),
    "resnet34_small": ((88.10, 0.32), (88.74, 0.24), (88.77, 0.24), (88.85, 0.24)),
    "preactresnet18": ((85.97, 1.64), (86.55, 0.54), (86.60, 0.50), (86.71, 0.44)),
    "resnext29": ((88.35, 0.45), (88.58, 0.31), (88.59, 0.31), (88.72, 0.30)),
}


def cinic_recipe(net: str) -> ImageRecipe:
    """Return the CINIC-10 protocol of a network: training images are rotated for a large one."""
    _, large = _NETS[net]
    return replace(CINIC, net=net, augment=Augment(rotation=ROTATION if large else 0.0))


STUDY = ImageStudy(
    "table1",
    "Table 1: eight networks on CIFAR-100 and CINIC-10",
    (
        *(image_cell("cifar100", _NETS[net][0], replace(CIFAR, net=net), 4, paper) for net, paper in _CIFAR100.items()),
        *(image_cell("cinic10", _NETS[net][0], cinic_recipe(net), 3, paper) for net, paper in _CINIC10.items()),
    ),
    choices=(
        "batch 128, no warm-up, no Nesterov momentum, weight decay on every parameter: not printed",
        "crop with a black border of 4 pixels; rotation uniform within 15 degrees, nearest pixel: not printed",
        "the result is the last epoch's; the paper doesn't say which epoch it reports, and has no validation part",
        "ShuffleNetV2 is the 1.0x network with a 3x3 stem of stride 1; ResNeXt29 is 2x64d, as in Chen et al. 2019",
    ),
)
