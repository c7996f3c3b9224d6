"""The network of a training: how it is built, what a step does in any loop, and its weights as a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossfade._transforms import Transform
from crossfade.errors import UserError
from crossfade.functional import crossfade_loss, probability_loss
from crossfade.lab.methods import Method, ScaledRate, Start, starts
from crossfade.lab.nets import build
from crossfade.lab.train.checks import expect
from crossfade.lab.train.deep.feeds import Batch, DeepSplit, epoch_seed
from crossfade.lab.train.deep.pretrained import load_classifier
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe, TextRecipe
from crossfade.lab.train.deep.record import Observer, Tally
from crossfade.lab.train.outcome import Floats

_GRID = 5040  # places in an epoch where two schedules that move at each step are compared


@dataclass(frozen=True, eq=False)
class Job:
    """One network to train.

    Args:
        split: Data of its repeat; jobs of a repeat share the object.
        method: The loss, or the way to step.
        seed: Of initial weights, order, augmentation and dropout: the same for every method of a repeat.
        folder: For its checkpoint, from which training goes on, and its log; None: nothing is written.
        observe: Called with (epoch, part, index, logits, labels) of every batch of ``"val"`` and ``"test"`` that is
            scored and, by Lightning's loop, of every training batch (part ``"train"``).
    """

    split: DeepSplit
    method: Method
    seed: int
    folder: Path | None = None
    observe: Observer | None = None


def build_network(job: Job, recipe: DeepRecipe, *, channels_last: bool) -> nn.Module:
    """Return the network with the initial weights of the job's seed; the caller's random generator isn't moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(epoch_seed(job.seed, 0, "weights"))
        if isinstance(recipe, TextRecipe):
            return load_classifier(recipe.model, job.split.classes)
        recipe = expect("recipe", recipe, ImageRecipe)
        net = build(recipe.net, job.split.classes, pretrained=recipe.pretrained, dropout=recipe.dropout)
    return net.to(memory_format=torch.channels_last) if channels_last else net


def make_optimizer(net: nn.Module, recipe: DeepRecipe, rate: Tensor | None = None) -> torch.optim.Optimizer:
    """Return SGD for images and AdamW for texts.

    Args:
        net: What it updates.
        recipe: The protocol.
        rate: Holds the learning rate where steps are CUDA graphs; None for the recipe's.
    """
    first = recipe.learning_rate if rate is None else rate
    on_gpu = rate is not None and rate.is_cuda
    decay = recipe.weight_decay
    if isinstance(recipe, ImageRecipe):
        return torch.optim.SGD(net.parameters(), first, recipe.momentum, weight_decay=decay, fused=on_gpu or None)
    # Lightning refuses to limit a gradient under mixed precision where the optimizer could unscale it itself.
    fused = on_gpu if rate is not None else recipe.precision == "32-true" or None
    return torch.optim.AdamW(net.parameters(), first, weight_decay=decay, fused=fused, capturable=on_gpu)


def logits_of(net: nn.Module, inputs: Any, *, channels_last: bool) -> Tensor:
    """Return the logits of images, or of a tokenizer's arrays by name."""
    if isinstance(inputs, Tensor):
        return net(inputs.contiguous(memory_format=torch.channels_last) if channels_last else inputs)  # type: ignore[no-any-return]
    return net(**inputs).logits  # type: ignore[no-any-return]


def loss_of(g: Transform | None, logits: Tensor, labels: Tensor, alpha: float | Tensor, beta: float | Tensor) -> Tensor:
    """Return a method's own function of the cross entropy, or the mixture with these weights."""
    if g is not None:
        return probability_loss(g, logits, labels)
    return crossfade_loss(logits, labels, alpha=alpha, beta=beta)


@torch.no_grad()
def scored(job: Job, net: nn.Module, epoch: int, part: str, batches: Iterable[Batch], *, channels_last: bool) -> Tally:
    """Return the sums of a part after an epoch, which the job may observe."""
    tally = Tally(next(net.parameters()).device, job.split.classes)
    net.eval()
    for inputs, labels, index, _ in batches:
        logits = logits_of(net, inputs, channels_last=channels_last).float()
        tally.add(logits, labels)
        if job.observe is not None:
            job.observe(epoch, part, index, logits, labels)
    net.train()
    return tally


def step_settings(method: Method, recipe: DeepRecipe, epoch: int, within: float) -> tuple[float, float, float]:
    """Return alpha, beta and the learning rate of a step that begins at this part of an epoch."""
    progress = (epoch + within if recipe.granularity == "step" else epoch) / recipe.epochs
    rate = recipe.rate(epoch + within)
    alpha, beta = method.schedule(progress)
    return alpha, beta, rate * method.factor(progress) if isinstance(method, ScaledRate) else rate


def job_starts(
    methods: Sequence[Method], groups: Sequence[Hashable], recipe: DeepRecipe, begun: Sequence[int] = ()
) -> list[Start]:
    """Return where each of several trainings begins; the arguments are those of ``methods.starts``.

    The last epoch, and the first one that is watched, belong to each training alone.
    """
    steps = 1 if recipe.granularity == "epoch" else _GRID
    most = min(recipe.epochs, recipe.watch or recipe.epochs) - 1
    return starts(methods, groups, recipe.epochs, steps=steps, most=most, begun=begun)


def save_model(path: Path, weights: Mapping[str, Tensor | Floats], provenance: Mapping[str, Any]) -> None:
    """Write weights and their provenance so that the file is there completely or not at all.

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

    provenance = read_provenance(path)
    net = build(provenance["net"], provenance["classes"], dropout=provenance["dropout"])
    try:
        net.load_state_dict(load_file(str(path)))
    except RuntimeError as error:
        raise UserError(f"{path}: its weights don't fit {provenance['net']} ({str(error).splitlines()[0]})") from None
    net.provenance = provenance  # type: ignore[assignment]
    return net.eval()
