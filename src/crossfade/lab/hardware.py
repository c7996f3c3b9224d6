"""The hardware that trials are trained on, which is no part of a trial's key."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from crossfade.errors import UserError
from crossfade.lab.checks import check_count

_TRIAL = 3000  # bytes that a trial takes from its plan to its line in a report: 1.7 kB and 1.2 kB measured
# The two kinds of control groups: the folder, and the files with the limit and with what is used of it.
_GROUPS = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))


@dataclass(frozen=True)
class Hardware:
    """Where and how fast trials are trained; the results depend on the recipe alone.

    Args:
        accelerator: As Lightning names it: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"mps"``, ... Tables are always trained
            on the CPU.
        devices, nodes: With more than one device in all, DDP is used. Under torchrun it joins the existing processes.
        compile: ``torch.compile`` the network.
        channels_last: The memory format of images and weights.
        workers: Processes that decode image files, for data sets that don't fit on the device.
        logger: A Lightning logger's name, see ``make_logger``, or ``""`` for none.
        threads: For tables and for LSTMs on the CPU; None means one for each processor.
        ray: The address of a Ray cluster to train on instead, with one thread a task.
        gpus: GPUs that a task asks for on the cluster, also a part of one; None means 1 where it can use one and the
            cluster has one, else 0.

    Raises:
        UserError: a number below 1 (of ``workers`` below 0), several devices for a task on the cluster, or another part
            of a GPU.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    compile: bool = False
    channels_last: bool = True
    workers: int = 4
    logger: str = ""
    threads: int | None = None
    ray: str | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        check_count("--devices", self.devices)
        check_count("--nodes", self.nodes)
        check_count("--workers", self.workers, 0)
        if self.threads is not None:
            check_count("--workers", self.threads)
        if self.ray is not None and self.devices * self.nodes > 1:
            raise UserError("--ray: a trial has one device there; leave --devices and --nodes at 1")
        if self.gpus is not None and (self.ray is None or not 0 <= self.gpus <= 1):
            raise UserError(f"--gpus: expected --ray ADDRESS, and a number from 0 to 1, got {self.gpus:g}")


def process_rank() -> int:
    """Return this process's rank, even before the processes are connected; 0 if it is alone."""
    set_to = (os.environ.get(name, "") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((int(value) for value in set_to if value.isdecimal()), 0)


def processors() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def torch_device(hardware: Hardware) -> str:
    """Return ``"cuda"`` or ``"cpu"``, whichever the accelerator means for an engine that supports these two."""
    import torch

    wanted = hardware.accelerator
    return "cuda" if wanted in ("gpu", "cuda") or (wanted == "auto" and torch.cuda.is_available()) else "cpu"


def check_device(device: str) -> bool:
    """Return whether a PyTorch device is another than the CPU.

    Raises:
        UserError: a device that can't be used here.
    """
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


def device_memory(hardware: Hardware) -> float:
    """Return how many bytes may still be taken where deep networks are trained: of a GPU, or of the machine.

    Infinity stands for the unknown memory of a cluster.

    Raises:
        UserError: a GPU that can't be used here.
    """
    if hardware.ray is not None:
        return math.inf
    if not check_device(torch_device(hardware)):
        return available_memory()
    import torch

    return float(torch.cuda.mem_get_info()[0])


def check_memory(what: str, needed: float, advice: str, free: float | None = None) -> None:
    """Raise UserError if more bytes are needed than are free, with what needs them and what to do about it."""
    free = available_memory() if free is None else free
    if needed > free:
        sizes = f"about {needed / 2**30:,.1f} GiB of memory, and {max(free, 0.0) / 2**30:,.1f} GiB are available"
        raise UserError(f"{what} need {sizes}; {advice}")


def check_trials(count: int) -> None:
    """Raise UserError if the plan, the results and the report of so many trials don't fit into memory."""
    check_memory(f"{count:,} trials", _TRIAL * count, "ask for fewer repeats, methods or data sets")


def available_memory(root: Path = Path("/")) -> float:
    """Return how many bytes may still be taken, by the machine and by the limits of a container; infinity if unknown.

    The system's files are read below ``root``. What files keep in a control group's cache can be taken, too.
    """
    left = [1024.0 * _numbers(root / "proc/meminfo").get("MemAvailable:", math.inf)]
    groups = [line.split(":", 2) for line in _lines(root / "proc/self/cgroup")]
    for kind, limit, used in _GROUPS:
        base = root / "sys/fs/cgroup" / kind
        for place in (place for _, controllers, place in groups if kind in controllers.split(",")):
            own = base / place.lstrip("/")
            for folder in (own, *own.parents):
                lines = zip(_lines(folder / limit), _lines(folder / used), strict=False)  # one of each, or none
                for most, taken in lines if folder.is_relative_to(base) else ():
                    cached = _numbers(folder / "memory.stat").get("inactive_file", 0.0)
                    left.append(float(most.replace("max", "inf")) - float(taken) + cached)
    return min(left)


def _numbers(path: Path) -> dict[str, float]:
    return {words[0]: float(words[1]) for line in _lines(path) if len(words := line.split()) > 1}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
