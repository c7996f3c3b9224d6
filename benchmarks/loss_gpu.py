"""Forward + backward time of the losses on a GPU, against eager, compiled and Liger's cross entropy.

    python benchmarks/loss_gpu.py [--shapes 8192x128256 ...] [--dtype bfloat16 float32] [--rounds 20] [--tune]

The arms take turns in random order, each on a fresh copy of the logits made outside of the timed stretch; times are
CUDA events' with the host ahead of the device, a ratio is the median over rounds of the ratio to eager F.cross_entropy
in the same round. Bandwidth: what the kernels have to move (one read for the losses, one read and one write for the
gradient) over the time, as a share of the bandwidth of a copy of the logits. Memory is the allocator's peak beyond the
logits. Every arm's gradient is compared with float64 on a few rows.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf
import saved
from crossfade import kernels

BASE = "eager F.cross_entropy"
Loss = Callable[[Tensor, Tensor], Tensor]


def in_place(logits: Tensor, target: Tensor) -> Tensor:
    return kernels.ce_rows(logits, target, inplace=True).mean()


def in_place_mixture(logits: Tensor, target: Tensor) -> Tensor:
    ce = kernels.ce_rows(logits, target, inplace=True)
    return (ce - torch.expm1(-ce)).mean()


def arms() -> dict[str, tuple[Loss, tuple[float, float]]]:
    """Return each arm's loss, and alpha and beta of its mixture."""
    ce, mixture = (1.0, 0.0), (1.0, 1.0)
    own: dict[str, tuple[Loss, tuple[float, float]]] = {
        BASE: (F.cross_entropy, ce),
        "compiled F.cross_entropy": (torch.compile(F.cross_entropy), ce),
        "kernels, CE": (lambda x, y: cf.crossfade_loss(x, y, beta=0.0), ce),
        "kernels, CE + EL": (cf.crossfade_loss, mixture),
        "kernels, CrossfadeLoss": (cf.CrossfadeLoss(cf.constant(0.0)).cuda(), mixture),
        "kernels, CE, in place": (in_place, ce),
        "kernels, CE + EL, in place": (in_place_mixture, mixture),
    }
    try:
        from liger_kernel.transformers import LigerCrossEntropyLoss
    except ImportError:
        print("liger-kernel is not installed: its arm is left out")
    else:
        own["Liger (in place)"] = (LigerCrossEntropyLoss(), ce)
    return own


_AHEAD = 4_000_000  # clock cycles, about 2 ms


