"""An executor that trains on a Ray cluster: same keys, same numbers; this process alone writes the store.

A worker or a node that dies, or runs out of memory, takes its task with it: it runs again, each trial by itself, and
fails after three tries. If this process dies, a rerun finds what is stored and computes the rest.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crossfade.errors import UserError
from crossfade.lab.files import write_bytes
from crossfade.lab.hardware import Hardware
from crossfade.lab.provenance import provenance
from crossfade.lab.store import Outcome
from crossfade.lab.train.executor import BATCH, Batch, Executor, Family, Tick, error_line
from crossfade.lab.trial import Trial

_TRIES = 3
_log = logging.getLogger(__name__)


def on_ray(hardware: Hardware, family: Family, work: Path, keep: Path | None = None) -> Executor:
    """Return an executor that computes on the Ray cluster at ``hardware.ray``, with one core and ``gpus`` a task.

    A task is a trial, or a batch of trials that take seconds together. ``work`` and ``keep`` are ``family``'s: where a
    node can't see the folder ``work``, an interrupted trial starts again; weights are sent here, and written to
    ``keep``.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install 'crossfade[ray]'") from None

    def distribute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        gpus = _connect(ray, hardware)
        accelerator = hardware.accelerator if gpus else "cpu"
        there = replace(hardware, ray=None, gpus=None, threads=1, accelerator=accelerator)
        folder, wanted = work.absolute(), keep is not None

        def compute(alike: Sequence[Trial], keys: Collection[str]) -> tuple[dict[str, Outcome], dict[str, bytes]]:
            """Return a task's outcomes by key, and files of weights by name."""
            batch, origin = tuple(trial for trial in alike if trial.key in keys), provenance()
            with tempfile.TemporaryDirectory() as own:
                seen, weights = os.access(folder.parent, os.W_OK), Path(own, "weights")
                execute = family(there, folder if seen else Path(own), weights if wanted else None)
                computed = execute([batch], lambda unfinished: None)
                outcomes = {trial.key: replace(outcome, origin=origin) for trial, outcome in computed}
                return outcomes, {file.name: file.read_bytes() for file in weights.glob("*")}

        try:
            _ship_functions(ray, batches)
            tasks, alike = _tasks(batches), defaultdict[tuple[int, ...], list[Trial]](list)
            for batch in tasks:
                alike[_data(batch)] += batch
            held = {data: ray.put(trials) for data, trials in alike.items()}  # a data set goes to a node once
            # Ray itself would retry without a word, and for ever what kills its own worker.
            remote, died = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(compute), Counter[str]()

            def start(data: tuple[int, ...], batch: Batch) -> None:
                waiting[remote.remote(held[data], [trial.key for trial in batch])] = data, batch

            waiting: dict[Any, tuple[tuple[int, ...], Batch]] = {}
            for batch in tasks:
                start(_data(batch), batch)
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                (data, batch), reason = waiting.pop(ready), ""
                try:
                    outcomes, files = ray.get(ready)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None  # not a user's loss: what that raises is an outcome
                except ray.exceptions.RayError as error:
                    outcomes, files, reason = {}, {}, error_line(error)
                if keep is not None:
                    for name, content in files.items():
                        write_bytes(keep / name, content, "--keep-weights", folder=True)
                for trial in batch:
                    died[trial.key] += bool(reason)
                    if trial.key in outcomes:
                        yield trial, outcomes[trial.key]
                    elif died[trial.key] < _TRIES:
                        about = f"{trial.task.name}, {trial.method.name}, repeat {trial.repeat}"
                        _log.warning("%s: its worker died, try %d of %d (%s)", about, died[trial.key], _TRIES, reason)
                        start(data, (trial,))
                    else:
                        yield trial, Outcome(error=f"its worker died in {_TRIES} tries: {reason}"[:500])
        finally:
            ray.shutdown()

    return distribute


def _tasks(batches: Sequence[Batch]) -> list[Batch]:
    """Return a batch for each task: one that takes seconds whole, another trial by trial; the longest comes first."""

    def cost(batch: Batch) -> float:
        return sum(trial.cost for trial in batch)

    parts = [part for batch in batches for part in ([batch] if cost(batch) <= BATCH else [(one,) for one in batch])]
    return sorted(parts, key=cost, reverse=True)


def _data(batch: Batch) -> tuple[int, ...]:
    """Return which data sets a batch needs."""
    return tuple(dict.fromkeys(id(trial.task) for trial in batch))


def _connect(ray: Any, hardware: Hardware) -> float:
    """Connect to the cluster, and return how many GPUs a trial asks for there."""
    address = str(hardware.ray)
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
        stop = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, log_to_driver=False, logging_level="error", ignore_reinit_error=True)
        if callable(stop) and signal.getsignal(signal.SIGTERM) is not stop:  # Ray would exit by itself
            signal.signal(signal.SIGTERM, stop)
    except (OSError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"--ray {address}: no cluster answers ({line}); start one with `ray start --head`") from None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((node.get("GPU", 0.0) for node in nodes if node.get("CPU", 0.0) >= 1), default=-1.0)
    usual = 1.0 if hardware.accelerator in ("gpu", "cuda") or (hardware.accelerator == "auto" and most >= 1) else 0.0
    gpus = usual if hardware.gpus is None else hardware.gpus
    if gpus > most:  # Ray would wait for such a node, and for ever
        ray.shutdown()
        has = f"a trial asks for a core and {gpus:g} GPUs, and no node has them"
        raise UserError(f"--ray {address}: {has}; start one that does, or ask for fewer with --gpus")
    return gpus


def _functions(given: object) -> Iterator[object]:
    """Yield a function, or those in a partial and its arguments."""
    if isinstance(given, partial | dict):
        for part in given.values() if isinstance(given, dict) else (given.func, *given.args):
            yield from _functions(part)
    elif callable(given):
        yield given


def _ship_functions(ray: Any, batches: Sequence[Batch]) -> None:
    """Send a user's losses and schedules by value: their modules need not be installed on the cluster."""
    methods = {id(trial.method): trial.method for batch in batches for trial in batch}.values()
    functions = [one for method in methods for given in (method.own, method.schedule) for one in _functions(given)]
    for name in {getattr(function, "__module__", None) for function in functions}:
        if name in sys.modules and not name.startswith(("crossfade.", "torch")) and name != "__main__":
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])
