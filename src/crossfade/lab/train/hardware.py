"""Where trials are trained, and on how much of the machine. None of it belongs to a trial's key."""

from __future__ import annotations

import os
from dataclasses import dataclass

from crossfade.errors import UserError


@dataclass(frozen=True)
class Hardware:
    """Where trials are trained, and how fast; the recipe alone decides the numbers.

    Args:
        accelerator: Lightning's word: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"mps"``, ... Tables are always trained on the
            CPU.
        devices, nodes: More than one device in all means DDP. Under torchrun it joins the processes that are there.
        compile: ``torch.compile`` the network.
        channels_last: Memory format of images and weights.
        workers: Processes that decode images too large to live on the device.
        logger: A Lightning logger's name, see ``make_logger``, or ``""`` for none.
        threads: For tables and for LSTMs on the CPU; None for as many as there are processors.
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
    """Return which of several processes this is, before any of them has met the others; 0 if it is alone."""
    return next((int(os.environ[name]) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), 0)


def processors() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def torch_device(hardware: Hardware) -> str:
    """Return ``"cuda"`` or ``"cpu"``, whichever the accelerator means here for an engine that knows these two."""
    import torch

    wanted = hardware.accelerator
    return "cuda" if wanted in ("gpu", "cuda") or (wanted == "auto" and torch.cuda.is_available()) else "cpu"


def check_device(device: str) -> bool:
    """Return whether a PyTorch device is another than the CPU.

    Raises:
        UserError: it can't be used here.
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
