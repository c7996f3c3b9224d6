"""The fused output projection and loss against F.linear + F.cross_entropy: time, memory and exactness in one run.

    python benchmarks/linear_loss.py [--rows 2048] [--dim 256] [--classes 32000] [--dtype float32] [--threads 2]
    python benchmarks/linear_loss.py --device cuda --rows 8192 --dim 4096 --classes 128256 --dtype bfloat16

Forward + backward of the mean with gradients of hidden and weight. The arms take turns in random order; a time ratio is
the median over rounds of the ratio to linear + F.cross_entropy in the same round. Memory is the peak beyond what was
there before the forward pass, gradients included: on the CPU the high-water mark, each arm in a process of its
own (Linux), on CUDA the allocator's. The error is the largest absolute error of a gradient over the gradient's largest
absolute value, against a closed form in float64 of the arm's own loss. With --output every round's seconds go to
rounds.csv in that folder, memory and errors to arms.csv, versions and machine to provenance.json. On a busy machine
--clock cpu counts the processor time of this process instead of the wall's, for --threads 1.

What an objective costs that looks at its row, against CE on the same path:

    python benchmarks/linear_loss.py --arms 'loss, (CE|g|DEFT|EAFT)' --threads 1 --clock cpu
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf
import saved

BASE = "linear + F.cross_entropy"
PLAIN = "linear_crossfade_loss, CE"
Arm = Callable[[Tensor, Tensor, Tensor], Tensor]
# The row weight of a loss as a function of the softmax and of p_y, for the exact gradients.
RowWeight = Callable[[Tensor, Tensor], Tensor]


def ce(p: Tensor, p_y: Tensor) -> Tensor:
    return torch.ones_like(p_y)


def mixture(p: Tensor, p_y: Tensor) -> Tensor:
    return 1.0 + p_y


def el(p: Tensor, p_y: Tensor) -> Tensor:
    return p_y


def deft(p: Tensor, p_y: Tensor) -> Tensor:
    return p_y ** p.square().sum(1, keepdim=True)


def eaft(p: Tensor, p_y: Tensor) -> Tensor:
    return (torch.special.entr(p).sum(1, keepdim=True) / math.log(20)).clamp(max=1.0)


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def separate(loss: Callable[..., Tensor], hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return loss(F.linear(hidden, weight), target)


def rows_then_mean(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return cf.linear_crossfade_loss(hidden, weight, target, reduction="none").mean()


def trl_head(apply: Callable[..., Any], dft: bool, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Return the loss as TRL's SFTTrainer computes it, with the statistics that it logs."""
    outputs = ("log_probs", "entropy", "is_top1")
    log_p = apply(hidden, weight, None, target, 1.0, 32_768, None, 1.0, outputs)[0]
    return -(log_p * log_p.exp().detach() if dft else log_p).mean()


