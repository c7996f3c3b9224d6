"""The reference engine: a plain PyTorch loop that trains one network, which the other engines must agree with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.lab.methods import take_step
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
    decay = recipe.weight_decay  # complement objective training has an optimizer for each of its two passes
    optimizers = [torch.optim.SGD(net.parameters(), 1.0, recipe.momentum, weight_decay=decay) for _ in range(2)]
    table = schedule_table(method, recipe, len(x))
    record, best = Record(recipe), deepcopy(net)
    if look is not None:
        look(0, net)
    for epoch, order in enumerate(row_orders(member.seed, len(x), recipe.epochs)):
        total_loss = 0.0
        for step, rows in enumerate(torch.split(torch.from_numpy(order), recipe.batch_size)):
            *values, factor = table[epoch, min(step, table.shape[1] - 1)].tolist()
            rate, target = member.learning_rate * factor, y[rows]
            loss, scores = take_step(method, optimizers, partial(net, x[rows]), target, values, rate)
            total_loss += loss * len(rows)
            if observe is not None:
                observe(epoch, "train", rows, scores, target)
        measured, probabilities = [total_loss / len(x)], []
        with torch.no_grad():
            for name, (inputs, labels) in (("val", validation), ("test", test)):
                logits = method.class_scores(net(inputs))
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
        chosen = method.class_scores(best(test[0])).softmax(1).numpy()
    return record.history(split, chosen, [weight.detach().numpy() for weight in best.parameters()], "plain")
