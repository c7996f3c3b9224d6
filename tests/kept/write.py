"""Write everything that this folder keeps: ``python -m tests.kept.write`` from the repository's root.

The README names the commit whose code wrote what is kept. Where later code writes other numbers, it changes what users
get.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from crossfade.lab.provenance import commit, versions
from tests.kept.cases import CASES, HERE, INPUTS, SINCE, machine

WORDS = {
    "garden": ["rose", "soil", "leaf", "bloom", "seed", "water", "root", "shade", "pot", "summer", "green", "bed"],
    "kitchen": ["pan", "salt", "oven", "dough", "knife", "spoon", "oil", "bake", "taste", "warm", "bread", "bowl"],
    "harbour": ["boat", "rope", "sail", "wave", "tide", "anchor", "gull", "deck", "storm", "pier", "net", "salt"],
}
FILLERS = ["the", "a", "of", "with", "and", "very", "quite", "is", "was", "not", "there", "again"]


def main() -> None:
    """Write the inputs, run every command on them, and keep what came out."""
    if not INPUTS.exists():
        write_inputs()
    with tempfile.TemporaryDirectory() as name:
        for case, command in CASES.items():
            run(case, [*command, *SINCE.get(case, [])], Path(name) / case)
    note = {"commit": commit(), "machine": machine(), "versions": versions()}
    (HERE / "written.json").write_text(json.dumps(note, indent=1) + "\n")


def run(case: str, command: list[str], place: Path) -> None:
    """Keep a command's store, standard output, JSON and exports."""
    shutil.copytree(INPUTS, place)
    kept = HERE / case
    kept.mkdir(exist_ok=True)
    (kept / "stdout.txt").write_text(crossfade(place, *command))
    if (place / "store.db").exists():
        crossfade(place, "export", "results.csv", "--store", "store.db")
        crossfade(place, "export", "curves.csv", "--store", "store.db", "--curves")
    for file in ("store.db", "answer.json", "results.csv", "curves.csv"):
        if (place / file).exists():
            shutil.copy(place / file, kept / file)


def crossfade(place: Path, *command: str) -> str:
    """Run one command in a process of its own; return its standard output."""
    paths = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-m", "crossfade", *command], cwd=place, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"crossfade {' '.join(command)}: {done.stderr}")
    return done.stdout


def write_inputs() -> None:
    """Write small synthetic data sets in the layouts that the commands read."""
    INPUTS.mkdir()
    random = np.random.default_rng(20)
    (INPUTS / "kept_loss.py").write_text(
        '"""A loss of a user\'s own."""\n\nimport torch\n\n\ndef squared(ce):\n    return torch.expm1(-ce) ** 2\n'
    )
    plants(random).to_csv(INPUTS / "plants.csv", index=False)
    remarks(random, 90).to_csv(INPUTS / "remarks.csv", index=False)
    write_reviews(random)
    write_pairs(random)
    write_uci(random)
    write_shapes(random)
    write_bert()
    write_cifar100()
    scores(random).to_csv(INPUTS / "scores.csv", index=False)


def plants(random: np.random.Generator) -> pd.DataFrame:
    """Return a table with numbers, a column of categories, and missing values in both."""
    kind = random.permutation(np.arange(120) % 3)
    frame = pd.DataFrame(
        {
            "height": (10 + 3 * kind + random.normal(0, 2.5, 120)).round(2),
            "width": (5 - kind + random.normal(0, 1.5, 120)).round(2),
            "age": random.integers(1, 9, 120).astype(float),
            "soil": np.where(random.random(120) < 0.7, np.array(["clay", "sand", "peat"])[kind], "loam"),
            "kind": np.array(["fern", "moss", "reed"])[kind],
        }
    )
    frame.loc[random.choice(120, 9, replace=False), "age"] = np.nan
    frame.loc[random.choice(120, 6, replace=False), "soil"] = None
    return frame


def sentence(random: np.random.Generator, about: str) -> str:
    """Return a few words, a third of them about something."""
    length = int(random.integers(5, 13))
    own = random.random(length) < 0.35
    return " ".join(str(random.choice(WORDS[about] if mine else FILLERS)) for mine in own)


def remarks(random: np.random.Generator, count: int) -> pd.DataFrame:
    """Return a table of texts with a class each."""
    about = [list(WORDS)[at % len(WORDS)] for at in range(count)]
    return pd.DataFrame({"remark": [sentence(random, name) for name in about], "about": about})


