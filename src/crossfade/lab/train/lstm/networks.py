"""Many LSTM classifiers of one shape as one: their weights in one tensor each, and their logits in batched products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from crossfade.lab.train.lstm.recurrence import recurrence
from crossfade.lab.train.lstm.setup import initial_state, shapes
from crossfade.lab.train.lstm.types import LstmMember, LstmRecipe
from crossfade.lab.train.outcome import Floats

__all__ = ["Networks", "filled"]

_LINE = 16  # numbers: rows of a matrix that begin at a multiple of these are read in the widest pieces


class Networks:
    """The members' networks as ``lstm_plain.LstmClassifier`` has each, with its initial weights.

    Cells, places of a word's vector and words that a network doesn't have are filled up: their weights are zero and
    stay so, as their gradients are.

    Attributes:
        weights: By their names, the first axis the networks'.
    """

    def __init__(self, members: Sequence[LstmMember], recipe: LstmRecipe, device: torch.device) -> None:
        self.members, self.recipe, self.device = members, recipe, device
        self.wide = replace(recipe, embedding=filled(recipe.embedding), hidden=filled(recipe.hidden))
        self.classes, self.vocabulary = members[0].split.classes, max(member.split.vocabulary for member in members)
        self.weights = self._initial()
        self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def _initial(self) -> dict[str, Tensor]:
        wide = shapes(self.vocabulary, self.classes, self.wide)
        different = list(dict.fromkeys((member.seed, member.split.vocabulary) for member in self.members))
        places = [different.index((member.seed, member.split.vocabulary)) for member in self.members]
        arrays = {name: np.zeros((len(different), *_by_gate(name, shape)), np.float32) for name, shape in wide.items()}
        for at, (seed, vocabulary) in enumerate(different):
            for name, value in initial_state(seed, vocabulary, self.classes, self.recipe).items():
                shape = _by_gate(name, value.shape)
                arrays[name][at][tuple(map(slice, shape))] = value.reshape(shape)
        return {
            name: torch.from_numpy(array[places].reshape(-1, *wide[name])).to(self.device).requires_grad_()
            for name, array in arrays.items()
        }

    def logits(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """(networks, rows, classes) from tokens (networks, rows, length) and lengths (networks, rows)."""
        weights, (count, rows, length) = self.weights, tokens.shape
        words = tokens.mT.flatten(1)  # by time first
        words = words + self.vocabulary * torch.arange(count, device=self.device)[:, None]
        values = weights["embedding.weight"].flatten(0, 1).index_select(0, words.flatten()).view(*words.shape, -1)
        for layer in range(self.recipe.layers):
            bias = weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"]
            gates = torch.baddbmm(bias[:, None], values, weights[f"lstm.weight_ih_l{layer}"].mT)
            states = recurrence(gates.view(count, length, rows, -1), weights[f"lstm.weight_hh_l{layer}"])
            values = states.flatten(1, 2)
        last = (lengths - 1)[:, None, :, None].expand(-1, 1, -1, self.wide.hidden)
        return torch.baddbmm(weights["output.bias"][:, None], states.gather(1, last)[:, 0], weights["output.weight"].mT)

    def clip(self, limit: float) -> None:
        """Each network's whole gradient to this 2-norm at most, as ``clip_grad_norm_``."""
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def finite(self) -> list[bool]:
        """Whether all weights of each network are."""
        each = [weight.flatten(1).isfinite().all(1) for weight in self.weights.values()]
        found: list[bool] = torch.stack(each).all(0).tolist()
        return found

    @torch.no_grad()
    def keep(self, places: Sequence[int]) -> None:
        """These networks' weights as they are now."""
        for name, weight in self.weights.items():
            self.best[name][places] = weight[places]

    def kept(self, at: int) -> dict[str, Floats]:
        """One network's weights as they were kept, in the names and shapes of ``LstmClassifier.state_dict()``."""
        known, out = shapes(self.members[at].split.vocabulary, self.classes, self.recipe), {}
        for name, weight in self.best.items():
            array = weight[at].cpu().numpy()
            mine = tuple(map(slice, _by_gate(name, known[name])))
            out[name] = array.reshape(_by_gate(name, array.shape))[mine].reshape(known[name]).copy()
        return out


def filled(size: int) -> int:
    """How many cells or places of a vector are kept for so many."""
    return -(-size // _LINE) * _LINE


def _by_gate(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape with an axis for the gates, if it has them."""
    return (4, shape[0] // 4, *shape[1:]) if name.startswith("lstm.") else shape
