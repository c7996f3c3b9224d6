"""Forward + backward time of the losses on the CPU, as ratios to F.cross_entropy in the same run.

    python benchmarks/loss_cpu.py [--threads 2] [--seconds 20] [--shapes 4096x1000 ...] [--dtype float32 bfloat16]

The arms take turns in blocks of a few calls, in random order, so that a noisy machine disturbs all of them alike; a
ratio is the median over rounds of the ratio of two blocks' medians. naive is CE + (1 - softmax(logits)[target]);
composed is the reference form by rows.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf
from crossfade import _heart
from crossfade._transforms import Mixture

BLOCK = 8
SHAPES = ["4096x1000", "2048x32000", "65536x21", "256x1000", "128x10"]
TARGETS = {"4096x1000": 0.75, "2048x32000": 0.75, "65536x21": 1.05, "256x1000": 1.05, "128x10": 1.8}


def naive(logits: Tensor, target: Tensor) -> Tensor:
    p = torch.softmax(logits, 1).gather(1, target.unsqueeze(1)).squeeze(1)
    return F.cross_entropy(logits, target) + (1 - p).mean()


def composed(logits: Tensor, target: Tensor) -> Tensor:
    return _heart.by_row(Mixture(1.0, 1.0), logits, target, None, -100, "mean")


def arms() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    gradual = cf.CrossfadeLoss().at(0.5)
    return {
        "F.cross_entropy": F.cross_entropy,
        "crossfade_loss": cf.crossfade_loss,
        "CrossfadeLoss": gradual,
        "expectation": cf.expectation_loss,
        "focal": cf.focal_loss,
        "composed": composed,
        "naive": naive,
    }


def measure(rows: int, classes: int, dtype: torch.dtype, seconds: float) -> dict[str, tuple[float, float]]:
    """Return median seconds and the median ratio to the first arm, for each arm."""
    logits = torch.randn(rows, classes).to(dtype).requires_grad_()
    target = torch.randint(classes, (rows,))
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
                losses[name](logits, target).backward()
                times.append(time.perf_counter() - start)
            # the first call of a block still pays for the memory that another arm has left
            blocks[name].append(statistics.median(times[1:]))
    base = blocks["F.cross_entropy"]
    return {
        name: (statistics.median(t), statistics.median(a / b for a, b in zip(t, base, strict=True)))
        for name, t in blocks.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each shape and dtype")
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} threads; time of forward + backward / F.cross_entropy's")
    print(f"{'shape':>12} {'dtype':>9} {'CE ms':>8} " + " ".join(f"{n:>14}" for n in list(arms())[1:]) + "  goal")
    for dtype in options.dtype:
        for shape in options.shapes:
            rows, classes = (int(n) for n in shape.split("x"))
            result = measure(rows, classes, getattr(torch, dtype), options.seconds)
            ratios = " ".join(f"{ratio:14.2f}" for _, ratio in list(result.values())[1:])
            limit = TARGETS.get(shape, float("nan")) if dtype == "float32" else 1.0
            print(f"{shape:>12} {dtype:>9} {result['F.cross_entropy'][0] * 1e3:8.3f} {ratios}  {limit}", flush=True)


if __name__ == "__main__":
    main()
