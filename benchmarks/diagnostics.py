"""Cost of the diagnostics, relative to a training step or to a gradient.

* recorder: time of one ``record`` call over the time of the training step that it follows (goal: at most 1 %);
* escaping: time of one Tr(H Sigma) probe over the time of one gradient evaluation of the same data (goal: at most 4),
  beside the same Hessian-vector product by curvlinops.

Medians over interleaved rounds, in CPU time of the process, which other work on the machine hardly moves:
OMP_NUM_THREADS=1 python benchmarks/diagnostics.py [--only recorder | escaping] [--output DIR]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import curvlinops
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import saved
from crossfade.diagnostics import ProbabilityRecorder
from crossfade.diagnostics.escaping import TOGETHER, centred
from crossfade.diagnostics.passes import Problem, evaluating
from crossfade.diagnostics.recorder import GROUP


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def small_resnet(width: int = 16, classes: int = 100) -> nn.Module:
    """A ResNet-8 for 32 x 32 images: torchvision's blocks, one a stage."""
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=classes)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    for module in model.modules():  # a quarter of the width: this is a CPU benchmark
        if isinstance(module, nn.Conv2d):
            i, o = max(3, module.in_channels * width // 64) if module.in_channels > 3 else 3, module.out_channels
            module.weight = nn.Parameter(0.1 * torch.randn(o * width // 64, i, *module.kernel_size))
        elif isinstance(module, nn.BatchNorm2d):
            module.__init__(module.num_features * width // 64)  # type: ignore[misc]
    model.fc = nn.Linear(model.fc.in_features * width // 64, classes)
    return model


def mlp(inputs: int = 64, width: int = 256, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))


def recorder(name: str, model: nn.Module, x: Tensor, y: Tensor, rounds: int) -> list[object]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    index = torch.randperm(50_000)[: len(x)]
    logits = model(x).detach()

    def step() -> None:
        nonlocal logits
        optimizer.zero_grad()
        output = model(x)
        F.cross_entropy(output, y).backward()
        optimizer.step()
        logits = output.detach()

    with tempfile.TemporaryDirectory() as folder:
        record = ProbabilityRecorder(folder, 50_000, 200)

        def group() -> None:
            for _ in range(GROUP):
                record.record(7, index, logits, y)

        found = interleaved({"step": step, "record": group}, rounds)
    found["record"] /= GROUP
    share = found["record"] / found["step"]
    step_ms, record_ms = 1e3 * found["step"], 1e3 * found["record"]
    print(f"recorder  {name:32s} step {step_ms:9.2f} ms   record {record_ms:7.3f} ms   {share:7.2%}")
    return [name, f"{step_ms:.2f}", f"{record_ms:.3f}", f"{share:.5f}"]


def probe(name: str, model: nn.Module, batches: list[tuple[Tensor, Tensor]], rounds: int) -> list[object]:
    def ce(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none")

    with evaluating(model):
        problem = Problem(model, batches, ce)
        gradient = problem.mean_gradients()[0]
        signs = [torch.randint(0, 2, (problem.examples,)) * 2.0 - 1 for _ in range(TOGETHER)]
        operator = curvlinops.HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(problem.parameters.values()), batches, check_deterministic=False
        )

        def one_gradient() -> None:
            model.zero_grad()
            for x, y in batches:
                (F.cross_entropy(model(x), y, reduction="sum") / problem.examples).backward()

        def probes() -> None:
            found = zip(problem.reweighted(signs), signs, strict=True)
            problem.hessian_products([centred(reweighted[0], z, gradient) for reweighted, z in found])

        calls = {"gradient": one_gradient, "probe": probes, "curvlinops": lambda: operator @ gradient}
        found = interleaved(calls, rounds)
    ratio, rival = (found[key] / found["gradient"] for key in ("probe", "curvlinops"))
    ratio /= TOGETHER
    print(
        f"escaping  {name:32s} gradient {1e3 * found['gradient']:9.2f} ms   probe {ratio:5.2f} gradients   "
        f"(the HVP alone by curvlinops {rival:5.2f})"
    )
    return [name, f"{1e3 * found['gradient']:.2f}", f"{ratio:.2f}", f"{rival:.2f}"]


def main() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(0, 100, (128,))
    rows, classes = torch.randn(512, 64), torch.randint(0, 10, (512,))
    halves = list(zip(images.split(64), labels.split(64), strict=True))
    quarters = list(zip(rows.split(128), classes.split(128), strict=True))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["recorder", "escaping"])
    parser.add_argument("--output", type=Path, help="folder for the rows")
    options = parser.parse_args()
    tables: dict[str, tuple[str, list[list[object]]]] = {}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if options.only != "escaping":
        wide = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), mlp(1024, 1024))
        rows_of = [
            recorder("ResNet-8 x16, 128 images", small_resnet(), images, labels, 15),
            recorder("MLP 64-1024-1024-10, 512 rows", wide, rows, classes, 60),
            recorder("MLP 64-256-10, 512 rows", mlp(), rows, classes, 200),
        ]
        tables["recorder"] = ("network,step_ms,record_ms,share", rows_of)
    if options.only != "recorder":
        rows_of = [
            probe("ResNet-8 x16, 1 batch of 128", small_resnet(), [(images, labels)], 5),
            probe("ResNet-8 x16, 2 batches of 64", small_resnet(), halves, 5),
            probe("MLP 64-256-10, 1 batch of 512", mlp(), [(rows, classes)], 60),
            probe("MLP 64-256-10, 4 batches of 128", mlp(), quarters, 60),
        ]
        tables["escaping"] = ("network,gradient_ms,probe,curvlinops", rows_of)
    if options.output:
        saved.save(options.output, tables, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
