"""BERT fine-tuning through the lab against the Hugging Face Trainer at the same settings; see `benchmarks/text.py`.

Both train the same model on the same examples: AdamW, a rate falling to zero, gradient norm at most 1, length 64, the
same batch size, dynamic padding. The Trainer runs with its defaults (batches of random examples) and grouped by length;
the lab sorts within windows of 50 batches. Time is from the first to the last step, without loading or scoring.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from crossfade.lab.data.texts import GLUE, TextTask, load_glue
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import method
from crossfade.lab.train.deep.lightning import train
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import TextRecipe
from crossfade.lab.train.deep.side_by_side import train_side_by_side


class _LabClock(pl.Callback):  # type: ignore[misc]
    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seconds = time.perf_counter() - self.start


class _TrainerClock(TrainerCallback):  # type: ignore[misc]
    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == 0:
            self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def lab(split: Any, recipe: TextRecipe) -> float:
    """Return the seconds of an epoch under F=0-0.5."""
    clock = _LabClock()
    train(Job(split, method("gradual"), 0), recipe, hardware=Hardware(accelerator="cpu"), callbacks=[clock])
    return clock.seconds


def side_by_side(split: Any, recipe: TextRecipe, networks: int) -> float:
    """Return the seconds on a GPU of that many networks under CE and F=0-0.5, everything included."""
    jobs = [Job(split, method(("ce", "gradual")[at % 2]), at // 2) for at in range(networks)]
    start = time.perf_counter()
    train_side_by_side(jobs, recipe, hardware=Hardware())
    return time.perf_counter() - start


def trainer(split: Any, recipe: TextRecipe, sampling: str) -> float:
    """Return the seconds of training under CE."""
    tokenizer = AutoTokenizer.from_pretrained(recipe.model)
    net = AutoModelForSequenceClassification.from_pretrained(recipe.model, num_labels=split.classes)
    part, clock = split.train, _TrainerClock()
    tokens = tokenizer(
        list(part.texts), None if part.seconds is None else list(part.seconds), truncation=True,
        max_length=recipe.max_length,
    )  # fmt: skip
    rows = [
        {
            **{name: values[at] for name, values in tokens.items()},
            "length": len(tokens["input_ids"][at]),
            "labels": label,
        }
        for at, label in enumerate(part.labels.tolist())
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, num_train_epochs=recipe.epochs, per_device_train_batch_size=recipe.batch_size,
            use_cpu=not torch.cuda.is_available(), bf16=recipe.precision == "bf16-mixed",
            learning_rate=recipe.learning_rate, report_to=[], save_strategy="no", logging_strategy="no",
            disable_tqdm=True, train_sampling_strategy=sampling, dataloader_pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        Trainer(
            net, settings, data_collator=DataCollatorWithPadding(tokenizer), train_dataset=rows, callbacks=[clock]
        ).train()
    return clock.seconds


def bert(model: str, data_dir: Path, rounds: int, threads: int, examples: int) -> list[list[object]]:
    """Print examples/s of every arm for a task of single sentences and one of pairs."""
    torch.set_num_threads(threads)
    print(f"BERT ({TextRecipe(model).net}), {threads} threads, batch 32, length 64, examples/s, medians of {rounds}")
    rows: list[list[object]] = []
    for name in ("CoLA", "RTE"):
        data = load_glue(next(task for task in GLUE if task.name == name), data_dir)
        split = TextTask(data, "last", limit=examples).split(0)
        recipe = TextRecipe(model, epochs=1)
        arms = {
            "lab": lambda split=split, recipe=recipe: lab(split, recipe),
            "Trainer": lambda split=split, recipe=recipe: trainer(split, recipe, "random"),
            "Trainer, by length": lambda split=split, recipe=recipe: trainer(split, recipe, "group_by_length"),
        }
        taken: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(rounds):
            for arm, run in arms.items():
                taken[arm].append(run())
        rows += _printed(name, {arm: [seconds / len(split.train) for seconds in taken[arm]] for arm in arms})
    return rows


def bert_gpu(model: str, data_dir: Path, rounds: int, examples: int, networks: int) -> list[list[object]]:
    """As :func:`bert` on a GPU in bfloat16: networks * examples a second of three epochs.

    The lab's arms include reading the model, the capture of the graphs and scoring after each epoch.
    """
    device = torch.cuda.get_device_name()
    print(f"BERT ({TextRecipe(model).net}), {device}, bf16, batch 32, length 64, medians of {rounds}")
    rows: list[list[object]] = []
    for name in ("CoLA", "RTE"):
        data = load_glue(next(task for task in GLUE if task.name == name), data_dir)
        split = TextTask(data, "last", limit=examples).split(0)
        recipe = TextRecipe(model, epochs=3, precision="bf16-mixed")
        arms = {f"lab, {networks} side by side": networks, "lab, alone": 1, "Trainer": 0}
        taken: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(rounds):
            for arm, count in arms.items():
                seconds = side_by_side(split, recipe, count) if count else trainer(split, recipe, "random")
                taken[arm].append(seconds / (max(count, 1) * recipe.epochs * len(split.train)))
        rows += _printed(name, taken)
    return rows


def _printed(task: str, taken: dict[str, list[float]]) -> list[list[object]]:
    """Print and return each arm's examples a second and its time over the first's, from seconds for one example."""
    rows: list[list[object]] = []
    first = next(iter(taken.values()))
    for arm, times in taken.items():
        ratio = statistics.median(own / other for own, other in zip(times, first, strict=True))
        print(f"  {task:5} {arm:22} {1 / statistics.median(times):8.1f}   time over ours {ratio:5.2f}", flush=True)
        rows.append([task, arm, f"{1 / statistics.median(times):.1f}", f"{ratio:.2f}"])
    return rows