def milliseconds(call: Callable[[], object]) -> float:
    """Return the device's time for a call: its queue is kept busy while the host launches, as it is in training."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(_AHEAD)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def copy_bandwidth(logits: Tensor) -> float:
    """Return the bytes a second that a copy reads and writes."""
    to = torch.empty_like(logits)
    times = [milliseconds(lambda: to.copy_(logits)) for _ in range(12)][2:]
    return 2 * logits.numel() * logits.element_size() / (statistics.median(times) * 1e-3)


def gradient_error(loss: Loss, alpha: float, beta: float, dtype: torch.dtype, classes: int) -> float:
    """Return the largest absolute error over the largest absolute value, on 16 rows."""
    generator = torch.Generator().manual_seed(1)
    leaf = (torch.randn(16, classes, generator=generator) * 3).to("cuda", dtype).requires_grad_()
    target = torch.randint(classes, (16,), generator=generator).cuda()
    exact = leaf.detach().double().requires_grad_()
    cf.crossfade_loss(exact, target, alpha=alpha, beta=beta).backward()
    loss(leaf * 1.0, target).backward()
    return ((leaf.grad.double() - exact.grad).abs().max() / exact.grad.abs().max()).item()


def tune(rows: int, classes: int, dtype: torch.dtype) -> list[list[object]]:
    """Return milliseconds of both kernels for several launch settings, and keep the fastest for what follows."""
    from triton.testing import do_bench

    from crossfade.kernels import triton_cross_entropy as own

    logits = torch.randn(rows, classes, device="cuda", dtype=dtype).mul_(3)
    target = torch.randint(classes, (rows,), device="cuda")
    ce, norm, _ = kernels.forward(logits, target, ignore_index=-100)
    out, factor = torch.empty_like(logits), torch.ones_like(ce)
    calls: dict[str, tuple[Callable[[], object], list[tuple[int, ...]]]] = {
        "FORWARD": (
            lambda: kernels.forward(logits, target, ignore_index=-100),
            [(b, w, s) for b in (4096, 8192, 16384, 32768) for w in (1024, 2048) for s in (1, 3) if b >= 4 * w],
        ),
        "BACKWARD": (
            lambda: kernels.backward(logits, target, norm, ce, factor, out=out, ignore_index=-100),
            [(b, w) for b in (1024, 2048, 4096, 8192, 16384) for w in (512, 1024, 2048) if b >= w],
        ),
    }
    found: list[list[object]] = []
    for name, (call, ways) in calls.items():
        taken = {}
        for way in ways:
            setattr(own, name, way)
            taken[way] = do_bench(call, warmup=5, rep=25, return_mode="median")
        setattr(own, name, min(taken, key=lambda way: taken[way]))
        ranked = sorted(taken.items(), key=lambda at: at[1])
        print(f"{name}: " + ", ".join(f"{way} {ms:.3f}" for way, ms in ranked))
        found += [[name.lower(), *way[:2], *(way[2:] or [""]), f"{ms:.3f}"] for way, ms in ranked]
    return found


def measure(rows: int, classes: int, dtype: torch.dtype, rounds: int) -> list[list[object]]:
    # A generator on the device: the host's would take longer than the measurement.
    generator = torch.Generator("cuda").manual_seed(0)
    logits = torch.empty(rows, classes, dtype=dtype, device="cuda").normal_(0, 3, generator=generator)
    target = torch.randint(classes, (rows,), device="cuda", generator=generator)
    losses, bandwidth = arms(), copy_bandwidth(logits)
    taken: dict[str, list[float]] = {name: [] for name in losses}
    memory: dict[str, int] = {}
    order = list(losses)
    for round_number in range(rounds + 3):
        random.shuffle(order)
        for name in order:
            copy = logits.clone().requires_grad_()
            # Not a leaf, as in a network: an in-place gradient needs memory that is nobody's parameter.
            copy = copy.view_as(copy)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            loss = losses[name][0]
            time = milliseconds(lambda loss=loss, copy=copy: torch.autograd.grad(loss(copy, target), copy))
            memory[name] = torch.cuda.max_memory_allocated() - before
            if round_number >= 3:  # compilation and warm-up
                taken[name].append(time)
            del copy
    least = 3 * logits.numel() * logits.element_size()
    del logits
    print(f"\n{rows} x {classes}, {dtype}: a copy reaches {bandwidth / 1e9:.0f} GB/s")
    print(f"{'':>28} {'ms':>8} {'ratio':>7} {'of copy bandwidth':>18} {'peak MiB':>9} {'gradient error':>15}")
    found: list[list[object]] = []
    for name, (loss, (alpha, beta)) in losses.items():
        ms = statistics.median(taken[name])
        ratio = statistics.median(a / b for a, b in zip(taken[name], taken[BASE], strict=True))
        error = gradient_error(loss, alpha, beta, dtype, classes)
        share, mib = least / (ms * 1e-3) / bandwidth, memory[name] / 2**20
        print(f"{name:>28} {ms:8.3f} {ratio:7.3f} {share:18.2f} {mib:9.0f} {error:15.1e}", flush=True)
        cells = (f"{ms:.3f}", f"{ratio:.3f}", f"{share:.2f}", f"{mib:.0f}", f"{error:.1e}")
        found.append([rows, classes, str(dtype).removeprefix("torch."), name, *cells])
    mixture, plain = taken["kernels, CE + EL"], taken["kernels, CE"]
    print(f"mixture over CE: {statistics.median(a / b for a, b in zip(mixture, plain, strict=True)):.3f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["8192x128256", "8192x32000", "4096x50257"])
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tune", action="store_true", help="try ways to launch the kernels at the first shape")
    parser.add_argument("--output", type=Path, help="folder for the rows")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: this benchmark needs one")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, {options.rounds} rounds")
    arms_of: list[list[object]] = []
    launches: list[list[object]] = []
    if options.tune:
        rows, classes = (int(n) for n in options.shapes[0].split("x"))
        launches = tune(rows, classes, getattr(torch, options.dtype[0]))
    for dtype in options.dtype:
        for shape in options.shapes:
            rows, classes = (int(n) for n in shape.split("x"))
            arms_of += measure(rows, classes, getattr(torch, dtype), options.rounds)
    if options.output:
        head = "rows,classes,dtype,arm,ms,ratio,of_copy_bandwidth,peak_mib,gradient_error"
        tables = {"arms": (head, arms_of), "launch": ("kernel,program_bytes,warp_bytes,stages,ms", launches)}
        saved.save(options.output, tables, capability=saved.capability("cuda"))
    print("\ngoals on an H100, 8192 x 128256, bfloat16: ratio 0.50, Liger's time +-3 %, 0.80 of copy bandwidth,")
    print("mixture over CE 1.02")


if __name__ == "__main__":
    main()
