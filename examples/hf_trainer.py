"""Hugging Face Trainer: a small BERT, from scratch, tells where a line of text comes from.

Classes: the Python reference, torch's documentation, torch's C++ headers.

    python examples/hf_trainer.py
"""

import argparse
import random
import tempfile

import texts
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from crossfade import CrossfadeLoss, gradual
from crossfade.integrations.transformers import CrossfadeCallback

LENGTH = 64


def lines(documents: list[str], label: int, count: int) -> list[dict]:
    """Return lines as bytes (token = byte + 1, 0 pads)."""
    found = [line.strip() for text in documents for line in text.splitlines()]
    chosen = random.Random(0).sample([line for line in found if len(line) > 20], count)
    return [{"input_ids": list(line.encode("utf-8")[:LENGTH]), "labels": label} for line in chosen]


def collate(rows: list[dict]) -> dict:
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    tokens = torch.tensor(
        [[byte + 1 for byte in row["input_ids"]] + [0] * (width - len(row["input_ids"])) for row in rows]
    )
    return {
        "input_ids": tokens,
        "attention_mask": (tokens > 0).long(),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--smoke", action="store_true", help="a few steps")
args = parser.parse_args()
count = 100 if args.smoke else 1000
data = [
    row
    for label, source in enumerate((texts.reference, texts.torch_docs, texts.headers))
    for row in lines(source(), label, count)
]
random.Random(0).shuffle(data)
held_out = len(data) // 5

config = BertConfig(
    vocab_size=257, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, num_labels=3,
    max_position_embeddings=LENGTH,
)  # fmt: skip
fade = CrossfadeCallback(CrossfadeLoss(gradual()))
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        BertForSequenceClassification(config),
        TrainingArguments(
            output_dir=folder, num_train_epochs=1 if args.smoke else args.epochs, per_device_train_batch_size=16,
            gradient_accumulation_steps=2, learning_rate=1e-3, report_to=[], disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=data[held_out:],
        eval_dataset=data[:held_out],
        data_collator=collate,
        compute_metrics=lambda outcome: {"accuracy": (outcome.predictions.argmax(1) == outcome.label_ids).mean()},
        callbacks=[fade],
        compute_loss_func=fade.compute_loss,
    )  # fmt: skip
    trainer.train()
    print(f"held-out accuracy {trainer.evaluate()['eval_accuracy']:.4f}")
