"""The batched engine: many networks of one shape as one PyTorch computation, on any device and with any loss g.

The gradient is written out (softmax minus onehot, times a weight for each row), because autograd's bookkeeping would
take longer than the steps themselves. A network's result must not depend on the other networks, but libraries choose
their algorithms by the shape of a stack, the number of threads and the alignment of a matrix. So a stack always has the
same number of slots, the spare ones filled with copies; the CPU uses one thread; and every matrix is padded with zeros
so that it begins at a cache line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crossfade.lab.data.split import Split
from crossfade.lab.methods import Scheduled, TwoPass
from crossfade.lab.scores import tallied
from crossfade.lab.train.outcome import Floats, History
from crossfade.lab.train.tables.recipe import Member, Recipe
from crossfade.lab.train.tables.setup import Record, cost, initial_weights, row_orders, schedule_table

_SLOTS_CPU = 16  # networks in a stack
_SLOTS = 256  # a GPU's step takes as long for 16
_LINE = 16  # floats in a cache line
_ROWS = 1024  # rows that are classified at once


def train_batched(
    members: Sequence[Member], recipe: Recipe, device: str, on_progress: Callable[[float], None]
) -> list[History]:
    """Train all members, in stacks of networks of the same shape."""
    slots = _SLOTS_CPU if torch.device(device).type == "cpu" else _SLOTS
    out: dict[int, History] = {}
    order = sorted(range(len(members)), key=lambda i: _shape(members[i].split))
    threads, done, total = torch.get_num_threads(), 0.0, sum(cost(member, recipe) for member in members) * recipe.epochs
    torch.set_num_threads(1)
    try:
        for _, alike in groupby(order, key=lambda i: _shape(members[i].split)):
            group = list(alike)
            for start in range(0, len(group), slots):
                chosen = group[start : start + slots]
                filled = [members[i] for i in chosen + chosen[:1] * (slots - len(chosen))]
                stack = _Stack(filled, len(chosen), recipe, torch.device(device))
                epoch = len(chosen) * cost(members[chosen[0]], recipe) / total

                def report(epoch: float = epoch) -> None:
                    nonlocal done
                    done += epoch
                    on_progress(done)

                with torch.no_grad():
                    out.update(zip(chosen, stack.train(report), strict=True))
    finally:
        torch.set_num_threads(threads)
    return [out[i] for i in range(len(members))]


def _shape(split: Split) -> tuple[int, ...]:
    return split.features, split.classes, len(split.y_train), len(split.y_val), len(split.y_test)


def _padded(stack: Floats, axes: Sequence[int] | None = None) -> Floats:
    """Return the stack padded with zeros along each axis but the first, up to a whole number of cache lines."""
    chosen = range(1, stack.ndim) if axes is None else axes
    return np.pad(stack, [(0, -size % _LINE if axis in chosen else 0) for axis, size in enumerate(stack.shape)])


class _Stack:
    """Networks of one shape on data sets of one shape. The first ``count`` are real, the others fill the slots."""

    def __init__(self, members: Sequence[Member], count: int, recipe: Recipe, device: torch.device) -> None:
        self.members, self.count, self.recipe, self.device = members, count, recipe, device
        split = members[0].split
        sizes = recipe.sizes(split.features, split.classes)
        starts = [initial_weights(member.seed, sizes) for member in members]
        self.shapes = [array.shape for array in starts[0]]
        self.weights = [self._put(_padded(np.stack(arrays))) for arrays in zip(*starts, strict=True)]
        self.velocity, self.velocity2 = ([torch.zeros_like(weight) for weight in self.weights] for _ in range(2))
        self.rate = self._put(np.array([member.learning_rate for member in members], np.float32))
        splits = list({id(member.split): member.split for member in members}.values())
        which = [next(k for k, s in enumerate(splits) if s is member.split) for member in members]
        self.which = torch.tensor(which, device=device)
        self.classes = split.classes
        self.parts = {
            part: (
                self._put(_padded(np.stack([getattr(s, f"x_{part}") for s in splits]), axes=(2,))),
                self._put(np.stack([getattr(s, f"y_{part}") for s in splits])),
            )
            for part in ("train", "val", "test")
        }
        methods = {id(member.method): member.method for member in members}
        self.tables = {at: schedule_table(method, recipe, len(split.y_train)) for at, method in methods.items()}
        # epoch, step, (alpha, beta, factor of the rate), member; the parameters of other losses are read as numbers
        shown = [self.tables[id(member.method)][..., [0, min(1, len(member.method.names)), -1]] for member in members]
        self.schedules = self._put(np.stack(shown, -1))
        self.methods = [  # each with a mask (member, 1, 1) of whose it is
            (one, torch.tensor([member.method is one for member in members], device=device)[:, None, None])
            for one in methods.values()
        ]

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def train(self, on_epoch: Callable[[], None]) -> list[History]:
        recipe, members = self.recipe, self.members
        rows = len(members[0].split.y_train)
        orders = {seed: row_orders(seed, rows, recipe.epochs) for seed in {member.seed for member in members}}
        records, alive = [Record(recipe) for _ in members], [True] * len(members)
        best = [weight.clone() for weight in self.weights]
        for epoch in range(recipe.epochs):
            order = self._put(np.stack([orders[member.seed][epoch] for member in members]).astype(np.int64))
            total_loss = torch.zeros(len(members), device=self.device)
            for step, batch in enumerate(torch.split(order, recipe.batch_size, 1)):
                total_loss += self._step(batch, epoch, min(step, self.schedules.shape[1] - 1))
            finite = torch.stack([weight.flatten(1).isfinite().all(1) for weight in self.weights]).all(0)
            val, test = self._evaluate("val"), self._evaluate("test")
            measured = torch.stack([total_loss / rows, *val[:2], *test[:2], finite], 1).double().cpu().numpy()
            better = []
            for slot, row in enumerate(measured):
                alive[slot] &= bool(row[5] and np.isfinite(row[[0, 2]]).all())
                split = members[slot].split
                more = tallied((val[2][slot], split.y_val), (test[2][slot], split.y_test)) if recipe.tallied else []
                if alive[slot] and records[slot].add(epoch, [*row[:5], *more]):
                    better.append(slot)
            for kept, weight in zip(best, self.weights, strict=True):
                kept[better] = weight[better]
            on_epoch()
        self.weights = best
        probabilities = torch.cat([logits.softmax(-1) for logits, _ in self._logits("test")], 1).cpu().numpy()
        out = []
        for slot in range(self.count):
            both = zip(self.weights, self.shapes, strict=True)
            own = [weight[slot].cpu().numpy()[tuple(map(slice, shape))].copy() for weight, shape in both]
            out.append(records[slot].history(members[slot].split, probabilities[slot], own, "batched"))
        return out

    def _forward(self, x: Tensor) -> list[Tensor]:
        """Return the inputs of each layer, and the logits."""
        values = [x]
        for n, (weight, bias) in enumerate(zip(self.weights[::2], self.weights[1::2], strict=True)):
            z = torch.baddbmm(bias[:, None], values[-1], weight.transpose(1, 2))
            values.append(z[..., : self.classes] if 2 * n + 2 == len(self.weights) else z.relu())
        return values

    def _step(self, rows: Tensor, epoch: int, move: int) -> Tensor:
        """Take a step for every member on its own rows (member, row), and return the sum of each one's losses."""
        x, y = (part[self.which[:, None], rows] for part in self.parts["train"])
        *values, outputs = self._forward(x)
        log_p = outputs.log_softmax(-1)
        ce = -log_p.gather(-1, y[..., None])[..., 0]
        schedule = self.schedules[epoch, move]
        alpha, beta, rate = schedule[0, :, None], schedule[1, :, None], self.rate * schedule[2]
        p = (-ce).exp()
        weight, loss = alpha + beta * p, alpha * ce + beta * (1 - p)
        weight = (weight / rows.shape[1])[..., None]
        d = (log_p.exp() * weight).scatter_add_(-1, y[..., None], -weight)
        for method, mine in self.methods:
            criterion = method.criterion
            if isinstance(criterion, Scheduled):
                criterion = partial(criterion, values=self.tables[id(method)][epoch, move, :-1].tolist())
            if criterion is not None:
                value, slope = _value_and_gradient(criterion, outputs, y)
                loss, d = torch.where(mine[..., 0], value, loss), torch.where(mine, slope / rows.shape[1], d)
        self._descend(values, d, self.velocity, rate)
        for method, mine in self.methods:
            if isinstance(method, TwoPass):
                *values, outputs = self._forward(x)
                _, slope = _value_and_gradient(method.second_loss, outputs, y)
                self._descend(values, slope * mine / rows.shape[1], self.velocity2, rate * mine[:, 0, 0])
        return loss.sum(1)

    def _descend(self, values: Sequence[Tensor], d: Tensor, velocities: Sequence[Tensor], rate: Tensor) -> None:
        """Take a step of SGD, given each layer's inputs and the gradient of the outputs (member, row, class)."""
        d = F.pad(d, (0, -self.classes % _LINE))
        for n in range(len(values) - 1, -1, -1):
            gradients = d.transpose(1, 2) @ values[n], d.sum(1)
            if n:
                d = (d @ self.weights[2 * n]).masked_fill_(values[n] <= 0, 0.0)
            for k, gradient in enumerate(gradients, 2 * n):
                weight, velocity = self.weights[k], velocities[k]
                if self.recipe.weight_decay:
                    gradient = gradient.add(weight, alpha=self.recipe.weight_decay)
                velocity.mul_(self.recipe.momentum).add_(gradient)
                weight.addcmul_(rate.view(-1, *[1] * (weight.dim() - 1)), velocity, value=-1.0)

    def _logits(self, part: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the classes' scores (member, row, class) and labels (member, row), a thousand rows at a time."""
        x, y = self.parts[part]
        for inputs, labels in zip(torch.split(x, _ROWS, 1), torch.split(y, _ROWS, 1), strict=True):
            logits = self._forward(inputs[self.which])[-1]
            for method, mine in self.methods:
                if method.scores is not None:
                    logits = torch.where(mine, method.scores(logits.flatten(0, 1)).view_as(logits), logits)
            yield logits, labels[self.which]

    def _evaluate(self, part: str) -> tuple[Tensor, Tensor, Floats]:
        """Return each member's number of correctly classified rows, mean CE and, if tallied, probabilities."""
        correct, nll, probabilities = torch.zeros_like(self.rate), torch.zeros_like(self.rate), []
        for logits, y in self._logits(part):
            correct += (logits.argmax(-1) == y).sum(1)
            nll += F.cross_entropy(logits.transpose(1, 2), y, reduction="none").sum(1)
            if self.recipe.tallied:
                probabilities.append(logits.softmax(-1).cpu().numpy())
        return correct, nll / self.parts[part][1].shape[1], np.concatenate(probabilities or [np.empty((0, 0))], 1)


def _value_and_gradient(criterion: Callable[..., Tensor], outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of each row (member, row), and its gradient with respect to the outputs (member, row, class)."""
    with torch.enable_grad():
        leaf = outputs.detach().requires_grad_()
        value = criterion(leaf.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope
