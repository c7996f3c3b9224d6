"""A small language model of bytes: pre-trained on documentation, fine-tuned with an objective, and scored."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade._transforms import Mixture, Transform
from crossfade.errors import UserError
from crossfade.functional import probability_loss
from crossfade.lab import checkpoints
from crossfade.lab.checks import check_count, check_positive, expect
from crossfade.lab.data.split import entry
from crossfade.lab.methods import Method
from crossfade.lab.store import Outcome
from crossfade.lab.train.outcome import short
from crossfade.lab.trial import Json, Shape, Trial, digest, seed, stream_seed

RARE = 0.01  # the p below which the model doesn't know a byte


@dataclass(frozen=True)
class FinetuneRecipe:
    """A causal transformer of bytes with tied embeddings, trained with AdamW; rates rise for a tenth and fall to 0.

    Args:
        width, layers, context: Size of a byte's vector, layers (of four heads), bytes that are seen at once.
        batch_size, epochs: Blocks of ``context`` bytes in a step; passes over the text to fine-tune on.
        pretrain_steps, pretrain_rate: With the cross entropy, on the old text.
        train, held_out: Bytes to fine-tune on; bytes for validation, and as many for each test.
        learning_rates: Of the fine-tuning. The one with the best accuracy on validation text counts.
        scale: ``"paper"`` for the full protocol; anything shorter says so.
        protocol: Raised when the meaning of a recipe or of an objective's name changes.
    """

    width: int = 64
    layers: int = 2
    context: int = 64
    batch_size: int = 16
    epochs: int = 1
    pretrain_steps: int = 2000
    pretrain_rate: float = 3e-3
    train: int = 32_768
    held_out: int = 16_384
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    scale: str = "paper"
    protocol: int = 1

    granularity = "step"

    def __post_init__(self) -> None:
        for name in ("width", "layers", "context", "batch_size", "epochs", "pretrain_steps", "train", "held_out"):
            check_count(name, getattr(self, name))
        for rate in self.learning_rates:
            check_positive("learning_rates", rate)

    def to_dict(self) -> Json:
        return asdict(self)

    def cost(self, shape: Shape) -> float:
        weights = 12 * self.layers * self.width**2 + 256 * self.width
        return 3.0 * weights * shape.rows * self.epochs * len(self.learning_rates)


@dataclass(frozen=True, eq=False)
class FinetuneTask:
    """A kind of new text to fine-tune on: each repeat divides its documents anew.

    Args:
        pretrain, old: What the model has learnt before, and more of the same, to test what it has forgotten.
        new: Documents to fine-tune, validate and test on.
        folder: Where the pre-trained weights are kept.
    """

    name: str
    pretrain: tuple[bytes, ...]
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]
    recipe: FinetuneRecipe
    folder: Path

    @cached_property
    def content(self) -> Mapping[str, object]:
        parts = (self.pretrain, self.old, self.new)
        return {"text": [blake2b(b"\0".join(part), digest_size=16).hexdigest() for part in parts]}

    @property
    def shape(self) -> Shape:
        return Shape(self.recipe.train, self.recipe.context, 256)

    def split(self, repeat: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return blocks of the repeat's text to fine-tune, validate and test on, of different documents."""
        order = np.random.default_rng(stream_seed(self.content, repeat, "split")).permutation(len(self.new))
        documents, sizes = iter([self.new[at] for at in order]), (self.recipe.held_out, self.recipe.held_out)
        test, val, train = (blocks(documents, self.recipe.context, size) for size in (*sizes, self.recipe.train))
        return train, val, test

    def describe(self) -> Json:
        sizes = [range(size) for size in (self.recipe.train, self.recipe.held_out, self.recipe.held_out)]
        source = "torch's C++ headers" if self.name == "unknown" else "Python's and torch's documentation"
        return entry(self, source, self.recipe.context, sizes, digest(self.content))


def blocks(documents: Iterator[bytes], context: int, size: int) -> Tensor:
    """Return the next documents as (size / context, context + 1) bytes; each block begins with the last byte before."""
    text = bytearray()
    for document in documents:
        text += document + b"\0"
        if len(text) > size:
            break
    text = text[: size + 1]
    return torch.frombuffer(text, dtype=torch.uint8).long().unfold(0, context + 1, context)


