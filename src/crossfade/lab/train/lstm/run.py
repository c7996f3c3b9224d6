"""Trials of LSTMs on texts: the methods of a repeat are trained together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.data.texts import TextSplit
from crossfade.lab.scores import brier_score, expected_calibration_error
from crossfade.lab.store import Outcome
from crossfade.lab.train.checks import expect
from crossfade.lab.train.executor import Batch, Executor, Tick, cost, train_in_parts
from crossfade.lab.train.hardware import Hardware, check_device, process_rank, torch_device
from crossfade.lab.train.lstm.types import LstmMember, LstmRecipe
from crossfade.lab.train.outcome import short
from crossfade.lab.trial import Trial, canonical, seed

if TYPE_CHECKING:
    from crossfade.lab.train.lstm.types import LstmHistory, TokenSplit

__all__ = ["executor", "stacked"]


def executor(hardware: Hardware) -> Executor:
    """Return an executor that trains LSTMs here, on one device.

    Raises:
        UserError: there are several devices or processes, or the device can't be used.
    """
    if hardware.devices * hardware.nodes > 1 or process_rank() > 0:
        raise UserError("--devices, --nodes: LSTMs are trained on one device; leave them at 1")
    device = torch_device(hardware)
    check_device(device)
    return stacked(hardware.threads, "auto", device)


def stacked(workers: int | None = None, engine: str = "auto", device: str = "cpu") -> Executor:
    """An executor for ``crossfade.lab.run.run``: the methods of a repeat are trained together."""

    def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        known: dict[str, TokenSplit] = {}
        for batch in batches if device == "cpu" else _joined(batches):
            recipe = expect("recipe", batch[0].recipe, LstmRecipe)
            keys = [_texts(trial, recipe) for trial in batch]
            known = _tokens(dict(zip(keys, batch, strict=True)), recipe, known)
            splits = [known[key] for key in keys]
            whole = sum(map(cost, batch))
            options = {"engine": engine, "device": device, "threads": workers}

            def report(fraction: float, whole: float = whole) -> None:
                tick(fraction * whole)

            yield from zip(batch, _train(batch, splits, recipe, options, report), strict=True)

    return execute


def _tokens(wanted: Mapping[str, Trial], recipe: LstmRecipe, known: Mapping[str, TokenSplit]) -> dict[str, TokenSplit]:
    """The splits of a batch in numbers; the last batch's, another architecture's maybe, needn't be made again."""
    from crossfade.lab.train.lstm.words import tokenize

    return {
        key: known.get(key) or tokenize(expect("split", trial.task.split(trial.repeat), TextSplit), recipe)
        for key, trial in wanted.items()
    }


def _texts(trial: Trial, recipe: LstmRecipe) -> str:
    """What decides a trial's tokens."""
    return canonical([dict(trial.task.content), trial.repeat, recipe.min_count, recipe.vocabulary, recipe.max_length])


def _joined(batches: Sequence[Batch]) -> list[Batch]:
    """Batches of one recipe one after the other as few larger ones: a GPU's step takes as long for many networks."""
    from crossfade.lab.train.lstm.batched import SLOTS

    joined: list[Batch] = []
    for batch in batches:
        if joined and joined[-1][0].recipe == batch[0].recipe and len(joined[-1]) + len(batch) <= SLOTS:
            joined[-1] += batch
        else:
            joined.append(batch)
    return joined


def _train(
    batch: Batch, splits: Sequence[TokenSplit], recipe: LstmRecipe, options: dict[str, Any], tick: Tick
) -> list[Outcome]:
    """Train all together, or in parts; one that can't be trained on a GPU in a stack in the plain loop."""

    def train(places: Sequence[int]) -> list[Outcome]:
        trials, mine = [batch[at] for at in places], [splits[at] for at in places]
        try:
            return _train_stack(trials, mine, recipe, options, tick)
        except Exception:
            if len(places) > 1 or options["device"] == "cpu" or options["engine"] != "auto":
                raise
        return _train_stack(trials, mine, recipe, options | {"engine": "plain"}, tick)

    return train_in_parts(batch, train)


def _train_stack(
    batch: Sequence[Trial], splits: Sequence[TokenSplit], recipe: LstmRecipe, options: dict[str, Any], tick: Tick
) -> list[Outcome]:
    import time

    from crossfade.lab.train.lstm.stack import train_lstm_stack

    members = [
        LstmMember(split, trial.method, seed(trial, "train")) for trial, split in zip(batch, splits, strict=True)
    ]
    started = time.perf_counter()
    histories = train_lstm_stack(members, recipe, on_progress=tick, **options)
    seconds = (time.perf_counter() - started) / len(members)
    return [_outcome(split, recipe, one, seconds) for split, one in zip(splits, histories, strict=True)]


def _outcome(split: TokenSplit, recipe: LstmRecipe, history: LstmHistory, seconds: float) -> Outcome:
    from sklearn.metrics import f1_score, matthews_corrcoef

    at, labels = history.best_epoch, split.test.labels
    if at < 0:
        return Outcome(error=f"the weights diverge at learning rate {recipe.learning_rate:g}; try a smaller one")
    probabilities = history.test_probabilities
    predicted = probabilities.argmax(1)
    result = {
        "accuracy": float(np.mean(predicted == labels)), "nll": short(history.test_nll[at]),
        "ece": short(expected_calibration_error(probabilities, labels)),
        "brier": short(brier_score(probabilities, labels)),
        "f1": short(float(f1_score(labels, predicted, average="binary" if split.classes == 2 else "macro"))),
        "mcc": short(float(matthews_corrcoef(labels, predicted))),
        "learning_rate": recipe.learning_rate, "epoch": at + 1, "n_train": len(split.train), "n_val": len(split.val),
        "n_test": len(split.test), "classes": split.classes, "vocabulary": split.vocabulary,
        "seconds": round(seconds, 2), "best_test_accuracy": float(np.nanmax(history.test_accuracy)),
        "scale": recipe.scale, "engine": history.engine,
    }  # fmt: skip
    names = ("val_accuracy", "test_accuracy", "val_nll", "test_nll", "train_loss")
    curves: dict[str, Any] = {name: [short(value) for value in getattr(history, name)] for name in names}
    return Outcome(result, curves)
