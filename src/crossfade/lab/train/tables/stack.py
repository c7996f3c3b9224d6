"""Which engine trains a stack of networks, and which of a method's learning rates counts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

from crossfade.errors import UserError
from crossfade.lab.train.tables.setup import cost
from crossfade.lab.train.tables.types import History, Member, Recipe

Engine: TypeAlias = Literal["auto", "kernel", "batched", "plain"]
Report: TypeAlias = Callable[[float], None]
_ENGINES = ("auto", "kernel", "batched", "plain")
_log = logging.getLogger(__name__)


def train_stack(
    members: Sequence[Member],
    recipe: Recipe,
    *,
    engine: Engine = "auto",
    device: str = "cpu",
    threads: int | None = None,
    on_progress: Report | None = None,
) -> list[History]:
    """Train every member and return the histories in the members' order.

    A member's result depends on the member, the recipe, the engine and the machine's kind of processor: never on the
    other members, their order or the number of threads. Engines differ in the order of float32 sums.

    Args:
        members: any number, on any mix of splits and methods.
        recipe: how all of them are trained.
        engine: ``"kernel"`` is compiled for the CPU and trains one network on each thread, ``"batched"`` is PyTorch on
            any device, ``"plain"`` the ordinary training loop (slow; what the others are tested against). ``"auto"``
            takes the kernel on the CPU and leaves a loss that can't be compiled to the batched engine; the history's
            ``note`` then says why.
        device: a PyTorch device. Only the batched engine runs elsewhere than on ``"cpu"``.
        threads: for the kernel; None for as many as there are processors. The other engines use one.
        on_progress: called now and then, from this thread, with the fraction of the work that is done.

    Raises:
        UserError: no such engine or device, a loss that isn't an elementwise function of ce, or one that the kernel was
            asked for and can't have.
        KeyboardInterrupt: within a second or so of the signal.
    """
    if engine not in _ENGINES:
        raise UserError(f"engine must be one of {', '.join(_ENGINES)}, got {engine!r}")
    if threads is not None and threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}")
    elsewhere = _check_device(device)
    if elsewhere and engine in ("kernel", "plain"):
        raise UserError(f"the {engine} engine runs on the CPU; for device {device!r} take engine 'batched' or 'auto'")
    if not members:
        return []
    plans = [_plan(member, "batched" if elsewhere and engine == "auto" else engine) for member in members]
    for note in dict.fromkeys(plan.note for plan in plans if plan.note):
        _log.warning(note)
    out: dict[int, History] = {}
    total, done = sum(cost(member, recipe) for member in members), 0.0
    for name in _ENGINES[1:]:
        chosen = [i for i, plan in enumerate(plans) if plan.engine == name]
        if not chosen:
            continue
        share = sum(cost(members[i], recipe) for i in chosen) / total

        def report(fraction: float, before: float = done, share: float = share) -> None:
            if on_progress is not None:
                on_progress(min(before + share * fraction, 1.0))

        addresses = [plans[i].address for i in chosen]
        histories = _run(
            name, [members[i] for i in chosen], addresses, recipe, device, threads or _processors(), report
        )
        out.update({i: replace(history, note=plans[i].note) for i, history in zip(chosen, histories, strict=True)})
        done += share
    return [out[i] for i in range(len(members))]


def select(histories: Sequence[History]) -> tuple[int, int]:
    """(index, epoch) of the history with the best validation accuracy among one method's learning rates.

    Each history's epoch is its own best one (``Recipe.tie``). Among equal ones the first counts, so give them in the
    order of the recipe's learning rates. A network that never was finite loses to any that was.

    Raises:
        UserError: no histories.
    """
    if not histories:
        raise UserError("select needs at least one history")
    score = [h.val_correct[h.best_epoch] if h.best_epoch >= 0 else -1 for h in histories]
    index = max(range(len(histories)), key=lambda i: (score[i], -i))
    return index, histories[index].best_epoch


def _check_device(device: str) -> bool:
    """Whether it is elsewhere than the CPU."""
    if device == "cpu":
        return False
    import torch

    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"device {device!r} can't be used here ({reason}); take 'cpu' or another") from None
    return kind != "cpu"


class _Plan(NamedTuple):
    engine: str
    address: int = 0
    note: str = ""


def _plan(member: Member, engine: str) -> _Plan:
    """Which engine trains this member, and why not the one that was to be expected."""
    g = member.method.g
    if g is None:
        return _Plan("kernel" if engine == "auto" else engine)
    from crossfade.lab.own_loss import check_loss_function
    from crossfade.lab.train.tables.trace import traced

    if engine in ("batched", "plain"):
        check_loss_function(g)
        return _Plan(engine)
    compiled = traced(g)
    if compiled.address:
        return _Plan("kernel", compiled.address)
    if engine == "kernel":
        raise UserError(f"engine 'kernel' can't train {member.method.name!r}, take 'auto': {compiled.note}")
    return _Plan("batched", note=compiled.note)


def _run(
    name: str, members: list[Member], addresses: list[int], recipe: Recipe, device: str, threads: int, report: Report
) -> list[History]:
    if name == "kernel":
        from crossfade.lab.train.tables.threads import train_kernel

        return train_kernel(members, addresses, recipe, threads, report)
    if name == "batched":
        from crossfade.lab.train.tables.batched import train_batched

        return train_batched(members, recipe, device, report)
    from crossfade.lab.train.tables.plain import train_plain

    out = []
    for member in members:
        out.append(train_plain(member, recipe))
        report(len(out) / len(members))
    return out


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1