def in_trl(g: Callable[..., Tensor], hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Return the loss as CrossfadeCallback computes it in TRL's SFTTrainer, with the statistics that it logs."""
    total, _ = cf.linear_crossfade_loss(hidden, weight, target, g=g, reduction="sum", return_stats=True)
    return total / len(target)


def arms(device: str, classes: int) -> dict[str, tuple[Arm, RowWeight]]:
    criterion = cf.LinearCrossfadeLoss(cf.constant(0.0)).to(device)
    own = {
        BASE: (partial(separate, F.cross_entropy), ce),
        "linear + crossfade_loss": (partial(separate, cf.crossfade_loss), mixture),
        PLAIN: (partial(cf.linear_crossfade_loss, beta=0.0), ce),
        "linear_crossfade_loss, CE + EL": (cf.linear_crossfade_loss, mixture),
        "linear_crossfade_loss, g(ce)": (partial(cf.linear_crossfade_loss, g=lambda x: x - torch.expm1(-x)), mixture),
        "linear_crossfade_loss, DEFT": (partial(cf.linear_crossfade_loss, g=cf.objectives.deft()), deft),
        "linear_crossfade_loss, EAFT": (partial(cf.linear_crossfade_loss, g=cf.objectives.entropy_gated()), eaft),
        "LinearCrossfadeLoss": (criterion, mixture),
        "linear_crossfade_loss, none": (rows_then_mean, mixture),
    }
    if hasattr(F, "linear_cross_entropy"):  # torch 2.12 and later
        chunked = partial(F.linear_cross_entropy, options=torch.nn.LinearCrossEntropyOptions())
        own["F.linear_cross_entropy"] = (F.linear_cross_entropy, ce)
        own["F.linear_cross_entropy, options"] = (chunked, ce)
    try:
        from trl.kernels import ChunkedLogProbFunction
    except ImportError:
        print("trl is not installed: its arms are left out")
    else:
        head = partial(trl_head, ChunkedLogProbFunction.apply)
        own["TRL nll (also its chunked_nll)"] = (partial(head, False), ce)
        own["TRL dft"] = (partial(head, True), el)
        own["crossfade's callback, dft"] = (partial(in_trl, cf.objectives.dft()), el)
        own["crossfade's callback, CE + EL"] = (partial(in_trl, cf.objectives.mixture()), mixture)
    if device == "cuda":
        try:
            from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
        except ImportError:
            print("liger-kernel is not installed: its arm is left out")
        else:
            liger = LigerFusedLinearCrossEntropyLoss()
            own["Liger"] = (lambda hidden, weight, target: liger(weight, hidden, target), ce)
    return own


def problem(options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    # On a GPU a generator of its own: the host's would take longer than the measurement.
    generator = torch.Generator(options.device).manual_seed(0)
    place: dict[str, Any] = {"generator": generator, "device": options.device}
    hidden = torch.randn(options.rows, options.dim, **place)
    weight = torch.randn(options.classes, options.dim, **place) * options.dim**-0.5
    target = torch.randint(options.classes, (options.rows,), **place)
    dtype = getattr(torch, options.dtype)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), target


def step(arm: Arm, tensors: tuple[Tensor, Tensor, Tensor], clock: Callable[[], float] = time.perf_counter) -> float:
    hidden, weight, target = tensors
    hidden.grad = weight.grad = None
    cuda = hidden.is_cuda
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    arm(hidden, weight, target).backward()
    if cuda:
        torch.cuda.synchronize()
    return clock() - start


def times(options: argparse.Namespace, kept: set[str]) -> dict[str, list[float]]:
    """Return the seconds of every round."""
    tensors, every = problem(options), arms(options.device, options.classes)
    order = [name for name in every if name in kept]
    taken: dict[str, list[float]] = {name: [] for name in order}
    for round_number in range(options.rounds + 1):
        random.shuffle(order)
        for name in order:
            seconds = step(every[name][0], tensors, CLOCKS[options.clock])
            if round_number:  # the first round warms up
                taken[name].append(seconds)
    return {name: taken[name] for name in every if name in kept}


def ratio(seconds: list[float], base: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(seconds, base, strict=True))


def keep(
    options: argparse.Namespace, taken: dict[str, list[float]], memory: dict[str, float], wrong: dict[str, float]
) -> None:
    rounds = [[name, k, f"{s:.6f}"] for name, seconds in taken.items() for k, s in enumerate(seconds)]
    arms_of = [[name, f"{memory[name]:.2f}", f"{wrong[name]:.3e}"] for name in taken]
    tables = {"rounds": ("arm,round,seconds", rounds), "arms": ("arm,peak_mib,gradient_error", arms_of)}
    settings = {name: value for name, value in vars(options).items() if name not in ("output", "arms")}
    saved.save(options.output, tables, settings=settings, capability=saved.capability(options.device))


def resident(key: str) -> int:
    """Return VmRSS or VmHWM of this process, in bytes."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) * 1024


def cpu_peak(options: argparse.Namespace, name: str, answer: multiprocessing.SimpleQueue[int]) -> None:
    torch.set_num_threads(options.threads)
    arm = arms("cpu", options.classes)[name][0]
    small = argparse.Namespace(**vars(options) | {"rows": 64, "classes": 100})
    step(arm, problem(small))  # libraries loaded, thread pools made
    tensors = problem(options)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = resident("VmRSS")
    step(arm, tensors)
    answer.put(resident("VmHWM") - before)


def peak(options: argparse.Namespace, name: str) -> float:
    """Return the peak memory in MiB, NaN if the system doesn't report it."""
    if options.device == "cuda":
        tensors, arm = problem(options), arms("cuda", options.classes)[name][0]
        step(arm, problem(argparse.Namespace(**vars(options) | {"rows": 64, "classes": 128})))  # cuBLAS's workspace
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(arm, tensors)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=cpu_peak, args=(options, name, answer))
    process.start()
    process.join()
    return answer.get() / 2**20 if process.exitcode == 0 else float("nan")


