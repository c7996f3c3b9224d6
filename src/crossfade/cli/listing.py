"""``crossfade list``: the names that the command line knows."""

from __future__ import annotations

_NETWORKS = {
    "Networks for tables": {
        "linear": "one layer, inputs x classes: the paper's first network",
        "mlp": "hidden layers with ReLU, as wide as the inputs: the paper's second network; --width, --depth",
    },
    "Networks for images": {
        "small images": "resnet20 resnet32 resnet44 resnet56 resnet110 resnet18_small resnet34_small preactresnet18",
        "": "resnext29 resnext29_8x64d shufflenetv2_small",
        "any images": "every classifier of torchvision: resnet18, resnet50, efficientnet_b0, vit_b_16, ...; "
        "--pretrained",
    },
    "Networks for texts": {
        "lstm": "word vectors, LSTM layers, a linear layer: --width, --depth",
        "bert:NAME": "a transformer of the Hugging Face hub, or a folder with one: bert:bert-base-uncased",
    },
}
_COMPARE = "methods x repeats on your tables, texts or images, or on four real data sets: crossfade compare"


def show() -> int:
    """List the methods, networks and studies that can be named."""
    from crossfade.cli import STUDIES
    from crossfade.lab.methods import DEFAULT_METHODS, METHODS

    named = {
        method.name + ("*" if method.name in DEFAULT_METHODS else ""): f"{method.title}. {method.note}".rstrip(" .")
        for method in METHODS
    }
    studies = {name: f"{command.help} crossfade run {name}" for name, command in STUDIES.items()}
    shown = {"Methods (* compared by default)": named, **_NETWORKS, "Studies": {"compare": _COMPARE, **studies}}
    for heading, entries in shown.items():
        print(heading)
        width = max(map(len, entries))
        for name, text in entries.items():
            print(f"  {name.ljust(width)}  {text}")
        print()
    return 0
