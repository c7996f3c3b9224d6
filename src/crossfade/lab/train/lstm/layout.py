"""Where the LSTM kernel keeps a network's weights and what it computes.

``H`` cells lie in ``lanes`` places, H rounded up to a multiple of ``WIDE``; what fills up is zero and stays zero. The
gates of ``WIDE`` cells lie together, i, f, g, o, then those of the next; the last few cells' gates are as close, so
that the four don't have a vector each for them. A row of gates has ``wide`` places: so many that the last gate can be
written as a whole vector. A weight matrix is [input, gate place], torch's turned around, and each step copies it into
*panels* that the products walk from end to end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.train.lstm.products import PACKED
from crossfade.lab.train.lstm.setup import shapes
from crossfade.lab.train.lstm.tiles import HEIGHT
from crossfade.lab.train.lstm.types import LstmRecipe
from crossfade.lab.train.outcome import Floats
from crossfade.lab.train.tables.panels import aligned
from crossfade.lab.train.tables.simd import WIDE

# columns of ``layers``, one row a layer. In the weights:
INPUTS, IN_LANES, W_IH, W_HH, B_IH, B_HH = range(6)
# in the workspace: panels to go forward and back, and for every token gates, cell, its tanh, output
P_IH, P_HH, T_IH, T_HH, GATES, CELL, TANH, OUT = range(6, 14)
COLUMNS = 14
# places of ``table``: sizes, weights of the last layer, then the workspace
CELLS, LANES, CLASSES, W_OUT, B_OUT, SIZE, BATCH, VECTOR, VECTOR_LANES, LAYERS = range(10)
X, PROJECTED, D_PROJECTED, D_X, ABOVE, D_OUT, D_CELL, LAST, ZERO, BIAS, LOGITS, ROW, PACK, GATES_WIDE, MASK = range(
    10, 25
)
_LINE, _PAGE = 16, 1024  # floats in a cache line, in 4096 bytes


def up(count: int, multiple: int) -> int:
    """The next multiple."""
    return count + -count % multiple


def gate_places(cells: int) -> tuple[NDArray[np.int64], int]:
    """(4, cells): where the gates of a cell are, and how many places a row has."""
    whole, rest = divmod(cells, WIDE)
    cell = np.arange(cells, dtype=np.int64)
    apart = np.where(cell < whole * WIDE, np.int64(WIDE), np.int64(rest))
    first = 4 * WIDE * (cell // WIDE) + cell % WIDE
    places = np.stack([first + gate * apart for gate in range(4)])
    return places, 4 * WIDE * whole + (up(3 * rest + WIDE, WIDE) if rest else 0)


@dataclass(frozen=True, eq=False)
class LstmLayout:
    """The tables named above, floats of workspace, and how many ``tokens`` and ``unique`` ones a batch can have."""

    table: NDArray[np.int64]
    layers: NDArray[np.int64]
    room: int
    tokens: int
    unique: int
    vocabulary: int
    recipe: LstmRecipe

    def pack(self, state: dict[str, Floats]) -> tuple[Floats, Floats]:
        """(weights, embedding) as the kernel keeps them."""
        table, cells, lanes = self.table, self.recipe.hidden, int(self.table[LANES])
        p, e = aligned(int(table[SIZE])), aligned(self.vocabulary * int(table[VECTOR_LANES]))
        e.reshape(self.vocabulary, -1)[:, : self.recipe.embedding] = state["embedding.weight"]
        for n, layer in enumerate(self.layers):
            for name, place in (("weight_ih", W_IH), ("weight_hh", W_HH), ("bias_ih", B_IH), ("bias_hh", B_HH)):
                weight = state[f"lstm.{name}_l{n}"].reshape(4, cells, -1).transpose(2, 0, 1)
                self._view(p, int(layer[place]), len(weight))[:, gate_places(cells)[0]] = weight
        classes = int(table[CLASSES])
        at = int(table[W_OUT])
        p[at : at + classes * lanes].reshape(classes, lanes)[:, :cells] = state["output.weight"]
        p[int(table[B_OUT]) :][:classes] = state["output.bias"]
        return p, e

    def unpack(self, p: Floats, e: Floats) -> dict[str, Floats]:
        """The weights in torch's names and shapes."""
        table, cells, lanes, classes = self.table, self.recipe.hidden, int(self.table[LANES]), int(self.table[CLASSES])
        out: dict[str, Floats] = {}
        for name, shape in shapes(self.vocabulary, classes, self.recipe).items():
            if name == "embedding.weight":
                part = e.reshape(self.vocabulary, -1)[:, : shape[1]]
            elif name == "output.weight":
                part = p[int(table[W_OUT]) :][: classes * lanes].reshape(classes, lanes)[:, :cells]
            elif name == "output.bias":
                part = p[int(table[B_OUT]) :][:classes]
            else:
                kind, n = name.removeprefix("lstm.").rsplit("_l", 1)
                place = {"weight_ih": W_IH, "weight_hh": W_HH, "bias_ih": B_IH, "bias_hh": B_HH}[kind]
                rows = shape[1] if len(shape) == 2 else 1
                view = self._view(p, int(self.layers[int(n), place]), rows)[:, gate_places(cells)[0]]
                part = view.transpose(1, 2, 0).reshape(shape)
            out[name] = part.copy()
        return out

    def _view(self, p: Floats, at: int, rows: int) -> Floats:
        return p[at : at + rows * int(self.table[GATES_WIDE])].reshape(rows, -1)