def write_reviews(random: np.random.Generator) -> None:
    """Write reviews with a rating from 1 to 5, two of them without a text."""
    names, rows = list(WORDS), []
    for at in range(150):
        rating = at % 5 + 1
        text = f"{sentence(random, names[rating % 3])} {'good' if rating > 3 else 'bad'}!"
        rows.append({"Clothing ID": 1000 + at, "Review Text": text, "Rating": rating})
    frame = pd.DataFrame(rows)
    frame.loc[[7, 31], "Review Text"] = None
    (INPUTS / "reviews").mkdir()
    frame.to_csv(INPUTS / "reviews" / "Reviews.csv", index=False)


def write_pairs(random: np.random.Generator) -> None:
    """Write two of GLUE's tasks on pairs of sentences."""
    names = list(WORDS)
    for task, labels in (("RTE", ("entailment", "not_entailment")), ("WNLI", ("1", "0"))):
        folder = INPUTS / "glue" / task
        folder.mkdir(parents=True)
        for part, count in (("train", 60), ("dev", 24)):
            lines = ["index\tsentence1\tsentence2\tlabel"]
            for at in range(count):
                first, second = names[at % 3], names[(at + at // 3 % 2) % 3]
                label = labels[int(first != second)]
                lines.append(f"{at}\t{sentence(random, first)}\t{sentence(random, second)}\t{label}")
            (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n")


def write_uci(random: np.random.Generator) -> None:
    """Write two sets in the layout of the published UCI archive."""
    for name, rows, width, classes in (("balloons", 64, 4, 2), ("lenses", 60, 3, 3)):
        y = random.permutation(np.arange(rows) % classes)
        x = random.normal(0, 1, (rows, width)) + 0.8 * np.eye(classes, width)[y]
        test = (random.random((rows, 4)) < 0.25).astype(int)
        validation = ((random.random((rows, 4)) < 0.25) & (test == 0)).astype(int)
        place = INPUTS / "uci121" / name
        place.mkdir(parents=True)
        np.savetxt(place / f"{name}_py.dat", x, delimiter=",", fmt="%.4f")
        np.savetxt(place / "labels_py.dat", y, fmt="%d")
        np.savetxt(place / "folds_py.dat", test, delimiter=",", fmt="%d")
        np.savetxt(place / "validation_folds_py.dat", validation, delimiter=",", fmt="%d")


def write_shapes(random: np.random.Generator) -> None:
    """Write a folder of class folders with 16 x 16 pixels an image."""
    for number, name in enumerate(("cross", "disc", "stripes")):
        (INPUTS / "shapes" / name).mkdir(parents=True)
        for at in range(12):
            y, x = np.mgrid[:16, :16] - random.integers(6, 10, 2)[:, None, None]
            drawn = ((abs(x) < 2) | (abs(y) < 2), x * x + y * y < 25, y % 4 < 2)[number]
            colours = random.integers(0, 256, (2, 3))
            pixels = np.where(drawn[..., None], colours[0], colours[1]).astype(np.uint8)
            Image.fromarray(pixels).save(INPUTS / "shapes" / name / f"{at:02}.png", optimize=True)


def write_bert() -> None:
    """Write a BERT with random weights and its tokenizer."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for some in (*WORDS.values(), FILLERS) for word in some})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(vocab={token: at for at, token in enumerate(vocabulary)})._tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    ).save_pretrained(INPUTS / "tiny-bert")
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(INPUTS / "tiny-bert")


def write_cifar100() -> None:
    """Write as many images as CIFAR-100 has, one colour a class, so plain that nearly nothing of their size is left."""
    parts = {}
    for part, each in (("train", 500), ("test", 100)):
        labels = np.repeat(np.arange(100), each)
        images = np.zeros((len(labels), 32, 32, 3), dtype=np.uint8)
        images[..., 0] = (labels % 10 * 25)[:, None, None]
        images[..., 1] = (labels // 10 * 25)[:, None, None]
        # Every third image is another one, by a dot: above in the training part, below in the test part.
        count = np.arange(len(labels)) % each // 3
        images[:, 1 if part == "train" else 30, 8, 2] = 255 - count
        parts |= {f"x_{part}": images, f"y_{part}": labels.astype(np.uint8)}
    np.savez_compressed(INPUTS / "cifar100.npz", **parts)


def scores(random: np.random.Generator) -> pd.DataFrame:
    """Return results of four methods on nine data sets, two repeats each, with ties."""
    rows = [
        {"dataset": f"set{at}", "method": name, "repeat": repeat, "accuracy": score}
        for at in range(9)
        for repeat in range(2)
        for name, gain in (("ce", 0.0), ("f0", 0.01), ("gradual", 0.02), ("el", -0.05))
        for score in [round(0.6 + 0.03 * at + gain + random.normal(0, 0.015), 2)]
    ]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
