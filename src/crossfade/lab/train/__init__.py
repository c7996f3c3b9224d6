"""Training, one folder a family of networks. What tables need is at hand here."""

from crossfade.lab.data.split import Split
from crossfade.lab.train.outcome import History
from crossfade.lab.train.tables.recipe import Member, Recipe
from crossfade.lab.train.tables.stack import Engine, select, train_stack

__all__ = ["Engine", "History", "Member", "Recipe", "Split", "select", "train_stack"]
