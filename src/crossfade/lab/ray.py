"""An executor that trains on a Ray cluster: same keys, same numbers; this process alone writes the store.

A worker or a node that dies takes its tasks with it; Ray runs them again elsewhere. If this process dies, a rerun
finds what is stored and computes the rest.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crossfade.errors import UserError
from crossfade.lab.train.executor import Batch, Executor, Tick

if TYPE_CHECKING:
    from crossfade.lab.store import Outcome
    from crossfade.lab.trial import Trial


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
            # max_retries=-1: a task whose node died has done nothing wrong. What a user's loss raises is an outcome.
            task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=-1)(work)
            dearest_first = sorted(batches, key=lambda batch: -sum(trial.cost for trial in batch))
            waiting = {task.remote(batch): batch for batch in dearest_first}
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                outcomes = ray.get(ready)
                for trial in waiting.pop(ready):
                    yield trial, outcomes[trial.key]
        finally:
            ray.shutdown()

    return distribute


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
        ray.init(address=address, log_to_driver=False, logging_level="error", ignore_reinit_error=True)
    except (OSError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"--ray {address}: no cluster answers ({line}); start one with `ray start --head`") from None


def _ship_losses(ray: Any, batches: Sequence[Batch]) -> None:
    """Send a user's loss by value: its module need not be installed on the cluster."""
    losses = [getattr(trial.method.g, "func", trial.method.g) for batch in batches for trial in batch]  # of a partial
    for name in {getattr(g, "__module__", None) for g in losses if g is not None}:
        if name in sys.modules and not name.startswith(("crossfade.", "torch")) and name != "__main__":
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])
