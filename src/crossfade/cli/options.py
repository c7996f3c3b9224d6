"""Options that several commands have, and what is checked of them before anything is read or trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter, Token

from crossfade.lab.hardware import Hardware

_OVERWRITE = "Replace files in the way that crossfade didn't write; never an input, the store or another output."
Overwrite: TypeAlias = Annotated[bool, Parameter(help=_OVERWRITE)]
# cyclopts takes a lone hyphen, here standard output, for an option.
JsonPath: TypeAlias = Annotated[Path | None, Parameter(allow_leading_hyphen=True)]
_RAY = "Train on the Ray cluster at this address instead, a trial a task; auto is the cluster of this machine."
Ray: TypeAlias = Annotated[str | None, Parameter(help=_RAY)]
_GPUS = (
    "With --ray: GPUs of a trial, or a part such as 0.25. [default: 1 for deep networks and LSTMs, where there are any]"
)
Gpus: TypeAlias = Annotated[float | None, Parameter(help=_GPUS)]
Quiet: TypeAlias = Annotated[bool, Parameter(alias="-q", help="Say nothing but the answer and errors.")]


def _names(type_: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    """``a,b`` and ``--option a --option b`` are the same."""
    names = tuple(part.strip() for token in tokens for part in token.value.split(",") if part.strip())
    if not names:
        raise ValueError("expected one or more, separated by commas, got none")
    return names


def _numbers(type_: object, tokens: Sequence[Token]) -> tuple[float, ...]:
    given = _names(type_, tokens)
    try:
        return tuple(map(float, given))
    except ValueError:
        raise ValueError(f"expected numbers separated by commas, got {','.join(given)!r}") from None


Names: TypeAlias = Annotated[tuple[str, ...] | None, Parameter(converter=_names)]
Numbers: TypeAlias = Annotated[tuple[float, ...] | None, Parameter(converter=_numbers)]


@dataclass(frozen=True)
class Devices:
    """Where deep networks are trained; none of it changes a number.

    Attributes:
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
    ray: Ray = None
    gpus: Gpus = None

    def hardware(self) -> Hardware:
        """Return what these options say."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        return Hardware(threads=said.pop("workers", None), **said)


@dataclass(frozen=True)
class Machine(Devices):
    """Where the networks of a comparison are trained; none of it changes a number.

    Attributes:
        accelerator: Texts, images: auto, cpu, gpu, ...
        devices: Images, and texts with bert: more than one is DDP.
        nodes: Images, and texts with bert: machines; start the same command on each with torchrun.
        compile: Images: compile the network first.
        logger: Images: tensorboard, csv (into STORE.work/logs), another of Lightning's (MLFlowLogger), or module:Class.
        workers: Tables, and texts with lstm: threads. [default: all cores]
    """

    workers: int | None = None
