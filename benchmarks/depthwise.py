"""Training steps of a network on the CPU in float32 and in bfloat16, with and without the lab's float32 convolutions.

    python benchmarks/depthwise.py [--net shufflenetv2_small] [--batch 128] [--rounds 9] [--output FOLDER]

The lab leaves depthwise convolutions with a stride in float32. The arms take turns; a ratio is the median over rounds
of the ratio to float32. Below them is the backward pass of each such convolution alone. One thread; steps are compiled.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import saved
from crossfade.lab.data.images import ImageSet, ImageTask, Part
from crossfade.lab.methods import method
from crossfade.lab.nets import build
from crossfade.lab.train.deep.network import Job, build_network
from crossfade.lab.train.deep.recipe import ImageRecipe


def cast(name: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16, enabled=name != "float32")


def step(name: str, net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], float]:
    """Return a function that trains a step and returns its seconds."""
    net.to(memory_format=torch.channels_last).compile()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)

    def run() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        with cast(name):
            loss = cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        return time.perf_counter() - started

    return run


def backward(name: str, layer: nn.Conv2d, inputs: Tensor) -> Callable[[], float]:
    """Return a function that computes a convolution and returns the seconds of its backward pass."""
    leaf = inputs.clone().requires_grad_()

    def run() -> float:
        with cast(name):
            out = layer(leaf)
        started = time.perf_counter()
        out.backward(torch.ones_like(out))
        return time.perf_counter() - started

    return run


def compare(what: str, arms: dict[str, Callable[[], float]], rounds: int) -> list[list[object]]:
    """Print and return the arms' milliseconds, and their ratios to the first."""
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 2):  # the first two compile, and choose kernels
        for name, run in arms.items():
            seconds = run()
            if turn > 1:
                taken[name].append(seconds)
    first, rows = next(iter(taken.values())), []
    for name, own in taken.items():
        ratio = statistics.median(a / b for a, b in zip(own, first, strict=True))
        rows.append([what, name, f"{statistics.median(own) * 1e3:.2f}", f"{ratio:.2f}"])
        print(*rows[-1], sep="  ", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="shufflenetv2_small")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="folder for the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    part = Part(torch.zeros(200, 3, 32, 32, dtype=torch.uint8), torch.arange(200) % 100)
    split = ImageTask(ImageSet("empty", tuple(map(str, range(100))), part, part)).split(0)
    recipe = ImageRecipe(net=options.net)
    images = torch.randn(options.batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(100, (options.batch,))
    nets = {
        "float32": build(options.net, 100),
        "bfloat16": build(options.net, 100),
        "the lab's bfloat16": build_network(Job(split, method("ce"), 0), recipe, channels_last=True),
    }
    seen: dict[tuple[int, ...], nn.Conv2d] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1 and max(layer.stride) > 1:
            seen.setdefault(tuple(inputs[0].shape), layer)

    plain = build(options.net, 100)
    for module in plain.modules():
        module.register_forward_hook(look)
    plain(images)
    arms = {name: step(name, net, images, labels) for name, net in nets.items()}
    rows = compare(f"step of {options.net}", arms, options.rounds)
    for shape, layer in seen.items():
        inputs = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        alone = {name: backward(name, layer, inputs) for name in ("float32", "bfloat16")}
        rows += compare(f"backward pass at {' x '.join(map(str, shape))}", alone, options.rounds)
    if options.output:
        saved.save(options.output, {"arms": ("what,arm,ms,ratio", rows)}, threads=1)


if __name__ == "__main__":
    main()
