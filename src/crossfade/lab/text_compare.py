"""The question "would it help on my texts?": a table with a column of texts, from a request to an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crossfade.errors import UserError
from crossfade.lab.paper.text_study import TextPlan, plan_of
from crossfade.lab.result import ComparisonResult
from crossfade.lab.store import Store
from crossfade.lab.train.deep.text_recipe import TextRecipe
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.train.lstm.types import LstmRecipe
from crossfade.lab.trial import Trial

if TYPE_CHECKING:
    from crossfade.lab.data.texts import TextSet
    from crossfade.lab.methods import Method

__all__ = ["TextSettings", "compare_texts", "execute_texts", "plan_texts"]

_METHODS = ("ce", "f0", "f0-late", "gradual")


@dataclass(frozen=True)
class TextSettings:
    """What decides a comparison on texts, except the texts. None is the network's own default.

    Args:
        methods: Names out of ``crossfade list``; CE is always there.
        loss: Own losses g(ce), each ``"module:function"`` or ``"file.py:function"``.
        net: ``"lstm"``, or ``"bert:NAME_OR_FOLDER"`` for a pretrained transformer.
        width, depth: Of an LSTM: cells (and the size of a word's vector), and layers.
        repeats: Splits, each with its own initial weights (of BERT: of its head) and order.
        seed: Another number gives others.
        test_size: Share of the texts in the test part; as many are for validation.
        epochs, batch_size, learning_rate, max_length: 10, 64, 0.001 and 128 words for an LSTM (Adam); 3, 32, 2e-5 and
            128 tokens for BERT (AdamW, falling linearly to zero). Of few texts a hundredth is a batch, at least 8.
        accumulate, precision: As ``TextRecipe``'s.
    """

    methods: tuple[str, ...] = _METHODS
    loss: tuple[str, ...] = ()
    net: str = "lstm"
    width: int = 50
    depth: int = 1
    repeats: int = 5
    seed: int = 0
    test_size: float = 0.2
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    max_length: int | None = None
    accumulate: int = 1
    precision: str = "32-true"

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UserError(f"repeats must be at least 1, got {self.repeats}")
        if self.net != "lstm" and not (self.net.startswith("bert:") and self.net[5:]):
            raise UserError(f"net must be lstm, or bert:NAME with a model's name or folder, got {self.net!r}")

    def recipe(self) -> LstmRecipe | TextRecipe:
        """The protocol."""
        said = {
            name: value
            for name in ("epochs", "batch_size", "learning_rate", "max_length")
            if (value := getattr(self, name)) is not None
        }
        if self.net == "lstm":
            if self.accumulate != 1 or self.precision != "32-true":
                raise UserError("accumulate and precision are for --net bert:NAME; an LSTM is trained in 32-true")
            return replace(
                LstmRecipe(self.width, self.width, self.depth, granularity="step", scale="own"), **said
            )  # fmt: skip
        return replace(
            TextRecipe(
                self.net[5:], max_length=128, epochs=3, select="validation", scale="own", accumulate=self.accumulate,
                precision=self.precision,  # type: ignore[arg-type]
            ),
            **said,
        )  # fmt: skip


def plan_texts(data: TextSet, settings: TextSettings, command: str | Sequence[str]) -> TextPlan:
    """Check a request and write it down as trials.

    Raises:
        UserError: texts, network, methods or settings that can't be used.
    """
    from crossfade.lab.data.texts import TextTask
    from crossfade.lab.train.lstm.words import tokenize

    methods = _methods(settings)
    task = TextTask(data, test_size=settings.test_size, seed=settings.seed)
    recipe = settings.recipe()
    examples = len(task.split(0).train)
    if settings.batch_size is None:  # few texts would make too few steps to learn anything from
        recipe = replace(recipe, batch_size=min(recipe.batch_size, max(8, examples // 100)))
    recipe = replace(recipe, batch_size=min(recipe.batch_size, max(2, math.ceil(examples / 4))))
    if isinstance(recipe, LstmRecipe):
        tokenize(task.split(0), recipe)  # what can't be read is told before anything is trained
    else:
        from crossfade.lab.train.deep.text_models import check_model

        recipe = replace(recipe, digest=check_model(recipe.model, recipe.max_length))
    trials = [
        Trial("compare-texts", task, one, recipe, repeat) for repeat in range(settings.repeats) for one in methods
    ]
    notes = [*data.notes, *(["the test part is a file's own, the same in every repeat"] if data.test else [])]
    title = f"Losses compared on {task.name}"
    return plan_of("compare-texts", title, trials, command, seed=settings.seed, scale="own", notes=notes)


def execute_texts(
    planned: TextPlan,
    store: Path,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
    *,
    workers: int | None = None,
    progress: bool = False,
    retry_failed: bool = False,
) -> ComparisonResult:
    """Train what the store doesn't know yet and read the answer from it."""
    from crossfade.lab.run import run_request

    run_request(
        [planned.run],
        planned.trials,
        store,
        replace(hardware, threads=workers),
        progress=progress,
        retry_failed=retry_failed,
        label="Comparing",
    )
    with Store(store, mode="read") as opened:
        return ComparisonResult.load(opened, planned.run)


def compare_texts(
    file: str | Path,
    text: str,
    target: str,
    settings: TextSettings = TextSettings(),
    *,
    store: str | Path = "crossfade.db",
    hardware: Hardware = Hardware(),  # noqa: B008
    progress: bool = True,
) -> ComparisonResult:
    """Compare losses on a table with a column of texts and a column of classes.

    >>> compare_texts("reviews.csv", "Review Text", "Rating").verdict  # doctest: +SKIP

    Raises:
        UserError: texts or settings that can't be used, in one line.
    """
    from crossfade.lab.data.texts import load_texts

    data = load_texts(Path(file), [text], target)
    command = f"crossfade.lab.text_compare.compare_texts({str(file)!r}, {text!r}, {target!r})"
    return execute_texts(plan_texts(data, settings, command), Path(store), hardware, progress=progress)


def _methods(settings: TextSettings) -> list[Method]:
    from crossfade.lab.methods import method
    from crossfade.lab.own_loss import load_loss

    deep = settings.net != "lstm"
    chosen = [method(name, deep=deep) for name in dict.fromkeys(["ce", *settings.methods])]
    chosen += [load_loss(spec) for spec in settings.loss]
    if len(chosen) < 2:
        raise UserError("methods: only the control 'ce' is left; name another one to compare it with")
    return chosen
