"""Time per network and step of the stacked engine, against the plain PyTorch loop and JAX, in one run.

    python benchmarks/stacked.py [--data-dir DIR] [--sets iris letter ...] [--rounds 3] [--stack] [--all]

For each set and network 36 members are trained as Table 4 does (six methods, three learning rates, two seeds; JAX: the
same count with the mixture's loss). Every arm has one thread, and the arms take turns; printed are microseconds of
processor time for one network's step (medians over the rounds) and the median ratio to the kernel's.

kernel   ``train_stack``, all of it: preparation, steps, evaluation on validation and test rows after every epoch
batched  ``train_stack(engine="batched")`` on the first rows: steps, and evaluation of a few rows
plain    the ordinary loop, one network at a time, on the first rows: steps, and evaluation of a few rows
jax      jit(vmap(scan)) of the same step on the first rows, compiled beforehand: steps alone

Gflop/s is the kernel's speed, its evaluation included; it trains epochs that methods have in common once, and they
count for each method. The other arms skip most or all of the evaluation, so the ratios are on the low side.
Without ``--data-dir`` (the folder with the UCI sets) their shapes are drawn at random. ``--stack`` adds the cost of
ten times the members, ``--all`` the time of all of Table 4 on all processors (needs the data). ``--cuda`` prints
instead, of 252 members at once, the batched engine's wall time for one network's step on the GPU beside that of the
kernel on all of the machine's processors.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
import torch

from crossfade.lab.data.uci import uci_tasks
from crossfade.lab.methods import DEFAULT_METHODS, method
from crossfade.lab.train import Member, Recipe, Split, train_stack
from saved import save

SHAPES = {  # training, validation, test rows, features, classes of the UCI sets' first split
    "iris": (92, 21, 37, 4, 3),
    "digits": (1010, 337, 450, 64, 10),
    "letter": (11941, 3059, 5000, 16, 26),
    "adult": (25999, 6562, 16281, 14, 2),
    "plant-shape": (986, 214, 400, 64, 100),
    "connect-4": (40417, 10251, 16889, 42, 2),
    "musk-2": (3998, 951, 1649, 166, 2),
}
SHIPPED = ("iris", "digits")
SAMPLE_STEPS = 150
STEPS = "set,net,source,gflops,kernel,batched,plain,jax,batched_ratio,plain_ratio,jax_ratio"


def load(name: str, data_dir: Path | None) -> tuple[Split, str]:
    if data_dir is not None and name not in SHIPPED:
        return uci_tasks(data_dir, (name,))[0][0].split(0), "UCI"
    generator, (train, val, test, features, classes) = np.random.default_rng(0), SHAPES[name]
    if name in SHIPPED:
        from sklearn import datasets
        from sklearn.preprocessing import StandardScaler

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        order = generator.permutation(len(x))
        x, y, source = StandardScaler().fit_transform(x)[order], y[order], "scikit-learn"
    else:
        x = generator.normal(size=(train + val + test, features))
        y, source = (x @ generator.normal(size=(features, classes))).argmax(1), "random"
    cut = train, train + val
    return Split(
        x[: cut[0]], y[: cut[0]], x[cut[0] : cut[1]], y[cut[0] : cut[1]], x[cut[1] :], y[cut[1] :], classes
    ), source


def members_of(split: Split, recipe: Recipe, seeds: int = 2) -> list[Member]:
    return [
        Member(split, method(name), rate, seed)
        for name in DEFAULT_METHODS
        for rate in recipe.learning_rates
        for seed in range(seeds)
    ]


def first_rows(split: Split, steps: int, recipe: Recipe) -> Split:
    rows = min(steps * recipe.batch_size, len(split.y_train))
    return Split(
        split.x_train[:rows], split.y_train[:rows], split.x_val[:8], split.y_val[:8], split.x_test[:8],
        split.y_test[:8], split.classes,
    )  # fmt: skip


def steps_of(split: Split, recipe: Recipe) -> int:
    return -(-len(split.y_train) // recipe.batch_size) * recipe.epochs


def engine_arm(split: Split, recipe: Recipe, engine: str) -> Callable[[], float]:
    """Return a function that trains and returns seconds for one network's step."""
    members = members_of(split, recipe)
    if engine == "plain":
        members = members[:6]  # trained one at a time, so six are enough to measure a step

    def run() -> float:
        start = time.process_time()
        train_stack(members, recipe, engine=engine, threads=1)
        return (time.process_time() - start) / len(members) / steps_of(split, recipe)

    return run


