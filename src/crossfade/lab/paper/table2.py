"""Table 2: CE and its three mixtures with EL on ImageNet, seven networks, two seeds."""

from __future__ import annotations

from crossfade.lab.paper.images import ImageStudy, image_cell
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe

_NETS = {
    "resnet18": ("ResNet18", (69.82, 0.11), (70.19, 0.06), (70.25, 0.08), (70.50, 0.01)),
    "resnet34": ("ResNet34", (73.26, 0.03), (73.65, 0.01), (73.91, 0.04), (74.07, 0.06)),
    "resnet50": ("ResNet50", (75.74, 0.19), (75.86, 0.01), (76.06, 0.26), (76.35, 0.02)),
    "resnet101": ("ResNet101", (77.59, 0.29), (77.90, 0.17), (78.37, 0.18), (78.51, 0.12)),
    "shufflenet_v2_x1_0": ("ShuffleNet", (65.28, 0.07), (65.92, 0.01), (65.51, 0.21), (65.99, 0.09)),
    "resnext50_32x4d": ("ResNeXt50", (77.30, 0.11), (77.63, 0.03), (78.01, 0.02), (78.25, 0.09)),
    "resnext101_32x8d": ("ResNeXt101", (79.20, 0.00), (79.45, 0.15), (79.73, 0.00), (79.99, 0.07)),
}


def imagenet_recipe(net: str) -> ImageRecipe:
    """PyTorch's ImageNet script: 90 epochs, batch 256, rate 0.1 falling at 30 and 60; random resized crop and flip."""
    return ImageRecipe(net=net, epochs=90, batch_size=256, milestones=(30, 60), augment=Augment(crop=0), size=224)


STUDY = ImageStudy(
    "table2",
    "Table 2: seven networks on ImageNet",
    tuple(image_cell("imagenet", title, imagenet_recipe(net), 2, printed) for net, (title, *printed) in _NETS.items()),
    choices=(
        "batch 256 and weight decay 1e-4, the defaults of PyTorch's ImageNet script, which the paper names",
        "ShuffleNet is ShuffleNetV2 1.0x, ResNeXt50 and 101 are torchvision's 32x4d and 32x8d: not printed",
        "the result is the last epoch's",
    ),
)
