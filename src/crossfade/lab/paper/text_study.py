"""What the text studies (Table 3, Figure 2) and a comparison on texts share: a request written down as trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crossfade.errors import UserError
from crossfade.lab.described import describe_run
from crossfade.lab.store import Run

if TYPE_CHECKING:
    from crossfade.lab.trial import Trial

__all__ = ["MIXTURES", "TextPlan", "check_scale", "plan_of"]

MIXTURES = ("ce", "f0", "f0-late", "gradual")


@dataclass(frozen=True, eq=False)
class TextPlan:
    """A request that can be carried out: texts and models are there, nothing is trained."""

    title: str
    trials: tuple[Trial, ...]
    run: Run
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scale: str = "paper"
    choices: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """What will be run, for people."""
        tasks = {trial.task.name: trial.task for trial in self.trials}
        methods = list(dict.fromkeys(trial.method.name for trial in self.trials))
        repeats = len({trial.repeat for trial in self.trials})
        shortened = "" if self.scale in ("paper", "own") else f" · scale {self.scale}, not the paper's protocol"
        lines = [f"{self.title}{shortened}", f"{len(self.trials)} runs: {', '.join(methods)} · {repeats} repeats"]
        for name, task in tasks.items():
            about = task.describe()
            recipe: Any = next(trial.recipe for trial in self.trials if trial.task is task)
            lines.append(
                f"  {name}: {about['n_train']:,} + {about['n_val']:,} + {about['n_test']:,} texts of "
                f"{about['classes']} classes · {recipe.epochs} epochs, batch {recipe.batch_size}, learning rate "
                f"{recipe.learning_rate:g}"
            )
        return lines + [f"  note: {note}" for note in self.notes] + [f"  not here: {line}" for line in self.missing]


def plan_of(
    study: str,
    title: str,
    trials: Sequence[Trial],
    command: str | Sequence[str],
    *,
    seed: int = 0,
    scale: str = "paper",
    missing: Sequence[str] = (),
    notes: Sequence[str] = (),
    choices: Sequence[str] = (),
) -> TextPlan:
    """The plan of these trials."""
    about = describe_run(title, trials, command, seed=seed, notes=[*notes, *choices])
    run = Run(study, {"meta": about, "settings": {"scale": scale}}, tuple(trial.key for trial in trials))
    return TextPlan(title, tuple(trials), run, tuple(missing), tuple(notes), scale, tuple(choices))


def check_scale(scale: str, repeats: int | None) -> None:
    """Raises UserError for a word or a number that isn't one."""
    if scale not in ("smoke", "short", "paper"):
        raise UserError(f"--scale: expected smoke, short or paper, got {scale!r}")
    if repeats is not None and repeats < 1:
        raise UserError(f"--repeats: expected a whole number of at least 1, got {repeats}")
