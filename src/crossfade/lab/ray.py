"""An executor that trains on a Ray cluster: same keys, same numbers; this process alone writes the store.

A worker or a node that dies, or runs out of memory, takes its task with it: it runs again, each trial by itself, and
fails after three tries. If this process dies, a rerun finds what is stored and computes the rest.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crossfade.errors import UserError
from crossfade.lab.store import Outcome
from crossfade.lab.train.executor import Batch, Executor, Tick, error_line

if TYPE_CHECKING:
    from crossfade.lab.trial import Trial

_TRIES = 3
_log = logging.getLogger(__name__)


def on_ray(address: str, execute: Executor, *, gpus: int = 0) -> Executor:
    """Return an executor that computes on the Ray cluster at this address, a batch a task.

    ``execute`` computes a batch on a worker, with one core and so many ``gpus``.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install 'crossfade[ray]'") from None

    def work(batch: Batch) -> dict[str, Outcome]:
        return {trial.key: outcome for trial, outcome in execute([batch], lambda unfinished: None)}

    def distribute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        _connect(ray, address)
        try:
            _ship_losses(ray, batches)
            # Ray itself would retry without a word, and for ever what kills its own worker.
            task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(work)
            dearest_first = sorted(batches, key=lambda batch: -sum(trial.cost for trial in batch))
            waiting, died = {task.remote(batch): batch for batch in dearest_first}, Counter[str]()
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                batch, reason = waiting.pop(ready), ""
                try:
                    outcomes = ray.get(ready)
                except (
                    ray.exceptions.RayTaskError
                ) as error:  # raised in the task: what a user's loss raises is an outcome
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    outcomes, reason = {}, error_line(error)
                for trial in batch:
                    died[trial.key] += bool(reason)
                    if trial.key in outcomes:
                        yield trial, outcomes[trial.key]
                    elif died[trial.key] < _TRIES:
                        about = f"{trial.task.name}, {trial.method.name}, repeat {trial.repeat}"
                        _log.warning("%s: its worker died, try %d of %d (%s)", about, died[trial.key], _TRIES, reason)
                        waiting[task.remote((trial,))] = (trial,)
                    else:
                        yield trial, Outcome(error=f"its worker died in {_TRIES} tries: {reason}"[:500])
        finally:
            ray.shutdown()

    return distribute


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
        stop = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, log_to_driver=False, logging_level="error", ignore_reinit_error=True)
        if callable(stop):  # Ray would exit by itself
            signal.signal(signal.SIGTERM, stop)
    except (OSError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"--ray {address}: no cluster answers ({line}); start one with `ray start --head`") from None


def _ship_losses(ray: Any, batches: Sequence[Batch]) -> None:
    """Send a user's loss by value: its module need not be installed on the cluster."""
    losses = [getattr(trial.method.g, "func", trial.method.g) for batch in batches for trial in batch]  # of a partial
    for name in {getattr(g, "__module__", None) for g in losses if g is not None}:
        if name in sys.modules and not name.startswith(("crossfade.", "torch")) and name != "__main__":
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])
