"""Every Python block on the integrations' pages runs as printed, with small models and data for the reader's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import crossfade

DOCS = Path(__file__).parents[2] / "docs"


def classifier() -> dict[str, Any]:
    """Return the names that a plain loop uses: a model, batches, an optimizer, its progress."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    loader = [(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(2)]
    return {
        "torch": torch, "model": model, "loader": loader, "inputs": loader[0][0], "target": loader[0][1],
        "val_inputs": loader[1][0], "val_target": loader[1][1],
        "logits": torch.randn(8, 3, requires_grad=True), "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "criterion": crossfade.CrossfadeLoss(), "start": 0, "epochs": 2, "step": 1, "total_steps": 4,
    }  # fmt: skip


def accelerate() -> dict[str, Any]:
    package = pytest.importorskip("accelerate")
    package.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = package.Accelerator(cpu=True, gradient_accumulation_steps=2)
    own = classifier()
    own["model"], own["optimizer"] = accelerator.prepare(own["model"], own["optimizer"])
    return own | {"accelerator": accelerator, "micro_batches": own["loader"]}


def lightning() -> dict[str, Any]:
    pytest.importorskip("lightning")
    return {}


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, **ids))


def trainer() -> dict[str, Any]:
    package = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    args = package.TrainingArguments(use_cpu=True, report_to=[], max_steps=1, save_strategy="no", disable_tqdm=True)
    row = {"input_ids": torch.arange(6), "labels": torch.arange(6)}
    return {"model": llama(), "args": args, "dataset": [row] * 8, "blocks": [row] * 8}


def trl() -> dict[str, Any]:
    pytest.importorskip("trl")
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", "one", "two", "three"]
    tokens = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    rows = [{"prompt": "one two ", "completion": "three two"}] * 8
    return {
        "model": llama(),
        "tokenizer": PreTrainedTokenizerFast(tokenizer_object=tokens, **special),
        "dataset": Dataset.from_list(rows),
    }


def sklearn() -> dict[str, Any]:
    pytest.importorskip("skorch")
    data = classifier()["loader"]
    inputs, target = (torch.cat(parts).numpy() for parts in zip(*data * 4, strict=True))
    return {"X": inputs, "y": target, "w": abs(inputs[:, 0]) + 0.1, "MyModule": lambda: nn.Linear(4, 3)}


def timm() -> dict[str, Any]:
    pytest.importorskip("timm")
    return classifier() | {
        "mixup_active": True, "args": SimpleNamespace(smoothing=0.1), "start_epoch": 0, "num_epochs": 2,
        "mixup_fn": lambda x, y: (x, nn.functional.one_hot(y, 3).float()),
    }  # fmt: skip


def torchvision() -> dict[str, Any]:
    own = classifier()

    def train_one_epoch(model: Any, criterion: Any, optimizer: Any, *_: Any) -> None:
        criterion(model(own["inputs"]), own["target"]).backward()

    args = SimpleNamespace(label_smoothing=0.1, start_epoch=0, epochs=2)
    unused = dict.fromkeys(("data_loader", "device", "model_ema", "scaler"))
    return own | unused | {"args": args, "train_one_epoch": train_one_epoch}


def vocabulary() -> dict[str, Any]:
    model = SimpleNamespace(backbone=nn.Embedding(20, 4), lm_head=nn.Linear(4, 20))
    tokens, hidden = torch.randint(20, (2, 5)), torch.randn(2, 5, 4)
    shown = {"hidden": hidden, "lm_head": model.lm_head, "target": tokens, "logits": torch.randn(2, 20, 5)}
    return {"model": model, "tokens": tokens, "step": 1, "total_steps": 4, **shown}


PAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "integrations/plain-loop.md": classifier,
    "integrations/lightning.md": lightning,
    "integrations/huggingface.md": trainer,
    "integrations/trl.md": trl,
    "integrations/scikit-learn.md": sklearn,
    "integrations/timm.md": timm,
    "integrations/torchvision.md": torchvision,
    "integrations/accelerate.md": accelerate,
    "integrations/migrating.md": classifier,
    "large-vocabularies.md": vocabulary,
    "cards/objectives.md": vocabulary,
}
# Several processes (tests/distributed), and a GPU (tests/kernels).
ELSEWHERE = ("with loss_parallel():", "weight = distribute_tensor(", "from crossfade.kernels import ce_rows")
# TRL computes in bfloat16 by default.
CPU = {"SFTConfig(packing=True": "SFTConfig(use_cpu=True, bf16=False, report_to=[], max_steps=1, packing=True"}


def test_each_page_is_listed() -> None:
    with_code = {p for p in (DOCS / "integrations").glob("*.md") if "```python" in p.read_text()}
    assert {DOCS / page for page in PAGES} == {*with_code, DOCS / "large-vocabularies.md", DOCS / "cards/objectives.md"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore")
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    names = PAGES[page]()
    ran = 0
    for block in blocks:
        if block.startswith(ELSEWHERE):
            continue
        for written, runnable in CPU.items():
            block = block.replace(written, runnable)
        exec(compile(block, page, "exec"), names)
        ran += 1
    assert ran
    built = names.get("trainer")
    if built is not None and "dataset" in names:  # Hugging Face's and TRL's: a step of it, too
        assert math.isfinite(built.train().training_loss)
    if "loss" in names:
        assert names["loss"].isfinite()
