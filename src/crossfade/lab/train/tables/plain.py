"""The reference engine: a plain PyTorch loop that trains one network, which the other engines must agree with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.functional import crossfade_loss, probability_loss
from crossfade.lab.scores import tallied
from crossfade.lab.train.outcome import Floats, History
from crossfade.lab.train.tables.recipe import Member, Recipe
from crossfade.lab.train.tables.setup import Record, initial_weights, row_orders, schedule_table, state_dict

Observe = Callable[[int, str, Tensor, Tensor, Tensor], None]
Look = Callable[[int, nn.Module], None]


def network(weights: Mapping[str, Floats]) -> nn.Sequential:
    """Return linear layers with these weights and biases, ReLU between them."""
    layers: list[nn.Module] = []
    for name, weight in weights.items():
        if name.endswith("weight"):
            layers += [nn.Linear(weight.shape[1], weight.shape[0], device="meta"), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    net.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()}, assign=True)
    return net


def train_plain(member: Member, recipe: Recipe, *, observe: Observe | None = None, look: Look | None = None) -> History:
    """Train one member.

    Args:
        observe: Called with (epoch, part, rows, logits, labels) of every batch of the part ``"train"`` and, after each
            epoch, of the parts ``"val"`` and ``"test"``.
        look: Called with (epochs done, network) before the first epoch and after each.
    """
    split, method = member.split, member.method
    (x, y), validation, test = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in split.parts]
    sizes = recipe.sizes(split.features, split.classes)
    net = network(state_dict(initial_weights(member.seed, sizes)))
    optimizer = torch.optim.SGD(
        net.parameters(), member.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    table = schedule_table(method, recipe, len(x))
    record, best = Record(recipe), deepcopy(net)
    if look is not None:
        look(0, net)
    for epoch, order in enumerate(row_orders(member.seed, len(x), recipe.epochs)):
        total_loss = 0.0
        for step, rows in enumerate(torch.split(torch.from_numpy(order), recipe.batch_size)):
            alpha, beta, factor = table[epoch, min(step, table.shape[1] - 1)].tolist()
            optimizer.param_groups[0]["lr"] = member.learning_rate * factor
            logits, target = net(x[rows]), y[rows]
            if method.g is None:
                loss = crossfade_loss(logits, target, alpha=alpha, beta=beta)
            else:
                loss = probability_loss(method.g, logits, target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total_loss += loss.item() * len(rows)
            if observe is not None:
                observe(epoch, "train", rows, logits.detach(), target)
        measured, probabilities = [total_loss / len(x)], []
        with torch.no_grad():
            for name, (inputs, labels) in (("val", validation), ("test", test)):
                logits = net(inputs)
                measured += [int((logits.argmax(1) == labels).sum()), F.cross_entropy(logits, labels).item()]
                probabilities.append(logits.softmax(1).numpy())
                if observe is not None:
                    observe(epoch, name, torch.arange(len(labels)), logits, labels)
        if look is not None:
            look(epoch + 1, net)
        if not (np.isfinite([measured[0], measured[2]]).all() and all(p.isfinite().all() for p in net.parameters())):
            break
        if recipe.tallied:
            measured += tallied((probabilities[0], split.y_val), (probabilities[1], split.y_test))
        if record.add(epoch, measured):
            best = deepcopy(net)
    with torch.no_grad():
        chosen = best(test[0]).softmax(1).numpy()
    return record.history(split, chosen, [weight.detach().numpy() for weight in best.parameters()], "plain")