def jax_arm(split: Split, recipe: Recipe, count: int = 36) -> Callable[[], float] | None:
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    sizes = recipe.sizes(split.features, split.classes)
    rows = len(split.y_train) // recipe.batch_size * recipe.batch_size or len(split.y_train)
    batch = min(recipe.batch_size, rows)
    x, y = jnp.asarray(split.x_train), jnp.asarray(split.y_train)

    def loss(weights: Sequence[Any], rows: Any, alpha: Any, beta: Any) -> Any:
        z = x[rows]
        for n in range(0, len(weights), 2):
            z = z @ weights[n].T + weights[n + 1]
            z = jax.nn.relu(z) if n < len(weights) - 2 else z
        ce = -jnp.take_along_axis(jax.nn.log_softmax(z), y[rows][:, None], 1)[:, 0]
        return jnp.mean(alpha * ce - beta * jnp.expm1(-ce))

    def train(weights: Sequence[Any], order: Any, rate: Any, alpha: Any, beta: Any) -> Any:
        def step(state: Any, rows: Any) -> Any:
            weights, velocity = state
            value, gradient = jax.value_and_grad(loss)(weights, rows, alpha, beta)
            velocity = jax.tree.map(lambda v, g: recipe.momentum * v + g, velocity, gradient)
            return (jax.tree.map(lambda w, v: w - rate * v, weights, velocity), velocity), value

        return jax.lax.scan(step, (weights, jax.tree.map(jnp.zeros_like, weights)), order)

    generator = np.random.default_rng(0)
    weights = [
        jnp.asarray(generator.uniform(-(fan_in**-0.5), fan_in**-0.5, (count, *shape)), jnp.float32)
        for fan_in, fan_out in pairwise(sizes)
        for shape in ((fan_out, fan_in), (fan_out,))
    ]
    epochs = max(1, SAMPLE_STEPS * batch // rows)
    order = jnp.asarray(np.stack([
        np.concatenate([generator.permutation(rows) for _ in range(epochs)]).reshape(-1, batch) for _ in range(count)
    ]))  # fmt: skip
    ones = jnp.ones(count)
    compiled = jax.jit(jax.vmap(train))
    jax.block_until_ready(compiled(weights, order, 0.01 * ones, ones, ones))

    def run() -> float:
        start = time.process_time()
        jax.block_until_ready(compiled(weights, order, 0.01 * ones, ones, ones))
        return (time.process_time() - start) / count / order.shape[1]

    return run


def compare(split: Split, net: str, rounds: int) -> list[float]:
    """Return Gflop/s, microseconds of each arm's step, and the ratios to the kernel's, NaN for a missing arm."""
    once = Recipe(net=net, epochs=1)
    whole = Recipe(net=net, epochs=max(1, min(50, 3000 // steps_of(split, once))))
    part = first_rows(split, SAMPLE_STEPS, once)
    sample = Recipe(net=net, epochs=max(1, SAMPLE_STEPS // steps_of(part, once)))
    arms: dict[str, Callable[[], float] | None] = {
        "kernel": engine_arm(split, whole, "kernel"),
        "batched": engine_arm(part, sample, "batched"),
        "plain": engine_arm(part, sample, "plain"),
        "jax": jax_arm(part, sample),
    }
    times: dict[str, list[float]] = {name: [] for name, arm in arms.items() if arm is not None}
    for _ in range(rounds):
        for name in times:
            arm = arms[name]
            assert arm is not None
            times[name].append(arm())
    speed = operations(split, whole) / statistics.median(times["kernel"]) / 1e9
    cells = [1e6 * statistics.median(times[name]) if name in times else math.nan for name in arms]
    return [
        speed,
        *cells,
        *(
            statistics.median(b / a for a, b in zip(times["kernel"], times[name], strict=True))
            if name in times
            else math.nan
            for name in list(arms)[1:]
        ),
    ]


def operations(split: Split, recipe: Recipe) -> float:
    """Return the floating-point operations of a step and its share of the evaluation: those with weights only."""
    sizes = recipe.sizes(split.features, split.classes)
    layers = [a * b for a, b in pairwise(sizes)]
    trained = 4 * sum(layers) + 2 * sum(layers[1:])  # forward and gradient; backward from the second layer on
    evaluated = 2 * sum(layers) * (len(split.y_val) + len(split.y_test)) / len(split.y_train)
    return (trained + evaluated) * len(split.y_train) / (steps_of(split, recipe) / recipe.epochs) + 4 * sum(layers)


def stack_cost(name: str, split: Split, net: str, rounds: int) -> str:
    """Return a line with the wall time of 360 members over that of 36, on all processors."""
    recipe = Recipe(net=net)
    ratios = []
    for _ in range(rounds):
        seconds = []
        for seeds in (2, 20):
            members = members_of(split, recipe, seeds)
            start = time.perf_counter()
            train_stack(members, recipe)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[1] / seconds[0])
    return f"{name} {net}: 360 members take {statistics.median(ratios):.2f} times as long as 36"


def on_gpu(split: Split, net: str, rounds: int) -> str:
    """Return microseconds of wall time for one network's step on both devices, and the median ratio."""
    part = first_rows(split, SAMPLE_STEPS, Recipe(net=net, epochs=1))
    recipe = Recipe(net=net, epochs=max(1, SAMPLE_STEPS // steps_of(part, Recipe(net=net, epochs=1))))
    members = members_of(part, recipe, seeds=14)
    taken: dict[str, list[float]] = {"cuda": [], "cpu": []}
    for round_number in range(rounds + 1):
        for device, times in taken.items():
            start = time.perf_counter()
            train_stack(members, recipe, device=device)
            if round_number:  # the first warms up
                times.append((time.perf_counter() - start) / len(members) / steps_of(part, recipe))
    ratio = statistics.median(a / b for a, b in zip(taken["cuda"], taken["cpu"], strict=True))
    return " ".join(f"{1e6 * statistics.median(times):9.3f}" for times in taken.values()) + f" {ratio:8.2f}"


def all_of_table4(data_dir: Path) -> list[float]:
    """Train all of Table 4, and return sets, minutes, core-minutes, networks and steps of a network."""
    start, cpu, steps, networks = time.perf_counter(), time.process_time(), 0, 0
    tasks, missing = uci_tasks(data_dir)
    for task in tasks:
        split = task.split(0)
        for net in ("linear", "mlp"):
            recipe = Recipe(net=net)
            members = members_of(split, recipe)
            train_stack(members, recipe)
            steps += len(members) * steps_of(split, recipe)
        networks += 2 * len(members)
    wall, core = time.perf_counter() - start, time.process_time() - cpu
    print(
        f"Table 4, {len(tasks)} sets (missing: {', '.join(missing) or 'none'}), 2 networks, 36 runs each, loading"
        f" included: {wall / 60:.2f} minutes of wall time, {core / 60:.2f} core-minutes, {steps / 1e6:.0f} million"
        f" model-steps, {1e6 * core / steps:.2f} us of a core each"
    )
    return [len(tasks), wall / 60, core / 60, networks, steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with the UCI sets; their shapes are random without it")
    parser.add_argument("--sets", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stack", action="store_true", help="cost of ten times the members")
    parser.add_argument("--all", action="store_true", help="time of all of Table 4; needs --data-dir")
    parser.add_argument("--output", type=Path, help="folder for the numbers")
    parser.add_argument("--cuda", action="store_true", help="the batched engine on a GPU beside the kernel, alone")
    options = parser.parse_args()
    if options.all and options.data_dir is None:
        parser.error("--all needs --data-dir, the folder with the UCI sets")
    torch.set_num_threads(1)
    warm = load("iris", None)[0]
    start = time.perf_counter()
    train_stack(members_of(warm, Recipe(epochs=1)), Recipe(epochs=1))
    print(f"first call, compilation or its cache included: {time.perf_counter() - start:.1f} s")
    if options.cuda:
        print(f"{torch.cuda.get_device_name()} beside {os.cpu_count()} processors: us of wall time, cuda / cpu")
        for name in options.sets:
            split, source = load(name, options.data_dir)
            for net in ("linear", "mlp"):
                print(f"{name:12} {net:6} {on_gpu(split, net, options.rounds)}   {source}", flush=True)
        return
    print(f"{'':28}us of one core for one network's step    | times the kernel's")
    print(
        f"{'set':12} {'net':6} {'Gflop/s':>7} {'kernel':>9} {'batched':>9} {'plain':>9} {'jax':>9} |"
        f" {'batched':>8} {'plain':>8} {'jax':>8}"
    )
    rows: list[list[object]] = []
    for name in options.sets:
        split, source = load(name, options.data_dir)
        for net in ("linear", "mlp"):
            found = compare(split, net, options.rounds)
            rows.append([name, net, source, *(f"{value:.4g}" for value in found)])
            shown = " ".join(f"{value:9.3f}" for value in found[1:5])
            ratios = " ".join(f"{value:8.0f}" for value in found[5:])
            print(f"{name:12} {net:6} {found[0]:7.1f} {shown} |{ratios}   {source}", flush=True)
    if options.stack:
        for name in ("iris", "digits"):
            for net in ("linear", "mlp"):
                print(stack_cost(name, load(name, options.data_dir)[0], net, options.rounds), flush=True)
    tables = {"steps": (STEPS, rows)}
    if options.all:
        whole = all_of_table4(options.data_dir)
        tables["table4"] = ("sets,minutes,core_minutes,networks,steps", [[f"{value:.6g}" for value in whole]])
    if options.output is not None:
        save(options.output, tables, threads=1)


if __name__ == "__main__":
    main()
