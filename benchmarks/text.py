"""Throughput of training LSTMs and BERTs.

    python benchmarks/text.py [--reviews reviews.csv] [--model FOLDER --data-dir DIR] [--rounds 3] [--threads 2]
                               [--seeds 2] [--output DIR]

lstm: networks * examples a second of training, of Table 3's architectures. One arm is ``train`` as a study calls
it, 4 methods x 2 seeds over ten epochs (preparation included, scoring of a few texts), which trains epochs that methods
share once; beside it eight networks that share nothing (CE with eight seeds, one epoch). The other is a clean loop that
trains them one by one with ``nn.LSTM`` and fused Adam on the same batches, made beforehand, timed on an epoch of one
network. All may use the same number of threads and take turns; printed are medians over the rounds and the median
ratios to the loop, by the clock and by processor time (which doesn't reward an arm for using all cores). The
fastest of the loop's variants (padded or packed, time or batch first, one thread or all) is found first and is then
the rival. Without ``--reviews`` (the CSV of Women's Clothing E-Commerce Reviews) texts of its lengths,
vocabulary and word frequencies are drawn at random.

BERT (with ``--model``): see ``text_bert.py`` beside this file.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import saved
from crossfade.lab.methods import method
from crossfade.lab.train.epochs import epoch_batches
from crossfade.lab.train.lstm.network import LstmClassifier, Texts
from crossfade.lab.train.lstm.recipe import LstmMember, LstmRecipe
from crossfade.lab.train.lstm.run import train
from crossfade.lab.train.lstm.tokens import TokenPart, TokenSplit, words

METHODS = ("ce", "f0", "f0-late", "gradual")
EPOCHS = 10
ARCHITECTURES = ((50, 1), (75, 1), (100, 1), (50, 2), (100, 2))
VARIANTS = ("batch first", "time first", "packed")
Batch = tuple[Tensor, Tensor, Tensor]


def texts(file: Path | None, examples: int) -> tuple[TokenSplit, str]:
    """Return a split with so many training examples, and where its texts are from."""
    generator = np.random.default_rng(0)
    if file is None:
        lengths = generator.integers(20, 101, examples + 128)
        tokens = np.minimum((8084 ** generator.random(lengths.sum())).astype(np.int32), 8083)  # Zipf's law
        labels, vocabulary, source = generator.integers(0, 5, len(lengths)), 8084, "random"
    else:
        with file.open(encoding="utf8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row["Review Text"].strip()]
        chosen = [rows[i] for i in generator.permutation(len(rows))]
        read = [words(row["Review Text"])[:128] or ["?"] for row in chosen]
        names, counts = np.unique([word for text in read for word in text], return_counts=True)
        numbers = {str(name): at for at, name in enumerate(names[counts >= 2], 1)}
        read = read[: examples + 128]
        lengths = np.array([len(text) for text in read])
        tokens = np.array([numbers.get(word, 0) for text in read for word in text], dtype=np.int32)
        labels = np.array([int(row["Rating"]) - 1 for row in chosen[: len(read)]])
        vocabulary, source = len(numbers) + 1, "reviews"
    offsets = np.concatenate([[0], np.cumsum(lengths)])

    def part(start: int, stop: int) -> TokenPart:
        first = offsets[start]
        return TokenPart(tokens[first : offsets[stop]], offsets[start : stop + 1] - first, labels[start:stop])

    whole = len(lengths)
    return TokenSplit(part(0, examples), part(examples, whole - 64), part(whole - 64, whole), vocabulary, 5), source


def padded(part: TokenPart, batch_size: int, device: str = "cpu") -> list[Batch]:
    """Return the batches of an epoch, on the device."""
    texts = Texts([part], torch.device(device))
    places = epoch_batches(0, 0, part.lengths, batch_size)
    return [texts.rows(torch.from_numpy(rows).to(device), int(part.lengths[rows].max())) for rows in places]


def one_by_one(
    split: TokenSplit, recipe: LstmRecipe, batches: list[Batch], variant: str, device: str = "cpu"
) -> Callable[[], None]:
    """Return a function that trains one network for an epoch of these batches, which are on the device."""
    net = LstmClassifier(split.vocabulary, split.classes, recipe).to(device)
    net.lstm.batch_first = variant != "time first"
    optimizer = torch.optim.Adam(net.parameters(), recipe.learning_rate, fused=True)
    on_host = [lengths.cpu() for _, lengths, _ in batches]

    def logits(tokens: Tensor, lengths: Tensor, known: Tensor) -> Tensor:
        rows = torch.arange(len(tokens), device=device)
        if variant == "packed":
            packed = torch.nn.utils.rnn.pack_padded_sequence(net.embedding(tokens), known, batch_first=True)
            last: Tensor = net.lstm(packed)[1][0][-1]
        elif variant == "time first":
            last = net.lstm(net.embedding(tokens.t()))[0][lengths - 1, rows]
        else:
            last = net.lstm(net.embedding(tokens))[0][rows, lengths - 1]
        out: Tensor = net.output(last)
        return out

    def run() -> None:
        for (tokens, lengths, target), known in zip(batches, on_host, strict=True):
            loss = F.cross_entropy(logits(tokens, lengths, known), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def both(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds; other work on the machine hardly changes the second."""
    start = time.process_time()
    wall = seconds(call)
    return wall, time.process_time() - start