class ByteModel(nn.Module):
    """A causal transformer: bytes (N, T) to the logits of the next ones (N, T, 256)."""

    def __init__(self, recipe: FinetuneRecipe) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, recipe.width)
        nn.init.normal_(self.embedding.weight, std=recipe.width**-0.5)
        self.position = nn.Parameter(torch.zeros(recipe.context, recipe.width))
        layer = nn.TransformerEncoderLayer(
            recipe.width, 4, 4 * recipe.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(recipe.width)
        self.layers = nn.TransformerEncoder(layer, recipe.layers, norm, enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(recipe.context), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layers(self.embedding(x) + self.position, mask=self.mask, is_causal=True)
        return F.linear(hidden, self.embedding.weight)


def train(
    model: ByteModel, text: Tensor, g_at: Callable[[float], Transform], order: Sequence[Tensor], rate: float
) -> None:
    """Take a step for each batch of the order, with the loss g at its progress."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.0)
    for step, places in enumerate(order):
        progress = step / len(order)
        rise, fall = 10 * (step + 1) / len(order), (1 + math.cos(math.pi * progress)) / 2
        optimizer.param_groups[0]["lr"] = rate * min(rise, fall)
        batch = text[places]
        loss = probability_loss(g_at(progress), model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


@torch.no_grad()
def score(model: ByteModel, text: Tensor) -> tuple[Tensor, Tensor]:
    """Return every byte's cross entropy (float64), and whether it was the likeliest."""
    found = []
    for batch in torch.split(text, 64):
        logits, target = model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        found.append((F.cross_entropy(logits.double(), target, reduction="none"), logits.argmax(1) == target))
    ce, hits = zip(*found, strict=True)
    return torch.cat(ce), torch.cat(hits).double()


def epochs_of(size: int, recipe: FinetuneRecipe, seed: int, steps: int | None = None) -> list[Tensor]:
    """Return the batches of whole passes over ``size`` blocks, or so many steps."""
    generator = torch.Generator().manual_seed(seed)
    wanted = recipe.epochs * (size // recipe.batch_size) if steps is None else steps
    order: list[Tensor] = []
    while len(order) < wanted:
        whole = torch.randperm(size, generator=generator)[: size - size % recipe.batch_size]
        order += whole.view(-1, recipe.batch_size)
    return order[:wanted]


def pretrained(task: FinetuneTask) -> ByteModel:
    """Return the model that has learnt the old text; its weights are computed once, and kept in the task's folder."""
    recipe = task.recipe
    learnt = [task.content["text"], recipe.width, recipe.layers, recipe.context, recipe.batch_size]
    name = digest([learnt, recipe.pretrain_steps, recipe.pretrain_rate, recipe.protocol])
    file = task.folder / name / "pretrained.ckpt"
    found = checkpoints.resume(file, lambda kept: ByteModel(recipe).load_state_dict(kept["model"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ByteModel(recipe)
    if found is not None:
        model.load_state_dict(found["model"])
        return model
    text = blocks(iter(task.pretrain), recipe.context, sum(map(len, task.pretrain)))
    order = epochs_of(len(text), recipe, 0, recipe.pretrain_steps)
    train(model, text, lambda progress: Mixture(1.0, 0.0), order, recipe.pretrain_rate)
    with suppress(UserError):  # a folder that can't be written to: another process computes them again
        checkpoints.save({"model": model.state_dict()}, file)
    return model


def objective(method: Method, progress: float) -> Transform:
    """Return the method's loss of a byte at this progress."""
    values = method.schedule(progress)
    return Mixture(*values) if method.own is None else method.transform(values)


def compute(trial: Trial, folder: Path) -> Outcome:
    """Fine-tune at every rate, and score the model of the best one on new and old text."""
    started = time.perf_counter()
    task, recipe = expect("task", trial.task, FinetuneTask), expect("recipe", trial.recipe, FinetuneRecipe)
    new, val, test = task.split(trial.repeat)
    old = blocks(iter(task.old), recipe.context, recipe.held_out)
    model = pretrained(task)
    start = deepcopy(model.state_dict())
    ce, hits = score(model, test)
    rare = ce > -math.log(RARE)
    before = {"accuracy": hits.mean(), "nll": ce.mean(), "rare": rare.double().mean()}
    before["old_accuracy"] = score(model, old)[1].mean()
    order = epochs_of(len(new), recipe, seed(trial, "train"))
    curves: dict[str, list[float | None]] = {
        "learning_rate": [*recipe.learning_rates],
        "val_accuracy": [],
        "val_nll": [],
    }
    best, rate, weights = -1.0, math.nan, start
    for tried in recipe.learning_rates:
        model.load_state_dict(start)
        train(model, new, lambda progress: objective(trial.method, progress), order, tried)
        ce, hits = score(model, val)
        reached = hits.mean().item() if ce.isfinite().all() else math.nan
        curves["val_accuracy"].append(short(reached))
        curves["val_nll"].append(short(ce.mean().item()))
        if reached > best:
            best, rate, weights = reached, tried, deepcopy(model.state_dict())
    if best < 0:
        return Outcome(error="the weights diverge at every learning rate; try smaller ones")
    model.load_state_dict(weights)
    (ce, hits), (old_ce, old_hits) = score(model, test), score(model, old)
    found = {"accuracy": hits.mean(), "nll": ce.mean(), "p": torch.exp(-ce).mean()}
    found |= {"rare": (ce > -math.log(RARE)).double().mean(), "rare_accuracy": hits[rare].mean()}
    found |= {"old_accuracy": old_hits.mean(), "old_nll": old_ce.mean()}
    found |= {f"before_{name}": value for name, value in before.items()}
    result: Json = {name: short(value.item()) for name, value in found.items()}
    sizes = {name: part[:, 1:].numel() for name, part in (("n_train", new), ("n_val", val), ("n_test", test))}
    about = {"learning_rate": rate, "epoch": recipe.epochs, "classes": 256, "scale": recipe.scale}
    return Outcome(result | sizes | about | {"seconds": round(time.perf_counter() - started, 2)}, curves)
