"""Trials of LSTMs on texts: the choice of an engine, and the outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, TypeAlias, get_args

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.checks import check_choice, check_count, expect
from crossfade.lab.data.texts import TextSplit
from crossfade.lab.hardware import Hardware, check_device, process_rank, processors, torch_device
from crossfade.lab.methods import Method
from crossfade.lab.own_loss import check_probes
from crossfade.lab.scores import f1_and_mcc, pack_hits
from crossfade.lab.store import Outcome
from crossfade.lab.train.executor import Batch, Executor, Tick, by_fraction, train_in_parts
from crossfade.lab.train.lstm.batched import SLOTS, train_batched
from crossfade.lab.train.lstm.plain import train_plain
from crossfade.lab.train.lstm.recipe import LstmMember, LstmRecipe
from crossfade.lab.train.lstm.tokens import TokenSplit, tokenize
from crossfade.lab.train.outcome import History, outcome, short
from crossfade.lab.trial import Trial, canonical, seed

Engine: TypeAlias = Literal["auto", "batched", "plain"]


def train(
    members: Sequence[LstmMember],
    recipe: LstmRecipe,
    *,
    engine: Engine = "auto",
    device: str = "cpu",
    threads: int | None = None,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> list[History]:
    """Train every member and return the histories in the members' order.

    A member's result depends on the member, the recipe, the engine and the type of the processor. With the plain engine
    on the CPU, the other members, their order and the number of threads don't change a bit of it. In the batched engine
    the order of float32 sums may depend on the number of networks in the stack, and runs on a GPU differ slightly.

    Args:
        members: Any number, on any mix of splits and methods.
        engine: ``"plain"`` trains each network with ``nn.LSTM``, on the CPU one on each thread, and epochs that methods
            have in common once. ``"batched"`` trains all as one computation, on a CUDA device as one graph a step, and
            leaves methods that are neither mixtures nor a g(ce) to the plain one.
            ``"auto"`` takes the faster one: batched on a CUDA device and plain elsewhere.
        device: A PyTorch device. The batched engine runs on the CPU and on CUDA.
        threads: For the plain engine on the CPU; None means one for each processor.
        on_progress: Called regularly, from this thread, with the fraction of the work that is done.

    Raises:
        UserError: an unknown engine or device, or a loss that isn't an elementwise function of ce.
        RuntimeError: a loss that can't be part of a CUDA graph because it waits for the host; use ``"plain"``.
        KeyboardInterrupt: within a second or so of the signal.
    """
    check_choice("engine", engine, get_args(Engine))
    if threads is not None:
        check_count("threads", threads)
    elsewhere, cuda = check_device(device), device.startswith("cuda")
    if engine == "batched" and elsewhere and not cuda:
        raise UserError(f"the batched engine can't use device {device!r}: take 'cpu', 'cuda' or engine 'plain'")
    for method in dict.fromkeys(member.method for member in members):
        check_probes(method)
    if engine == "batched" or (engine == "auto" and cuda):
        apart = [member for member in members if type(member.method) is not Method or member.method.loss is not None]
        if not apart:
            return train_batched(members, recipe, device, on_progress)
        stack, part = [member for member in members if member not in apart], len(apart) / len(members)
        histories = train_batched(stack, recipe, device, lambda done: on_progress((1 - part) * done))
        histories += train(apart, recipe, engine="plain", device=device, threads=threads)
        found = dict(zip([*stack, *apart], histories, strict=True))
        return [found[member] for member in members]
    count = 1 if elsewhere else threads or processors()
    return train_plain(members, recipe, device=device, threads=count, on_progress=on_progress)


def executor(hardware: Hardware) -> Executor:
    """Return an executor that trains LSTMs in this process, on one device.

    Raises:
        UserError: several devices or processes, or a device that can't be used.
    """
    if hardware.devices * hardware.nodes > 1 or process_rank() > 0:
        raise UserError("--devices, --nodes: LSTMs are trained on one device; leave them at 1")
    check_choice("--accelerator", hardware.accelerator, ("auto", "cpu", "gpu", "cuda"))
    device, threads = torch_device(hardware), hardware.threads or processors()
    check_device(device)

    def train_batch(batch: Batch, splits: Sequence[TokenSplit], recipe: LstmRecipe, tick: Tick) -> list[Outcome]:
        """Train all together or, if that fails, in parts; the plain engine trains what can't be a graph."""

        def train_some(places: Sequence[int]) -> list[Outcome]:
            members = [LstmMember(splits[at], batch[at].method, seed(batch[at], "train")) for at in places]
            report = by_fraction(tick, batch)
            train_with = partial(train, members, recipe, device=device, threads=threads, on_progress=report)
            started = time.perf_counter()
            try:
                histories = train_with()
            except Exception:
                if len(members) > 1 or device == "cpu":
                    raise
                histories = train_with(engine="plain")
            seconds = (time.perf_counter() - started) / len(members)
            return [_outcome(one.split, recipe, each, seconds) for one, each in zip(members, histories, strict=True)]

        return train_in_parts(batch, train_some)

    def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        known: dict[str, TokenSplit] = {}
        for batch in joined(batches, threads if device == "cpu" else SLOTS):
            recipe = expect("recipe", batch[0].recipe, LstmRecipe)
            reading = [recipe.min_count, recipe.vocabulary, recipe.max_length]  # what tokens depend on, too
            keys = [canonical([dict(trial.task.content), trial.repeat, *reading]) for trial in batch]
            known = {  # splits that the batch before has used aren't tokenized again
                key: known.get(key) or tokenize(expect("split", trial.task.split(trial.repeat), TextSplit), recipe)
                for key, trial in dict(zip(keys, batch, strict=True)).items()
            }
            yield from zip(batch, train_batch(batch, [known[key] for key in keys], recipe, tick), strict=True)

    return execute


def joined(batches: Sequence[Batch], most: int) -> list[Batch]:
    """Return the batches, with neighbours of one recipe joined to batches of at most this many trials."""
    larger: list[Batch] = []
    for batch in batches:
        if larger and larger[-1][0].recipe == batch[0].recipe and len(larger[-1]) + len(batch) <= most:
            larger[-1] += batch
        else:
            larger.append(batch)
    return larger


def _outcome(split: TokenSplit, recipe: LstmRecipe, history: History, seconds: float) -> Outcome:
    if history.chosen < 0 or history.probabilities is None:
        return Outcome(error=f"the weights diverge at learning rate {recipe.learning_rate:g}; try a smaller one")
    labels, predicted = split.test.labels, history.probabilities.argmax(1)
    found = f1_and_mcc(labels, predicted, split.classes)
    about = {
        **{name: short(value) for name, value in found.items()},
        "n_train": len(split.train),
        "n_val": len(split.val),
        "n_test": len(split.test),
        "classes": split.classes,
        "vocabulary": split.vocabulary,
        "seconds": round(seconds, 2),
        "best_test_accuracy": float(np.nanmax(history.curves["test_accuracy"])),
        "scale": recipe.scale,
        "engine": history.engine,
    }
    if split.tested is not None:
        about["hits"] = pack_hits(len(split.tested), split.tested, predicted == labels)
    return outcome(history, recipe.learning_rate, about)
