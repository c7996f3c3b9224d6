"""Trials on texts: LSTMs in stacks, pretrained transformers as ``deep_run`` trains networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.run import Batch, Executor, Summary, cost, line, run, short
from crossfade.lab.scores import brier_score, expected_calibration_error
from crossfade.lab.store import Outcome, Run, Store
from crossfade.lab.train.deep.run import process_rank
from crossfade.lab.train.lstm.types import LstmMember, LstmRecipe
from crossfade.lab.trial import Trial, canonical, seed

if TYPE_CHECKING:
    from crossfade.lab.data.texts import TextSplit
    from crossfade.lab.methods import Method
    from crossfade.lab.train import Recipe
    from crossfade.lab.train.deep.recipe import Hardware
    from crossfade.lab.train.deep.text_recipe import TextRecipe
    from crossfade.lab.train.lstm.types import LstmHistory, TokenSplit
    from crossfade.lab.trial import Task

__all__ = ["run_texts", "stacked", "text_trial"]


def text_trial(study: str, task: object, method: Method, recipe: LstmRecipe | TextRecipe, repeat: int) -> Trial:
    """A trial whose task gives texts; the store and the runner ask for no more."""
    return Trial(study, cast("Task", task), method, cast("Recipe", recipe), repeat)


def run_texts(
    trials: Sequence[Trial],
    request: Run,
    store_path: Path,
    hardware: Hardware,
    *,
    workers: int | None = None,
    engine: str = "auto",
    progress: bool = True,
    retry_failed: bool = False,
    label: str = "Training",
) -> Summary:
    """Train what the store doesn't know yet. A run that was stopped goes on where it was.

    Args:
        trials: All with LSTMs, or all with transformers.
        request: The run to save.
        store_path: The store; transformers' checkpoints lie in a folder beside it until they aren't needed.
        hardware: Where.
        workers: Threads for LSTMs; default: all cores.
        engine: For ``train_lstm_stack``.
        progress: Show it on standard error.
        retry_failed: Run failed trials again.
        label: What the progress is of.
    """
    if not isinstance(trials[0].recipe, LstmRecipe):
        from crossfade.lab.paper.image_run import run_trials

        return run_trials(
            trials, request, store_path, hardware, progress=progress, retry_failed=retry_failed, label=label
        )
    from crossfade.lab.progress import shown

    if hardware.devices * hardware.nodes > 1 or process_rank() > 0:
        raise UserError("--devices, --nodes: LSTMs are trained on one device; leave them at 1")
    with Store(store_path) as store, shown(label, progress) as tick:
        store.save(request)
        execute = stacked(workers, engine, _device(hardware))
        return run(trials, store, execute=execute, retry_failed=retry_failed, on_progress=tick)


def stacked(workers: int | None = None, engine: str = "auto", device: str = "cpu") -> Executor:
    """An executor for ``crossfade.lab.run.run``: the methods of a repeat are trained together."""

    def execute(batches: Sequence[Batch], tick: Callable[[float], None]) -> Iterator[tuple[Trial, Outcome]]:
        known: dict[str, TokenSplit] = {}
        for batch in batches if device == "cpu" else _joined(batches):
            recipe = cast("LstmRecipe", batch[0].recipe)
            keys = [_texts(trial, recipe) for trial in batch]
            known = _tokens(dict(zip(keys, batch, strict=True)), recipe, known)
            splits = [known[key] for key in keys]
            whole = sum(map(cost, batch))
            options = {"engine": engine, "device": device, "threads": workers}
            yield from zip(
                batch, _train(batch, splits, recipe, options, lambda part, whole=whole: tick(part * whole)), strict=True
            )

    return execute


def _tokens(wanted: Mapping[str, Trial], recipe: LstmRecipe, known: Mapping[str, TokenSplit]) -> dict[str, TokenSplit]:
    """The splits of a batch in numbers; the last batch's, another architecture's maybe, needn't be made again."""
    from crossfade.lab.train.lstm.words import tokenize

    return {
        key: known.get(key) or tokenize(cast("TextSplit", trial.task.split(trial.repeat)), recipe)
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
    batch: Batch, splits: Sequence[TokenSplit], recipe: LstmRecipe, options: dict[str, Any], tick: Any
) -> list[Outcome]:
    """Train all together; where that fails in parts, so that nothing is lost with one loss that raises.

    Halves where a GPU's memory was full; the networks of each loss of a user's by themselves; one by one; and one that
    can't be trained on a GPU in a stack in the plain loop.
    """
    import time

    from crossfade.lab.train.graphs import out_of_memory
    from crossfade.lab.train.lstm.stack import train_lstm_stack

    members = [
        LstmMember(split, trial.method, seed(trial, "train")) for trial, split in zip(batch, splits, strict=True)
    ]
    started = time.perf_counter()
    try:
        histories = train_lstm_stack(members, recipe, on_progress=tick, **options)
    except UserError:
        raise
    except Exception as error:
        failed, full = line(error), out_of_memory(error)
    else:
        seconds = (time.perf_counter() - started) / len(batch)
        return [_outcome(split, recipe, one, seconds) for split, one in zip(splits, histories, strict=True)]
    # Only now has the exception let go of the stack and its memory.
    if len(batch) == 1:
        if options["device"] != "cpu" and options["engine"] == "auto":
            return _train(batch, splits, recipe, options | {"engine": "plain"}, tick)
        return [Outcome(error=failed)]
    outcomes: dict[int, Outcome] = {}
    for group in _parts(batch, full):
        mine = _train(tuple(batch[at] for at in group), [splits[at] for at in group], recipe, options, tick)
        outcomes.update(zip(group, mine, strict=True))
    return [outcomes[at] for at in range(len(batch))]


def _parts(batch: Batch, full: bool) -> list[list[int]]:
    """Places of the batch, in parts that are tried by themselves."""
    places = list(range(len(batch)))
    if full:
        return [places[: len(places) // 2], places[len(places) // 2 :]]
    groups: dict[int, list[int]] = {}
    for at, trial in enumerate(batch):
        groups.setdefault(id(trial.method.g), []).append(at)
    return list(groups.values()) if len(groups) > 1 else [[at] for at in places]


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


def _device(hardware: Hardware) -> str:
    import torch

    wanted = hardware.accelerator
    return "cuda" if wanted in ("gpu", "cuda") or (wanted == "auto" and torch.cuda.is_available()) else "cpu"
