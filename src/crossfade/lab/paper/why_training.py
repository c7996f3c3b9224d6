"""Small real training runs whose weights, and p_y of every example, can be looked at on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.errors import UserError
from crossfade.functional import crossfade_loss
from crossfade.lab.data.builtin import BUILTIN

if TYPE_CHECKING:
    from crossfade.lab.data.images import Part
    from crossfade.schedules import Schedule

__all__ = ["Problem", "cifar", "epochs_of", "image_net", "mlp", "tabular"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Data and a way to make its network. Arrays are ready to train on."""

    name: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    net: Callable[[], nn.Module]
    augment: bool = False


def mlp(inputs: int, classes: int, width: int = 32) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))


def image_net(classes: int, depth: int) -> nn.Module:
    """He et al.'s CIFAR residual network of 6n + 2 layers."""
    from crossfade.lab.nets.resnet import CifarResNet

    return CifarResNet(depth, classes)


def tabular(name: str, data_dir: Path | None, width: int = 32) -> Problem:
    """One of scikit-learn's four sets, or one of the 121 UCI sets under ``data_dir`` (split 0, validation rows joined).

    Raises:
        UserError: the UCI set isn't there.
    """
    if name in BUILTIN:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
        mean, spread = x_train.mean(0), x_train.std(0)
        spread[spread == 0] = 1.0
        x_train, x_test = (x_train - mean) / spread, (x_test - mean) / spread
        classes = int(y.max()) + 1
    else:
        from crossfade.lab.data.uci import uci_tasks

        if data_dir is None:
            raise UserError(f"data set {name!r} is one of the UCI sets: --data-dir must say where they are")
        tasks, missing = uci_tasks(data_dir, (name,))
        if missing:
            raise UserError(f"{data_dir}: UCI set {name!r} is not there; `crossfade data uci --download` gets it")
        split = tasks[0].split(0)
        x_train, y_train = np.concatenate([split.x_train, split.x_val]), np.concatenate([split.y_train, split.y_val])
        x_test, y_test, classes = split.x_test, split.y_test, split.classes
    arrays = (
        torch.as_tensor(x_train, dtype=torch.float32), torch.as_tensor(y_train, dtype=torch.int64),
        torch.as_tensor(x_test, dtype=torch.float32), torch.as_tensor(y_test, dtype=torch.int64),
    )  # fmt: skip
    return Problem(name, *arrays, classes, functools.partial(mlp, arrays[0].shape[1], classes, width))


def cifar(data_dir: Path, *, classes: int, per_class: int, pixels: int, depth: int) -> Problem:
    """CIFAR-100, or its first classes and images at lower resolution: the name says what was cut."""
    from crossfade.lab.data.image_sets import load_images
    from crossfade.lab.data.images import ImageTask

    split = ImageTask(load_images("cifar100", data_dir), per_class=per_class).split(0)

    def ready(part: Part) -> tuple[Tensor, Tensor]:
        kept = part.labels < classes
        mean, std = (moment.float().view(3, 1, 1) for moment in (split.mean, split.std))
        images = (part.images[kept].float() / 255 - mean) / std
        return F.adaptive_avg_pool2d(images, pixels) if pixels < 32 else images, part.labels[kept]

    cut = "" if (classes, per_class, pixels) == (100, 500, 32) else f" ({classes} classes x {per_class}, {pixels} px)"
    net = functools.partial(image_net, classes, depth)
    name = f"CIFAR-100{cut}, ResNet-{depth}"
    return Problem(name, *ready(split.train), *ready(split.test), classes, net, augment=True)


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip and shift by up to an eighth, one draw an image: the usual CIFAR augmentation."""
    size = images.shape[-1]
    pad = size // 8
    flipped = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
    padded = F.pad(images, (pad,) * 4)
    moves = torch.randint(0, 2 * pad + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, r : r + size, c : c + size] for image, (r, c) in zip(padded, moves, strict=True)])


def epochs_of(
    problem: Problem,
    schedule: Schedule,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    milestones: Sequence[float] = (),
    on_batch: Callable[[int, Tensor, Tensor, Tensor], None] | None = None,
    state: Path | None = None,
) -> Iterator[tuple[int, nn.Module]]:
    """Train, yielding (epochs done, network) at the start and after every epoch.

    The same seed gives every schedule the same initial weights, batches and augmentation. ``on_batch`` gets (epoch,
    indices, logits, targets). ``milestones`` are the shares of training at which the learning rate falls tenfold. With
    ``state`` an interrupted run goes on after its last whole epoch, bit for bit.
    """
    torch.manual_seed(seed)
    model = problem.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    first = 0
    if state is not None and state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["epoch"]
    model.eval()
    yield first, model
    for epoch in range(first, epochs):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        optimizer.param_groups[0]["lr"] = learning_rate * 0.1 ** sum(epoch >= share * epochs for share in milestones)
        alpha, beta = schedule(epoch / epochs)
        model.train()
        for rows in torch.split(torch.randperm(len(problem.y), generator=generator), batch_size):
            x = _shifted(problem.x[rows], generator) if problem.augment else problem.x[rows]
            logits = model(x)
            optimizer.zero_grad()
            torch.autograd.backward(crossfade_loss(logits, problem.y[rows], alpha=alpha, beta=beta))
            optimizer.step()
            if on_batch is not None:
                on_batch(epoch, rows, logits, problem.y[rows])
        model.eval()
        if state is not None:
            draft = state.with_suffix(".tmp")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, draft)
            draft.replace(state)
        yield epoch + 1, model