def exact(tensors: tuple[Tensor, Tensor, Tensor], weigh: RowWeight) -> tuple[Tensor, Tensor]:
    """Return the gradients of the mean by row weight x (softmax - onehot), in float64, 64 rows at a time."""
    hidden, weight = (x.detach().double() for x in tensors[:2])
    of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight)
    for start in range(0, len(hidden), 64):
        rows = slice(start, start + 64)
        p = (hidden[rows] @ weight.t()).softmax(1)
        index = tensors[2][rows].unsqueeze(1)
        row_weight = weigh(p, p.gather(1, index)) / len(hidden)
        gradient = p.scatter_add_(1, index, torch.full_like(p[:, :1], -1.0)).mul_(row_weight)
        of_hidden[rows] = gradient @ weight
        of_weight.addmm_(gradient.t(), hidden[rows])
    return of_hidden, of_weight


def errors(options: argparse.Namespace, kept: set[str]) -> dict[str, float]:
    tensors = problem(options)
    chosen = {name: one for name, one in arms(options.device, options.classes).items() if name in kept}
    truths = {weigh: exact(tensors, weigh) for _, weigh in chosen.values()}
    largest = {}
    for name, (arm, weigh) in chosen.items():
        step(arm, tensors)
        largest[name] = max(
            ((x.grad.double() - truth).abs().max() / truth.abs().max()).item()
            for x, truth in zip(tensors[:2], truths[weigh], strict=True)
        )
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--classes", type=int, default=32_000)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=[*CLOCKS])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="folder for the rows")
    parser.add_argument("--arms", default="", help="a regular expression: only these, beside the base")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    print(
        f"torch {torch.__version__}, {where}, {options.dtype}, {options.rounds} rounds: "
        f"N {options.rows}, D {options.dim}, V {options.classes}"
    )
    kept = {n for n in arms(options.device, options.classes) if n == BASE or re.search(options.arms, n)}
    memory = {name: peak(options, name) for name in kept}
    wrong = errors(options, kept)
    print(f"{'':>34} {'ms':>9} {'time ratio':>10} {'peak MiB':>9} {'memory ratio':>12} {'gradient error':>14}")
    taken = times(options, kept)
    for name, seconds in taken.items():
        median, to_base = statistics.median(seconds) * 1e3, ratio(seconds, taken[BASE])
        print(
            f"{name:>34} {median:9.2f} {to_base:10.3f} {memory[name]:9.1f} {memory[name] / memory[BASE]:12.3f} "
            f"{wrong[name]:14.1e}"
        )
    if options.output:
        keep(options, taken, memory, wrong)
    print("goal on the CPU in float32 at the default size: time ratio 0.80, memory ratio 0.12")
    if PLAIN in taken:
        for name in {"linear_crossfade_loss, DEFT", "linear_crossfade_loss, EAFT"} & taken.keys():
            print(f"{name}: {ratio(taken[name], taken[PLAIN]):.3f} of {PLAIN}; goal 1.05")


if __name__ == "__main__":
    main()
