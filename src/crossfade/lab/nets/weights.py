"""The weights of a trained image network, and their provenance, as a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from crossfade.errors import UserError
from crossfade.lab.data.split import Floats
from crossfade.lab.files import write_bytes
from crossfade.lab.nets import build


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


def load_model(path: str | Path) -> nn.Module:
    """Return the trained network in evaluation mode on the CPU, with its provenance in ``net.provenance``.

    It maps float32 images (N, 3, H, W), with pixels in [0, 1] normalised by ``provenance["mean"]`` and
    ``provenance["std"]``, to logits (N, classes).

    Raises:
        UserError: a missing or damaged file, or weights that don't fit the network that it names.
    """
    provenance = read_provenance(path)
    net = build(provenance["net"], provenance["classes"], dropout=provenance["dropout"])
    try:
        net.load_state_dict(load_file(str(path)))
    except RuntimeError as error:
        raise UserError(f"{path}: its weights don't fit {provenance['net']} ({str(error).splitlines()[0]})") from None
    net.provenance = provenance  # type: ignore[assignment]
    return net.eval()
