"""Accelerate with gradient accumulation on token labels: the mean is over the targets of the whole optimizer step.

Micro-batches and processes hold different numbers of targets (padding), so a mean of means would be wrong.

    accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py
"""

import argparse
import itertools
import random

import texts
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from crossfade import CrossfadeLoss, gradual
from crossfade.integrations.distributed import global_count, global_mean

ACCUMULATE = 2


class Tagger(nn.Module):
    """A classifier of bytes in two classes: part of an identifier that is followed by a bracket, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(257, 32, padding_idx=0)
        self.read = nn.GRU(32, 32, batch_first=True, bidirectional=True)
        self.classify = nn.Linear(64, 2)

    def forward(self, tokens):
        return self.classify(self.read(self.embed(tokens))[0]).movedim(-1, 1)  # (N, C, T), as cross entropy wants


def example(line: str) -> tuple[torch.Tensor, torch.Tensor]:
    import re

    encoded = line.encode("utf-8")
    labels = torch.zeros(len(encoded), dtype=torch.long)
    for match in re.finditer(rb"\w+(?=\()", encoded):
        labels[match.start() : match.end()] = 1
    return torch.tensor(list(encoded)) + 1, labels


def collate(rows):
    tokens, labels = zip(*rows, strict=True)
    return pad_sequence(tokens, batch_first=True), pad_sequence(labels, batch_first=True, padding_value=-100)


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--smoke", action="store_true", help="a few steps")
args = parser.parse_args()
epochs = 1 if args.smoke else args.epochs

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE)
torch.manual_seed(0)
lines = [line for text in texts.torch_docs() for line in text.splitlines() if 20 < len(line) < 100 and line.isascii()]
rows = [example(line) for line in random.Random(0).sample(lines, 200 if args.smoke else 3000)]
held_out = len(rows) // 5
model = Tagger()
model, optimizer, loader, test_loader = accelerator.prepare(
    model,
    torch.optim.AdamW(model.parameters(), lr=3e-3),
    DataLoader(rows[held_out:], batch_size=16, shuffle=True, collate_fn=collate, drop_last=True),
    DataLoader(rows[:held_out], batch_size=64, collate_fn=collate),
)
criterion = CrossfadeLoss(gradual()).to(accelerator.device)
steps_per_epoch = len(loader) // ACCUMULATE

for epoch in range(epochs):
    batches = iter(loader)
    for step in range(steps_per_epoch):
        criterion.at((epoch * steps_per_epoch + step) / (epochs * steps_per_epoch))
        micro_batches = list(itertools.islice(batches, ACCUMULATE))
        count = global_count(criterion, *(target for _, target in micro_batches))
        for tokens, target in micro_batches:
            with accelerator.accumulate(model):
                loss = global_mean(criterion, model(tokens), target, count=count)
                accelerator.backward(loss * ACCUMULATE)  # accelerate divides by it
                optimizer.step()
                optimizer.zero_grad()

hits = valid = torch.zeros((), device=accelerator.device)
with torch.inference_mode():
    for tokens, target in test_loader:
        right = (model(tokens).argmax(1) == target) & (target != -100)
        hits, valid = hits + right.sum(), valid + (target != -100).sum()
hits, valid = accelerator.gather(torch.stack([hits, valid]).unsqueeze(0)).sum(0)
accelerator.print(f"held-out accuracy {hits / valid:.4f}")
accelerator.end_training()
