"""The plain PyTorch loop: what the other engines must agree with. One network, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.functional import crossfade_loss, probability_loss
from crossfade.lab.train.tables.record import best_epoch, empty_curves, history
from crossfade.lab.train.tables.setup import initial_weights, mixture_table, row_orders
from crossfade.lab.train.tables.types import Floats, History, Member, Recipe

Part = tuple[Tensor, Tensor]
Observe = Callable[[int, str, Tensor, Tensor, Tensor], None]
Look = Callable[[int, nn.Module], None]


def network(weights: list[Floats]) -> nn.Sequential:
    """Linear layers with these weights and biases, ReLU between them."""
    layers: list[nn.Module] = []
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train_plain(member: Member, recipe: Recipe, *, observe: Observe | None = None, look: Look | None = None) -> History:
    """Train one member.

    Args:
        member, recipe: What to train, and how.
        observe: Called with (epoch, part, rows, logits, labels) of every batch of the part ``"train"`` and, after each
            epoch, of the parts ``"val"`` and ``"test"``.
        look: Called with (epochs done, network) before the first epoch and after each.
    """
    split, method = member.split, member.method
    parts: list[Part] = [
        (torch.from_numpy(x), torch.from_numpy(y))
        for x, y in ((split.x_train, split.y_train), (split.x_val, split.y_val), (split.x_test, split.y_test))
    ]
    x, y = parts[0]
    net = network(initial_weights(member.seed, recipe.sizes(split.features, split.classes)))
    optimizer = torch.optim.SGD(
        net.parameters(), member.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    table = mixture_table(method.schedule, recipe, len(x))
    curves, chosen, best = empty_curves(recipe.epochs), -1, deepcopy(net)
    if look is not None:
        look(0, net)
    for epoch, order in enumerate(row_orders(member.seed, len(x), recipe.epochs)):
        lost = 0.0
        for step, rows in enumerate(torch.split(torch.from_numpy(order), recipe.batch_size)):
            alpha, beta = table[epoch, min(step, table.shape[1] - 1)].tolist()
            logits, target = net(x[rows]), y[rows]
            if method.g is None:
                loss = crossfade_loss(logits, target, alpha=alpha, beta=beta)
            else:
                loss = probability_loss(method.g, logits, target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            lost += loss.item() * len(rows)
            if observe is not None:
                observe(epoch, "train", rows, logits.detach(), target)
        row = (lost / len(x), *evaluate(net, *parts[1]), *evaluate(net, *parts[2]))
        if observe is not None:
            with torch.no_grad():
                for name, (x_part, y_part) in zip(("val", "test"), parts[1:], strict=True):
                    observe(epoch, name, torch.arange(len(y_part)), net(x_part), y_part)
        if look is not None:
            look(epoch + 1, net)
        if not (np.isfinite([row[0], row[2]]).all() and all(p.isfinite().all() for p in net.parameters())):
            break
        curves[epoch] = row
        if best_epoch(curves[: epoch + 1], recipe.tie) == epoch:
            chosen, best = epoch, deepcopy(net)
    with torch.no_grad():
        probabilities = best(parts[2][0]).softmax(1).numpy()
    return history(curves, chosen, probabilities, [p.detach().numpy() for p in best.parameters()], "plain")


def evaluate(net: nn.Module, x: Tensor, y: Tensor) -> tuple[int, float]:
    """Rows classified right, mean CE (NaN for no rows)."""
    with torch.no_grad():
        logits = net(x)
        return int((logits.argmax(1) == y).sum()), F.cross_entropy(logits, y).item()
