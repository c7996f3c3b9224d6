"""The hardware that trials are trained on, which is no part of a trial's key."""

from __future__ import annotations

import os
from dataclasses import dataclass

from crossfade.errors import UserError


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
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    compile: bool = False
    channels_last: bool = True
    workers: int = 4
    logger: str = ""
    threads: int | None = None


def process_rank() -> int:
    """Return this process's rank, even before the processes are connected; 0 if it is alone."""
    return next((int(os.environ[name]) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), 0)


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