def rival(split: TokenSplit, recipe: LstmRecipe, batches: list[Batch], threads: int) -> tuple[Callable[[], None], str]:
    """Return the fastest of the loop's variants, and its name."""
    found: dict[tuple[str, int], float] = {}
    for variant in VARIANTS:
        for count in sorted({1, threads}):
            torch.set_num_threads(count)
            run = one_by_one(split, recipe, batches[:6], variant)
            run()
            found[variant, count] = min(seconds(run), seconds(run))
    variant, count = min(found, key=lambda key: found[key])
    torch.set_num_threads(count)
    return one_by_one(split, recipe, batches, variant), f"{variant}, {count} thread{'s' * (count > 1)}"


def lstm(file: Path | None, rounds: int, threads: int, steps: int, seeds: int) -> list[list[object]]:
    """Print networks * examples a second of the arms for each architecture."""
    split, source = texts(file, 64 * steps)
    print(f"LSTM, {source}: {len(METHODS)} methods x {seeds} seeds, {threads} threads, torch {torch.__version__}")
    print("H = E layers      study    by CPU  share nothing   one by one   the loop's fastest variant")
    rows: list[list[object]] = []
    for hidden, layers in ARCHITECTURES:
        recipe = LstmRecipe(hidden, hidden, layers, epochs=EPOCHS, granularity="step")
        once = replace(recipe, epochs=1)
        members = [LstmMember(split, method(name), seed) for name in METHODS for seed in range(seeds)]
        strangers = [LstmMember(split, method("ce"), seed) for seed in range(len(members))]
        batches = padded(split.train, recipe.batch_size)
        run, variant = rival(split, recipe, batches, threads)
        train(members[:1], once, threads=threads)  # what PyTorch prepares at a first call
        arms: dict[str, tuple[Callable[[], object], int]] = {
            "study": (partial(train, members, recipe, threads=threads), EPOCHS * len(members)),
            "strangers": (partial(train, strangers, once, threads=threads), len(members)),
            "loop": (run, 1),
        }
        speeds: dict[str, list[tuple[float, ...]]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name, (call, epochs) in arms.items():
                speeds[name].append(tuple(epochs * len(split.train) / taken for taken in both(call)))
        rows.append([hidden, layers, *_against_loop(speeds), variant])
        study, alone, loop, ratio, by_cpu, ratio_alone = rows[-1][2:-1]
        shown = f"{study:>6} {ratio:>5} {by_cpu:>7} {alone:>7} {ratio_alone:>5} {loop:>12}"
        print(f"{hidden:5} {layers:6} {shown}   {variant}", flush=True)
    whole = [sum(1 / float(str(row[at])) for row in rows) for at in (4, 2)]
    print(f"all architectures together: {whole[0] / whole[1]:.1f} times the loop")
    return rows


def _against_loop(speeds: dict[str, list[tuple[float, ...]]]) -> list[str]:
    """Return the three arms' speeds, the study's ratio by both clocks, and that of networks that share nothing."""

    def ratio(arm: str, clock: int) -> str:
        pairs = zip(speeds[arm], speeds["loop"], strict=True)
        return f"{statistics.median(ours[clock] / theirs[clock] for ours, theirs in pairs):.2f}"

    wall = [f"{statistics.median(one[0] for one in arm):.0f}" for arm in speeds.values()]
    return [*wall, ratio("study", 0), ratio("study", 1), ratio("strangers", 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, help="CSV with the columns Review Text and Rating")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25, help="batches of 64 texts in an epoch")
    parser.add_argument("--seeds", type=int, default=2, help="networks of each method")
    parser.add_argument("--model", help="a BERT, by its folder or its name on the hub")
    parser.add_argument("--data-dir", type=Path, default=Path(), help="has glue/CoLA and glue/RTE")
    parser.add_argument("--examples", type=int, default=256, help="for BERT")
    parser.add_argument("--only", choices=("lstm", "bert"))
    parser.add_argument("--output", type=Path, help="folder for the rows")
    options = parser.parse_args()
    tables: dict[str, tuple[str, list[list[object]]]] = {}
    if options.model and options.only != "lstm":
        from text_bert import bert

        rows = bert(options.model, options.data_dir, options.rounds, options.threads, options.examples)
        tables["bert"] = ("task,arm,examples_per_second,time_to_lab", rows)
    if options.only != "bert":
        rows = lstm(options.reviews, options.rounds, options.threads, options.steps, options.seeds)
        tables["lstm"] = (
            "hidden,layers,study,strangers,one_by_one,ratio,ratio_by_cpu,ratio_of_strangers,variant",
            rows,
        )
    if options.output:
        saved.save(options.output, tables, threads=options.threads)


if __name__ == "__main__":
    main()
