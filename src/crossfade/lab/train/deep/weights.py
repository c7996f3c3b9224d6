"""Weights of a finished trial as one safetensors file with its provenance, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossfade.errors import UserError
from crossfade.lab.train.outcome import Floats


def save_model(path: Path, weights: Mapping[str, Tensor | Floats], provenance: Mapping[str, Any]) -> None:
    """Write the file so that it is there completely or not at all.

    Args:
        path: Ends in ``.safetensors``.
        weights: A state dict.
        provenance: Plain data with ``net``, ``classes``, ``dropout``, ``mean``, ``std`` and what else should be known.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    plain = {name: torch.as_tensor(value).detach().cpu().contiguous().clone() for name, value in weights.items()}
    save_file(plain, part, metadata={"format": "pt", "crossfade": json.dumps(dict(provenance), sort_keys=True)})
    part.replace(path)


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return what ``save_model`` was told: recipe, method, seeds, versions, device, scores.

    Raises:
        UserError: not there, damaged, or not a file of crossfade's.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: can't be read as safetensors ({error})") from None
    if "crossfade" not in metadata:
        raise UserError(f"{path}: has no crossfade provenance; expected a file written with --keep-weights")
    return dict(json.loads(metadata["crossfade"]))


def load_model(path: str | Path) -> nn.Module:
    """Return the trained network, in evaluation mode on the CPU; ``net.provenance`` says where it comes from.

    It takes float32 images (N, 3, H, W), normalised with ``provenance["mean"]`` and ``provenance["std"]`` of [0, 1]
    pixels, and gives logits (N, classes).

    Raises:
        UserError: not there, damaged, or weights that don't fit the network named in the file.
    """
    from safetensors.torch import load_file

    from crossfade.lab.nets import build

    provenance = read_provenance(path)
    net = build(provenance["net"], provenance["classes"], dropout=provenance["dropout"])
    try:
        net.load_state_dict(load_file(str(path)))
    except RuntimeError as error:
        raise UserError(f"{path}: its weights don't fit {provenance['net']} ({str(error).splitlines()[0]})") from None
    net.provenance = provenance  # type: ignore[assignment]
    return net.eval()
