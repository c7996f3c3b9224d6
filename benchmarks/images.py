"""Images a second: data kept on the device against torchvision's usual DataLoader, with the same network.

    python benchmarks/images.py [--net resnet20] [--batch 128] [--rounds 5] [--pipeline-only | --step-only]

Prints three things, each as the median over interleaved rounds: the pipelines alone (crop, flip, normalise; then with
rotation, jitter and erasing too), the whole training step, and the step with data already prepared, which no pipeline
can beat. On a GPU the step is the lab's own, one CUDA graph, and its time includes making the batches; the rival's loop
is the usual eager one (with --compile, compiled). The rival is ``DataLoader(CIFAR-like data set, num_workers=cores,
persistent_workers=True)`` with torchvision's transforms on Pillow images, as CIFAR recipes have it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as T
from PIL import Image
from torch.nn.functional import cross_entropy

import saved
from crossfade.lab.data.images import ImageSet, ImageSplit, ImageTask, Part
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import method
from crossfade.lab.nets import build
from crossfade.lab.train.deep.feeds import ImageFeed, Place, make_feed
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.train.deep.side_by_side import Member

IMAGES = 50_000
_WARM_UP = 400  # images
PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed"}


class Pictures(torch.utils.data.Dataset[Any]):
    """A data set like torchvision's CIFAR100: an array in memory, a Pillow image and its transforms at each access."""

    def __init__(self, part: Part, transform: T.Compose) -> None:
        self.data, self.labels, self.transform = (
            part.images.permute(0, 2, 3, 1).numpy(),
            part.labels.tolist(),
            transform,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int) -> Any:
        return self.transform(Image.fromarray(self.data[at])), self.labels[at]


def transforms(augment: Augment, mean: list[float], std: list[float]) -> T.Compose:
    steps: list[Any] = [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()]
    if augment.rotation:
        steps.append(T.RandomRotation(augment.rotation))
    if augment.jitter:
        steps.append(T.ColorJitter(augment.jitter, augment.jitter, augment.jitter))
    steps += [T.ToTensor(), T.Normalize(mean, std)]
    if augment.erasing:
        steps.append(T.RandomErasing(augment.erasing, (0.02, 0.4), (0.3, 1 / 0.3)))
    return T.Compose(steps)


def forever(loader: Any) -> Iterator[Any]:
    epoch = 0
    while True:
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(take: Callable[[], Any], images: int, device: torch.device, seconds: float) -> float:
    """Return images a second, measured for about so many seconds."""
    wait(device)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        take()
        count += images
    wait(device)
    return count / (time.perf_counter() - started)


