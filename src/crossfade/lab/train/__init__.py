"""Train many tiny networks at once: what goes in, what comes out, and ``train_stack`` between them."""

from crossfade.lab.train.tables.stack import Engine, select, train_stack
from crossfade.lab.train.tables.types import History, Member, Recipe, Split

__all__ = ["Engine", "History", "Member", "Recipe", "Split", "select", "train_stack"]
