"""Training, with a folder for each family of networks; this module exports the names for tables."""

from crossfade.lab.data.split import Split
from crossfade.lab.train.outcome import History
from crossfade.lab.train.tables.recipe import Member, Recipe
from crossfade.lab.train.tables.stack import Engine, train_stack

__all__ = ["Engine", "History", "Member", "Recipe", "Split", "train_stack"]
