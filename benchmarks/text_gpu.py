"""Throughput of the LSTM study on a GPU.

    python benchmarks/text_gpu.py [--reviews reviews.csv] [--rounds 3] [--steps 283] [--epochs 2]
                                  [--model FOLDER --data-dir DIR] [--output DIR]

LSTMs: networks * examples a second of training, of Table 3's architectures. One arm is ``train`` as a study calls
it, 4 methods x 8 seeds, everything included (orders, capture of graphs, scoring after each epoch). The other is a clean
loop that trains one network after the other with ``nn.LSTM`` and fused Adam, on the same batches, which are on the GPU
already, without reading the loss; it is timed on an epoch. Its fastest variant (padded or packed, time or batch
first) is measured first, and that one is the rival. The arms take turns; printed are medians over the rounds and
the median ratio. Both have TF32 products, cuDNN's default. Texts as for ``benchmarks/text.py``.

BERT (with ``--model``): see ``bert_gpu`` in ``text_bert.py``.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path

import torch

import saved
from crossfade.lab.methods import method
from crossfade.lab.train.lstm.recipe import LstmMember, LstmRecipe
from crossfade.lab.train.lstm.run import train
from text import ARCHITECTURES, METHODS, VARIANTS, one_by_one, padded, seconds, texts

SEEDS = 8


def lstm(file: Path | None, rounds: int, steps: int, epochs: int) -> list[list[object]]:
    """Print networks * examples a second of both arms for each architecture."""
    split, source = texts(file, 64 * steps)
    print(
        f"LSTM, {source}: {len(METHODS)} methods x {SEEDS} seeds, {saved.capability('cuda')}, torch {torch.__version__}"
    )
    print("H = E layers      study   one by one   ratio   the loop's fastest variant")
    rows: list[list[object]] = []
    for hidden, layers in ARCHITECTURES:
        recipe = LstmRecipe(hidden, hidden, layers, epochs=epochs, granularity="step")
        members = [LstmMember(split, method(name), seed) for name in METHODS for seed in range(SEEDS)]
        batches = padded(split.train, recipe.batch_size, "cuda")
        found = {}
        for variant in VARIANTS:
            run = one_by_one(split, recipe, batches[:40], variant, "cuda")
            run()
            found[variant] = min(seconds(run), seconds(run))
        variant = min(found, key=lambda name: found[name])
        study = partial(train, members, recipe, device="cuda")
        train(members[:1], recipe, device="cuda")  # compilation
        loop = one_by_one(split, recipe, batches, variant, "cuda")
        loop()
        speeds = []
        for _ in range(rounds):
            ours = epochs * len(members) * len(split.train) / seconds(study)
            speeds.append((ours, len(split.train) / seconds(loop)))
        ratio = statistics.median(ours / theirs for ours, theirs in speeds)
        mine, other = (statistics.median(each) for each in zip(*speeds, strict=True))
        rows.append([hidden, layers, f"{mine:.0f}", f"{other:.0f}", f"{ratio:.1f}", variant])
        print(f"{hidden:5} {layers:6} {mine:10.0f} {other:12.0f} {ratio:7.1f}   {variant}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, help="CSV with the columns Review Text and Rating")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=283, help="batches of 64 texts in an epoch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--model", help="a BERT, by its folder or its name on the hub")
    parser.add_argument("--data-dir", type=Path, default=Path(), help="has glue/CoLA and glue/RTE")
    parser.add_argument("--examples", type=int, default=2_000, help="for BERT")
    parser.add_argument("--networks", type=int, default=8, help="for BERT, side by side")
    parser.add_argument("--only", choices=("lstm", "bert"))
    parser.add_argument("--output", type=Path, help="folder for the rows")
    options = parser.parse_args()
    tables: dict[str, tuple[str, list[list[object]]]] = {}
    if options.only != "bert":
        rows = lstm(options.reviews, options.rounds, options.steps, options.epochs)
        tables["lstm_gpu"] = ("hidden,layers,study,one_by_one,ratio,variant", rows)
    if options.model and options.only != "lstm":
        from text_bert import bert_gpu

        rows = bert_gpu(options.model, options.data_dir, options.rounds, options.examples, options.networks)
        tables["bert_gpu"] = ("task,arm,examples_per_second,time_to_lab", rows)
    if options.output:
        saved.save(options.output, tables, capability=saved.capability("cuda"))


if __name__ == "__main__":
    main()
