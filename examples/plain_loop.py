"""A plain PyTorch loop on scikit-learn's digits: one line more than with the cross entropy. After a kill it resumes.

python examples/plain_loop.py --checkpoint digits.pt
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import crossfade

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--checkpoint", type=Path)
parser.add_argument("--smoke", action="store_true", help="two epochs")
args = parser.parse_args()
epochs = 2 if args.smoke else args.epochs

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = (
    torch.tensor(part)
    for part in train_test_split(X.astype("float32") / 16, y, test_size=0.3, random_state=0, stratify=y)
)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = crossfade.CrossfadeLoss(crossfade.gradual())

start = 0
if args.checkpoint and args.checkpoint.exists():
    state = torch.load(args.checkpoint)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    start = state["epoch"] + 1  # nothing of the criterion: progress is computed from the epoch

for epoch in range(start, epochs):
    criterion.at(epoch / epochs)  # the one line
    order = torch.randperm(len(X_train), generator=torch.Generator().manual_seed(epoch))
    for batch in order.split(64):
        loss = criterion(model(X_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if args.checkpoint:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, args.checkpoint)

accuracy = (model(X_test).argmax(1) == y_test).float().mean()
print(f"test accuracy {accuracy:.4f} after {epochs} epochs")
