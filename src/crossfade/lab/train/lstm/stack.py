"""Which engine trains a number of LSTM classifiers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from crossfade.errors import UserError
from crossfade.lab.train.lstm.setup import cost
from crossfade.lab.train.lstm.types import LstmHistory, LstmMember, LstmRecipe
from crossfade.lab.train.tables.stack import _check_device, _processors

__all__ = ["train_lstm_stack"]

LstmEngine: TypeAlias = Literal["auto", "stacked", "plain"]
Report: TypeAlias = Callable[[float], None]
_log = logging.getLogger(__name__)


def _ignore(fraction: float) -> None:
    """No report is wanted."""


def train_lstm_stack(
    members: Sequence[LstmMember],
    recipe: LstmRecipe,
    *,
    engine: LstmEngine = "auto",
    device: str = "cpu",
    threads: int | None = None,
    on_progress: Report = _ignore,
) -> list[LstmHistory]:
    """Train every member and return the histories in the members' order.

    A member's result depends on the member, the recipe, the engine and the machine's kind of processor: on the CPU to
    the last bit the same whatever the other members, their order or the number of threads. The stacked engine trains
    once there what mixtures of a split and a seed have in common. Engines differ in the order of float32 sums, and on a
    GPU so do two runs of the same.

    Args:
        members: any number, on any mix of splits and methods.
        recipe: how all of them are trained.
        engine: ``"stacked"`` is compiled for the CPU and trains one network on each thread; on a CUDA device all take a
            step in one graph of launches. ``"plain"`` is the ordinary loop with ``nn.LSTM``. ``"auto"`` is stacked, and
            on the CPU leaves a loss that has no compiled form to the plain loop, with a warning that says why.
        device: a PyTorch device. On others than the CPU and CUDA's the plain loop trains one network after the other.
        threads: for the stacked engine; None for as many as there are processors. The plain one leaves PyTorch's.
        on_progress: called now and then, from this thread, with the fraction of the work that is done.

    Raises:
        UserError: no such engine or device, a loss that isn't an elementwise function of ce, or one that the stacked
            engine was asked for and can't have.
        RuntimeError: a loss that a CUDA graph can't hold, one that waits for the host say; ``"plain"`` trains it.
        KeyboardInterrupt: in the stacked engine within a second or so of the signal.
    """
    if engine not in ("auto", "stacked", "plain"):
        raise UserError(f"engine must be one of auto, stacked, plain, got {engine!r}")
    if threads is not None and threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}")
    elsewhere = _check_device(device)
    alone = elsewhere and not device.startswith("cuda")
    if alone and engine == "stacked":
        raise UserError(f"the stacked engine can't use device {device!r}: take 'cpu', 'cuda' or engine 'plain'")
    addresses = [_address(member, "plain" if alone else engine, device) for member in members]
    fast = [i for i, address in enumerate(addresses) if address is not None]
    slow = [i for i, address in enumerate(addresses) if address is None]
    total = sum(cost(member.split, recipe) for member in members)
    out: dict[int, LstmHistory] = {}
    share = sum(cost(members[i].split, recipe) for i in fast) / total if members else 0.0
    if fast:
        chosen, places = [members[i] for i in fast], [addresses[i] or 0 for i in fast]

        def part(fraction: float, share: float = share) -> None:
            on_progress(fraction * share)

        if elsewhere:
            from crossfade.lab.train.lstm.batched import train_batched

            histories = train_batched(chosen, recipe, device, part)
        else:
            from crossfade.lab.train.lstm.threads import train_kernel

            histories = train_kernel(chosen, places, recipe, threads or _processors(), part)
        out.update(zip(fast, histories, strict=True))
    for i in slow:
        from crossfade.lab.train.lstm.plain import train_plain

        each = cost(members[i].split, recipe) / total

        def report(epochs: int, before: float = share, each: float = each) -> None:
            on_progress(min(before + each * epochs / recipe.epochs, 1.0))

        out[i] = train_plain(members[i], recipe, device, report)
        share += each
        on_progress(min(share, 1.0))
    return [out[i] for i in range(len(members))]


def _address(member: LstmMember, engine: str, device: str) -> int | None:
    """Where the member's compiled loss is, 0 for the mixture and on a GPU; None for the plain loop."""
    g, uncompiled = member.method.g, None if engine == "plain" else 0
    if g is None:
        return uncompiled
    from crossfade.lab.own_loss import check_loss_function
    from crossfade.lab.train.tables.trace import traced

    if engine == "plain" or device != "cpu":
        check_loss_function(g)
        return uncompiled
    compiled = traced(g)
    if compiled.address:
        return compiled.address
    note = compiled.note.replace("the batched engine", "the plain loop")
    if engine == "stacked":
        raise UserError(f"engine 'stacked' can't train {member.method.name!r}, take 'auto': {note}")
    _log.warning(note)
    return None
