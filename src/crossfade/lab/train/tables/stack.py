"""The choice of an engine for each network of a stack."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

from crossfade.errors import UserError
from crossfade.lab.checks import check_choice, check_count
from crossfade.lab.hardware import check_device, processors
from crossfade.lab.methods import TwoPass
from crossfade.lab.own_loss import check_probes
from crossfade.lab.train.outcome import History
from crossfade.lab.train.tables.recipe import Member, Recipe
from crossfade.lab.train.tables.setup import LOSSES, cost

Engine: TypeAlias = Literal["auto", "kernel", "batched", "plain"]
_log = logging.getLogger(__name__)


def train_stack(
    members: Sequence[Member],
    recipe: Recipe,
    *,
    engine: Engine = "auto",
    device: str = "cpu",
    threads: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> list[History]:
    """Train every member and return the histories in the members' order.

    A member's result depends on the member, the recipe, the engine and the machine's kind of processor: never on the
    other members, their order or the number of threads. Engines differ in the order of float32 sums.

    Args:
        members, recipe: What to train, on any mix of splits and methods, and how.
        engine: ``"kernel"`` is compiled for the CPU and trains one network on each thread, ``"batched"`` is PyTorch on
            any device, ``"plain"`` the ordinary training loop (slow; what the others are tested against). ``"auto"``
            takes the kernel on the CPU and leaves a loss that can't be compiled to the batched engine, with a warning
            that says why.
        device: A PyTorch device. Only the batched engine runs elsewhere than on ``"cpu"``.
        threads: For the kernel; None means one for each processor. The other engines use one.
        on_progress: Called regularly, from this thread, with the fraction of the work that is done.

    Raises:
        UserError: an unknown engine or device, a loss that isn't an elementwise function of ce, or one that can't be
            compiled although the kernel was asked for.
        KeyboardInterrupt: within a second or so of the signal.
    """
    check_choice("engine", engine, get_args(Engine))
    if threads is not None:
        check_count("threads", threads)
    elsewhere = check_device(device)
    if elsewhere and engine in ("kernel", "plain"):
        raise UserError(f"the {engine} engine runs on the CPU; for device {device!r} take engine 'batched' or 'auto'")
    plans = [_plan(member, "batched" if elsewhere and engine == "auto" else engine) for member in members]
    for warning in dict.fromkeys(plan.warning for plan in plans if plan.warning):
        _log.warning(warning)
    out: dict[int, History] = {}
    costs, done = [cost(member, recipe) for member in members], 0.0
    for trainer in ("kernel", "batched", "plain"):
        chosen = [i for i, plan in enumerate(plans) if plan.trainer == trainer]
        if not chosen:
            continue
        own, share = [members[i] for i in chosen], sum(costs[i] for i in chosen) / sum(costs)

        def report(fraction: float, before: float = done, share: float = share) -> None:
            if on_progress is not None:
                on_progress(min(before + share * fraction, 1.0))

        histories: list[History] = []
        if trainer == "kernel":  # an engine is imported when it is needed
            from crossfade.lab.train.tables.threads import train_kernel

            addresses = [plans[i].address for i in chosen]
            histories = train_kernel(own, addresses, recipe, threads or processors(), report)
        elif trainer == "batched":
            from crossfade.lab.train.tables.batched import train_batched

            histories = train_batched(own, recipe, device, report)
        else:
            from crossfade.lab.train.tables.plain import train_plain

            for member in own:
                histories.append(train_plain(member, recipe))
                report(len(histories) / len(own))
        out |= zip(chosen, histories, strict=True)
        done += share
    return [out[i] for i in range(len(members))]


class _Plan(NamedTuple):
    trainer: Engine
    address: int = 0
    warning: str = ""


def _plan(member: Member, engine: Engine) -> _Plan:
    """Return the engine that trains a member, with a warning if that is slower than the user would expect."""
    method = member.method
    if engine in ("batched", "plain"):
        check_probes(method)
        return _Plan(engine)
    if own := method.g or method.g_of:
        from crossfade.lab.train.tables.trace import traced

        compiled = traced(own, method.names, method.values() if method.g_of else ())
        address, reason = compiled.address or None, compiled.reason
        warning = f"{method.name} trains in the batched engine, which is slower: {reason}"
    else:
        loss = method.second_loss if isinstance(method, TwoPass) else method.loss
        address = LOSSES.index(loss) if loss in LOSSES else None
        reason, warning = "it isn't a function of ce", ""
    if address is not None:
        return _Plan("kernel", address)
    if engine == "kernel":
        raise UserError(f"engine 'kernel' can't train {method.name!r}, take 'auto': {reason}")
    return _Plan("batched", warning=warning)
