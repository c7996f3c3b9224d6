"""Options that several commands share: lists, counts, and the machine that deep networks are trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclopts import Parameter

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.train.hardware import Hardware

__all__ = ["Machine", "check_count", "words"]


def words(items: Iterable[str] | None) -> tuple[str, ...]:
    """Return the parts of a list option: ``--option a,b`` and ``--option a --option b`` are the same."""
    return tuple(part.strip() for item in items or () for part in item.split(",") if part.strip())


def check_count(option: str, value: int | None, most: int | None = None) -> None:
    """Refuse a number below 1 or above ``most``; None is left to the command.

    Raises:
        UserError: the number is out of range.
    """
    if value is not None and not 1 <= value <= (most or value):
        expected = f"of at least 1, got {value}" if most is None else f"from 1 to {most}, got {value}"
        raise UserError(f"{option}: expected a whole number {expected}")


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """Where deep networks are trained.

    Args:
        accelerator: auto, cpu, gpu, ...
        devices: How many of them on each machine; more than one is DDP.
        nodes: Machines; start the same command on each with torchrun.
        compile: Compile the networks first.
        logger: tensorboard or csv, into STORE.work/logs, another of Lightning's (MLFlowLogger), or module:Class.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    compile: bool = False
    logger: str = ""

    def hardware(self, workers: int = 4) -> Hardware:
        """Return the machine as the lab sees it; ``workers``: processes that decode files.

        Raises:
            UserError: fewer than one device or machine.
        """
        from crossfade.lab.train.hardware import Hardware

        check_count("--devices", self.devices)
        check_count("--nodes", self.nodes)
        return Hardware(
            self.accelerator, self.devices, self.nodes, compile=self.compile, workers=workers, logger=self.logger
        )
