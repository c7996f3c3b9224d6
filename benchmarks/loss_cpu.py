"""Forward + backward time of the losses on the CPU, as ratios to F.cross_entropy in the same run.

    python benchmarks/loss_cpu.py [--threads 2] [--seconds 20] [--shapes 4096x1000 ...] [--dtype float32 bfloat16]
                                  [--output FOLDER]

The arms take turns in blocks of a few calls, in random order, so that a noisy machine disturbs all of them alike; a
ratio is the median over rounds of the ratio of two blocks' medians. naive is CE + (1 - softmax(logits)[target]);
composed is the reference form by rows. The arms smoothed (label smoothing 0.1) and soft (class probabilities) are
compared with F.cross_entropy's own smoothed loss, all others with its plain one.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf
import saved
from crossfade import _heart
from crossfade._reduction import CrossEntropyOptions
from crossfade._transforms import Mixture

BLOCK = 6
SHAPES = ["4096x1000", "2048x32000", "65536x21", "256x1000", "128x100", "128x10"]
BASE, SMOOTHED_BASE = "F.cross_entropy", "F, smoothed"
TARGETS = {"4096x1000": 0.75, "2048x32000": 0.75, "65536x21": 1.05, "256x1000": 1.05, "128x10": 1.8}
FOCAL_TARGETS = {"256x1000": 1.2, "128x10": 2.0}
SMOOTHED_TARGETS = dict.fromkeys(("4096x1000", "2048x32000", "65536x21"), 1.0)


def naive(logits: Tensor, target: Tensor) -> Tensor:
    p = torch.softmax(logits, 1).gather(1, target.unsqueeze(1)).squeeze(1)
    return F.cross_entropy(logits, target) + (1 - p).mean()


def composed(logits: Tensor, target: Tensor) -> Tensor:
    return _heart.by_row(Mixture(1.0, 1.0), logits, target, CrossEntropyOptions())


def goal(arm: str, shape: str, dtype: str) -> float | None:
    """Return the ratio that an arm should stay below."""
    if arm == "smoothed":
        return SMOOTHED_TARGETS.get(shape)
    if arm == "focal" and shape in FOCAL_TARGETS:
        return FOCAL_TARGETS[shape]
    if arm in ("crossfade_loss", "CrossfadeLoss", "expectation", "focal"):
        return TARGETS.get(shape) if dtype == "float32" else 1.0
    return None


def arms() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    gradual = cf.CrossfadeLoss().at(0.5)
    return {
        BASE: F.cross_entropy,
        "crossfade_loss": cf.crossfade_loss,
        "CrossfadeLoss": gradual,
        "expectation": cf.expectation_loss,
        "focal": cf.focal_loss,
        "composed": composed,
        "naive": naive,
        SMOOTHED_BASE: partial(F.cross_entropy, label_smoothing=0.1),
        "smoothed": partial(cf.crossfade_loss, label_smoothing=0.1),
        "soft": cf.crossfade_loss,
    }


def measure(rows: int, classes: int, dtype: torch.dtype, seconds: float) -> dict[str, tuple[float, float]]:
    """Return median seconds and the median ratio to the base, for each arm."""
    logits = torch.randn(rows, classes).to(dtype).requires_grad_()
    target = torch.randint(classes, (rows,))
    soft = torch.randn(rows, classes).softmax(1)
    losses = arms()
    blocks: dict[str, list[float]] = {name: [] for name in losses}
    order = list(losses)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(blocks["naive"]) < 3:
        random.shuffle(order)
        for name in order:
            times = []
            for _ in range(BLOCK):
                logits.grad = None
                start = time.perf_counter()
                losses[name](logits, soft if name == "soft" else target).backward()
                times.append(time.perf_counter() - start)
            # the first call of a block still pays for the memory that another arm has left
            blocks[name].append(statistics.median(times[1:]))
    return {
        name: (
            statistics.median(taken),
            statistics.median(a / b for a, b in zip(taken, blocks[base_of(name)], strict=True)),
        )
        for name, taken in blocks.items()
    }


def base_of(arm: str) -> str:
    return SMOOTHED_BASE if arm in ("smoothed", "soft") else BASE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each shape and dtype")
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--output", type=Path, help="folder for the rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} threads; time of forward + backward over F.cross_entropy's")
    print(f"{'shape':>12} {'dtype':>9} {'arm':>16} {'ms':>9} {'ratio':>7} {'goal':>6}")
    found: list[list[object]] = []
    for dtype in options.dtype:
        for shape in options.shapes:
            rows, classes = (int(n) for n in shape.split("x"))
            for arm, (seconds, ratio) in measure(rows, classes, getattr(torch, dtype), options.seconds).items():
                limit = goal(arm, shape, dtype) or ""
                found.append([rows, classes, dtype, arm, f"{seconds * 1e3:.3f}", f"{ratio:.2f}", limit])
                print(f"{shape:>12} {dtype:>9} {arm:>16} {seconds * 1e3:9.3f} {ratio:7.2f} {limit:>6}", flush=True)
    if options.output:
        saved.save(options.output, {"arms": ("rows,classes,dtype,arm,ms,ratio,goal", found)}, threads=options.threads)


if __name__ == "__main__":
    main()
