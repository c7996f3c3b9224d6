"""Every command and every line of Python in the guides runs, on the small data of tests/kept/inputs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from crossfade.cli import COMMANDS, _app

ROOT = Path(__file__).parents[2]
GUIDES = {path.stem: path.read_text() for path in (ROOT / "docs" / "guides").glob("*.md") if path.stem != "index"}
INPUTS = ROOT / "tests" / "kept" / "inputs"
SCREEN = 60  # lines

# What makes a command short, by the first words that it matches.
SHORTER = {
    "compare reviews.csv": "--epochs 1 --repeats 2 --batch-size 32 --max-length 32 -q",
    "compare photos": "--epochs 1 --repeats 2 --image-size 8 --net resnet8 -q",
    "compare": "--epochs 2 --repeats 2 --learning-rates 0.01 -q",
    "run table4": "--sets balloons,lenses -q",
}
# Read by the command line's parser, but run elsewhere: what needs a network, processes, or time.
ELSEWHERE = {
    "--download": "tests/lab/test_download.py",
    "--devices": "tests/images/test_processes.py",
    "--ray": "tests/lab/test_ray.py",
    "motivating": "tests/images/test_studies.py",
    "examples/plain_loop.py": "tests/integrations/test_examples.py",
    "examples/ddp.py": "tests/integrations/test_examples.py",
}


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDES[guide], re.DOTALL)


def commands(guide: str) -> list[list[str]]:
    """Return the words of each command on a guide."""
    lines = [line for block in blocks(guide, "console") for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [shlex.split(line[2:]) for line in lines]


def names() -> dict[str, Any]:
    """Return what the reader has: logits and targets, a model, batches, tokens."""
    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(2)]
    model = nn.Linear(4, 3)
    X, y = load_iris(return_X_y=True)
    held_out = {"val_logits": torch.randn(40, 3), "val_target": torch.randint(3, (40,))}
    held_out |= {"test_logits": torch.randn(40, 3), "test_target": torch.randint(3, (40,))}
    return held_out | {
        "loader": batches, "inputs": batches[0][0], "target": batches[0][1], "logits": torch.randn(8, 3), "X": X,
        "y": y, "model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "step": 1, "total_steps": 4,
    }  # fmt: skip


def language_model() -> dict[str, Any]:
    model = SimpleNamespace(backbone=nn.Embedding(20, 4), lm_head=nn.Linear(4, 20))
    return {"model": model, "tokens": torch.randint(20, (2, 5))}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the guides name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSFADE_DATA", str(INPUTS))
    plants = pd.read_csv(INPUTS / "plants.csv").rename(columns={"kind": "label"})
    plants.to_csv("data.csv", index=False)
    plants[:60].to_csv("clean.csv", index=False)
    remarks = pd.read_csv(INPUTS / "remarks.csv").rename(columns={"remark": "Review Text", "about": "Rating"})
    remarks.to_csv("reviews.csv", index=False)
    scores = pd.read_csv(INPUTS / "scores.csv").replace({"dataset": {"set0": "wine"}})
    scores.rename(columns={"method": "loss", "repeat": "seed"}).to_csv("scores.csv", index=False)
    answers = [(f"q{k}", model, int(np.sin(k * (3 + len(model))) > 0)) for k in range(20) for model in ("a", "bb")]
    pd.DataFrame(answers, columns=["question", "model", "right"]).to_csv("answers.csv", index=False)
    shutil.copytree(INPUTS / "shapes", "photos")
    shutil.copytree(INPUTS / "tiny-bert", "bert-base-uncased")
    for block in blocks("own-loss", "python"):
        if block.startswith("# mine.py"):
            Path("mine.py").write_text(block)
    return tmp_path


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.filterwarnings("ignore")
def test_commands_and_blocks_run(guide, place, call):
    """In the order of the page: first its commands, whose files its Python may read."""
    for words in commands(guide):
        if any(word in ELSEWHERE for word in words):
            continue
        assert words.pop(0) == "crossfade"
        text = " ".join(words)
        short = next((more for start, more in SHORTER.items() if text.startswith(start)), "")
        if text.startswith("run table4") and "--data-dir" in text:
            words[words.index("--data-dir") + 1] = str(INPUTS)
        status, _, error = call(*words, *short.split())
        assert status == 0, f"crossfade {text}: {error}"
    known = names() | (language_model() if guide == "vocabularies" else {})
    for block in blocks(guide, "python"):
        if not block.startswith("# mine.py"):
            exec(compile(block, guide, "exec"), known)


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_have_the_options_that_they_name(guide):
    for words in commands(guide):
        if "crossfade" in words:
            words = words[words.index("crossfade") + 1 :]
            _app(called=words).parse_args(words, exit_on_error=False, print_error=False)
        else:
            assert (ROOT / next(word for word in words if word.endswith(".py"))).exists()


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_fits_on_one_screen(guide):
    assert GUIDES[guide].count("\n") <= SCREEN
    assert f"({guide}.md)" in (ROOT / "docs" / "guides" / "index.md").read_text()


def test_what_runs_elsewhere_has_its_test():
    assert all((ROOT / file).exists() for file in ELSEWHERE.values())


def test_every_command_stands_in_a_guide():
    text = " ".join(GUIDES.values())
    assert not [name for name in (*COMMANDS, "run") if f"crossfade {name}" not in text]
    for word in ("--ray", "--keep-weights", "load_model", "--logger", "torchrun", "--backup", "--curves"):
        assert word in text