def lstm_layout(recipe: LstmRecipe, vocabulary: int, classes: int, longest: int) -> LstmLayout:
    """The layout for texts of at most ``longest`` tokens."""
    cells, lanes, vector = recipe.hidden, up(recipe.hidden, WIDE), up(recipe.embedding, WIDE)
    batch, wide = up(recipe.batch_size, HEIGHT), gate_places(recipe.hidden)[1]
    tokens = batch * longest
    unique = up(min(vocabulary, recipe.batch_size * longest), HEIGHT)
    table, layers = np.zeros(25, dtype=np.int64), np.zeros((recipe.layers, COLUMNS), dtype=np.int64)
    table[[CELLS, LANES, CLASSES, BATCH, VECTOR, VECTOR_LANES, LAYERS, GATES_WIDE]] = (
        cells, lanes, classes, batch, recipe.embedding, vector, recipe.layers, wide,
    )  # fmt: skip
    weights, room = _Places(), _Places()
    for n, layer in enumerate(layers):
        layer[INPUTS] = recipe.embedding if n == 0 else cells
        layer[IN_LANES] = vector if n == 0 else lanes
        for place, height in ((W_IH, int(layer[IN_LANES])), (W_HH, lanes), (B_IH, 1), (B_HH, 1)):
            layer[place] = weights.take(max(height, up(int(layer[INPUTS]), HEIGHT) if place == W_IH else height,
                                            up(cells, HEIGHT) if place == W_HH else height) * wide)  # fmt: skip
        for place, height in ((P_IH, int(layer[INPUTS])), (P_HH, cells)):
            layer[place] = room.take(height * wide)
        for place, width in ((T_IH, int(layer[IN_LANES])), (T_HH, lanes)):
            layer[place] = room.take(4 * cells * width)
        layer[GATES] = room.take(tokens * wide)
        for place in (CELL, TANH, OUT):
            layer[place] = room.take(tokens * lanes)
    table[W_OUT], table[B_OUT] = weights.take(classes * lanes), weights.take(classes)
    table[SIZE] = weights.end
    for place, count in (
        (X, unique * vector), (D_X, unique * vector),
        (PROJECTED, unique * wide), (D_PROJECTED, unique * wide),
        (ABOVE, tokens * lanes if recipe.layers > 1 else 0), (D_OUT, batch * lanes), (D_CELL, batch * lanes),
        (LAST, batch), (ZERO, batch * lanes), (BIAS, wide), (LOGITS, batch * classes), (ROW, 24),
        (PACK, PACKED * 4 * WIDE), (MASK, WIDE),
    ):  # fmt: skip
        table[place] = room.take(count)
    return LstmLayout(table, layers, room.end, tokens, unique, vocabulary, recipe)


class _Places:
    """One array after the other, each beginning with a cache line and with room to read a little over its end."""

    def __init__(self) -> None:
        self.end = 0

    def take(self, count: int) -> int:
        at = self.end
        self.end = up(at + count + WIDE, _LINE)
        return at