def compare(
    what: str, named: dict[str, tuple[Callable[[], Any], int]], device: torch.device, rounds: int, seconds: float
) -> list[list[object]]:
    """Print and return the speeds of named calls, each with its number of images, as medians and ratios to the last."""
    print(what)
    for take, images in named.values():  # workers start, kernels are chosen
        for _ in range(max(1, _WARM_UP // images)):
            take()
    found: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, (take, images) in named.items():
            found[name].append(rate(take, images, device, seconds))
    last, rows = next(reversed(found)), []
    for name, values in found.items():
        ratio = statistics.median(own / other for own, other in zip(values, found[last], strict=True))
        against = f"   {ratio:6.2f} x {last}" if name != last else ""
        print(f"  {name:32} {statistics.median(values):12,.0f} images/s{against}", flush=True)
        rows.append([what, name, f"{statistics.median(values):.0f}", f"{ratio:.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--beside", type=int, default=8, help="networks side by side on a GPU")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--pipeline-only", action="store_true")
    parser.add_argument("--step-only", action="store_true")
    parser.add_argument("--output", type=Path, help="folder for the rows")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = os.cpu_count() or 1
    part = Part(
        torch.randint(0, 256, (args.images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        torch.arange(args.images) % 100,
    )
    split = ImageTask(ImageSet("noise", tuple(map(str, range(100))), part, part)).split(0)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}; DataLoader with {cores} workers; batch {args.batch}")
    augments = {"crop, flip": Augment(), "crop, flip, rotate, jitter, erase": Augment(4, True, 15.0, 0.4, 0.5)}

    def feeds(augment: Augment) -> tuple[Callable[[], Any], Callable[[], Any]]:
        ours = forever(
            ImageFeed(split.train, split, ImageRecipe(augment=augment, batch_size=args.batch), 0, Place(device))
        )
        loader = torch.utils.data.DataLoader(
            Pictures(part, transforms(augment, split.mean.tolist(), split.std.tolist())), args.batch, shuffle=True,
            num_workers=cores, persistent_workers=True, pin_memory=device.type == "cuda", drop_last=True,
        )  # fmt: skip
        theirs = forever(loader)

        def usual() -> tuple[torch.Tensor, torch.Tensor]:
            x, y = next(theirs)
            return x.to(device, non_blocking=True), y.to(device, non_blocking=True)

        return (lambda: next(ours)[:2]), usual

    threads, rows = torch.get_num_threads(), []
    for title, augment in augments.items() if not args.step_only else ():
        # One thread against a worker a core: kernels this small gain nothing from a second one.
        torch.set_num_threads(1)
        ours, usual = feeds(augment)
        arms = {"on the device": (ours, args.batch), "DataLoader": (usual, args.batch)}
        what = f"pipeline alone, ours with one thread: {title}"
        rows += compare(what, arms, device, args.rounds, args.seconds)
    if not args.pipeline_only:
        torch.set_num_threads(threads)
        rows += steps(split, feeds, args, device)
    if args.output:
        saved.save(
            args.output,
            {"images": ("what,arm,images_per_second,ratio", rows)},
            capability=saved.capability(device.type),
        )


def steps(split: ImageSplit, feeds: Any, args: argparse.Namespace, device: torch.device) -> list[list[object]]:
    """Measure the whole training step."""
    net = build(args.net, 100).to(device, memory_format=torch.channels_last)
    if args.compile:
        net.compile()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)

    def step(take: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            x, y = take()
            with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                loss = cross_entropy(net(x.contiguous(memory_format=torch.channels_last)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return run

    ours, usual = feeds(Augment())
    what = f"training step: {args.net}, {args.precision}-bit"
    if device.type == "cuda":
        loop = {"DataLoader": (step(usual), args.batch)}
        return compare(what, graph_epochs(split, args) | loop, device, args.rounds, 2 * args.seconds)
    ready = ours()
    named = {"data already prepared": step(lambda: ready), "on the device": step(ours), "DataLoader": step(usual)}
    arms = {name: (take, args.batch) for name, take in named.items()}
    return compare(what, arms, device, args.rounds, 2 * args.seconds)


def graph_epochs(split: ImageSplit, args: argparse.Namespace) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return calls that train an epoch in graphs: one network on prepared batches, several side by side, one alone."""
    recipe = ImageRecipe(net=args.net, batch_size=args.batch, precision=PRECISIONS[args.precision])
    hardware = Hardware(compile=args.compile)
    feed = make_feed(split, recipe, hardware, 0, Place(torch.device("cuda")))
    methods = [method(("ce", "gradual")[number % 2]) for number in range(args.beside)]
    members = [Member(Job(split, one, 0), feed, recipe, hardware) for one in methods]

    def run(count: int, make: bool) -> Callable[[], None]:
        def epoch() -> None:
            if make:
                feed.begin(0)
            for member in members[:count]:
                member.begin(0)
            for kind in feed.kinds:
                for member in members[:count]:
                    member.step(kind)
            torch.cuda.synchronize()

        return epoch

    images = len(split.train)
    return {
        "data already prepared": (run(1, False), images),
        f"{len(members)} side by side": (run(len(members), True), len(members) * images),
        "on the device": (run(1, True), images),
    }


if __name__ == "__main__":
    main()
