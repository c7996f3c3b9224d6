"""Image networks by name: the CIFAR ones of the paper's tables, and every classifier of torchvision.

The CIFAR networks take 3x32x32 and larger small images. Of torchvision's networks three also come with a stem for
small images, a 3x3 convolution with stride 1 and no pooling: ``resnet18_small``, ``resnet34_small``,
``shufflenetv2_small``.
"""

from __future__ import annotations

import difflib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from crossfade.errors import UserError
from crossfade.lab.data.split import Floats
from crossfade.lab.files import write_bytes
from crossfade.lab.methods import METHODS
from crossfade.lab.nets.resnet import CifarResNet, PreActResNet, ResNeXt29, initialise


def _small_stem(name: str, classes: int) -> nn.Module:
    from torchvision.models import get_model

    net: Any = get_model(name, weights=None, num_classes=classes)
    if name.startswith("resnet"):
        net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        initialise(net.conv1)
    else:
        net.conv1[0] = nn.Conv2d(3, 24, 3, 1, 1, bias=False)
    net.maxpool = nn.Identity()
    return net  # type: ignore[no-any-return]


SMALL_NETS: dict[str, Callable[[int], nn.Module]] = {
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (8, 20, 32, 44, 56, 110)},
    "resnet18_small": partial(_small_stem, "resnet18"),
    "resnet34_small": partial(_small_stem, "resnet34"),
    "preactresnet18": PreActResNet,
    "resnext29": partial(ResNeXt29, 2, 64),  # the 2x64d of Chen et al. 2019, whom Table 5 follows
    "resnext29_8x64d": partial(ResNeXt29, 8, 64),
    "shufflenetv2_small": partial(_small_stem, "shufflenet_v2_x1_0"),
}


def net_names() -> list[str]:
    """Return every name that ``build`` takes."""
    from torchvision import models

    return [*SMALL_NETS, *models.list_models(module=models)]


def check_name(name: str, pretrained: bool = False) -> None:
    """Raise a UserError if ``build`` doesn't know ``name``, or a network that is to be pretrained and can't be."""
    if name in SMALL_NETS:
        if pretrained:
            raise UserError(f"net {name!r} has no pretrained weights; use one of torchvision's, such as resnet18")
        return
    known = net_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(SMALL_NETS)} and torchvision's classifiers"
        raise UserError(f"net {name!r} is unknown ({hint})")


def build(name: str, classes: int, *, pretrained: bool = False, dropout: float = 0.0) -> nn.Module:
    """Return a network with fresh weights from torch's global generator, or torchvision's with a fresh head.

    Args:
        name: One of ``net_names()``.
        pretrained: Torchvision's default weights (downloaded on first use); its own networks only.
        dropout: Probability of dropping an input of the last linear layer.

    Raises:
        UserError: unknown name, pretrained weights that don't exist or can't be fetched, a network without a last
            linear layer where one has to be replaced.
    """
    check_name(name, pretrained)
    net = SMALL_NETS[name](classes) if name in SMALL_NETS else _torchvision(name, classes, pretrained)
    if dropout:
        _replace_head(net, name, lambda head: nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout), head=head)))
    return net


def _torchvision(name: str, classes: int, pretrained: bool) -> nn.Module:
    from torchvision.models import get_model

    options: dict[str, bool] = {}
    if name in ("googlenet", "inception_v3"):  # their auxiliary outputs belong to a training scheme of their own
        options = {"transform_input": False} if pretrained else {"aux_logits": False, "init_weights": True}
    if not pretrained:
        net: nn.Module = get_model(name, weights=None, num_classes=classes, **options)
        return net
    try:
        net = get_model(name, weights="DEFAULT", **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"net {name}: its pretrained weights can't be fetched ({error}); train without --pretrained"
        ) from None
    if name == "inception_v3":  # torchvision removes googlenet's
        net.aux_logits, net.AuxLogits = False, None  # type: ignore[assignment]
    _replace_head(net, name, lambda head: nn.Linear(head.in_features, classes))
    return net


def _replace_head(net: nn.Module, name: str, change: Callable[[nn.Linear], nn.Module]) -> None:
    linear = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"net {name!r} has no last linear layer to replace; use another network")
    path, head = linear[-1]
    parent, _, child = path.rpartition(".")
    setattr(net.get_submodule(parent), child, change(head))


def save_model(path: Path, weights: Mapping[str, Tensor | Floats], provenance: Mapping[str, object]) -> None:
    """Write weights and their provenance to a file, which appears only once it is complete.

    Args:
        path: A path that ends in ``.safetensors``; its folder is made.
        weights: A state dict.
        provenance: Plain data: ``net``, ``classes``, ``dropout``, ``mean``, ``std`` and any other facts.
    """
    plain = {name: torch.as_tensor(value).detach().cpu().contiguous().clone() for name, value in weights.items()}
    about = {"format": "pt", "crossfade": json.dumps(dict(provenance), sort_keys=True)}
    write_bytes(path, save(plain, about), "weights", folder=True)


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the provenance in a file of ``save_model``: recipe, method, seeds, versions, device, scores.

    Raises:
        UserError: a missing or damaged file, or one that crossfade didn't write.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: can't be read as safetensors ({error})") from None
    if "crossfade" not in metadata:
        raise UserError(f"{path}: has no crossfade provenance; expected a file written with --keep-weights")
    return dict(json.loads(metadata["crossfade"]))


def load_model(path: str | Path, *, calibrated: bool = False) -> nn.Module:
    """Return the trained network in evaluation mode on the CPU, with its provenance in ``net.provenance``.

    It maps float32 images (N, 3, H, W), with pixels in [0, 1] normalised by ``provenance["mean"]`` and
    ``provenance["std"]``, to logits (N, classes); ``calibrated`` divides them by ``provenance["temperature"]``, which
    was fitted on the validation part.

    Raises:
        UserError: a missing or damaged file, weights that don't fit the network that it names, or no temperature.
    """
    provenance = read_provenance(path)
    if calibrated and provenance.get("temperature") is None:
        raise UserError(
            f"{path}: has no temperature; expected the weights of the chosen epoch of a run with a validation part"
        )
    net = build(provenance["net"], provenance["classes"], dropout=provenance["dropout"])
    try:
        net.load_state_dict(load_file(str(path)))
    except RuntimeError as error:
        raise UserError(f"{path}: its weights don't fit {provenance['net']} ({str(error).splitlines()[0]})") from None
    net.provenance = provenance  # type: ignore[assignment]
    name = provenance.get("trial", {}).get("method", {}).get("name")
    for scores in (one.scores for one in METHODS if one.name == name and one.scores is not None):
        net.register_forward_hook(partial(_class_scores, scores))
    if calibrated:
        net.register_forward_hook(partial(_divide, provenance["temperature"]))
    return net.eval()


def _class_scores(scores: Callable[[Tensor], Tensor], net: nn.Module, inputs: object, outputs: Tensor) -> Tensor:
    return scores(outputs)


def _divide(temperature: float, net: nn.Module, inputs: object, logits: Tensor) -> Tensor:
    return logits / temperature
