"""timm: mixup, cutmix and label smoothing with timm's own classes, as its train.py puts them together.

In train.py two lines change: the criterion, and its progress in the epoch loop.

    python examples/timm_mixup.py
"""

import argparse

import timm
import torch
from sklearn.datasets import load_digits
from timm.data.mixup import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from torch.utils.data import DataLoader, TensorDataset, random_split

from crossfade import CrossfadeLoss, gradual

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--smoke", action="store_true", help="one epoch on a few images")
args = parser.parse_args()

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
images = torch.tensor(X, dtype=torch.float32).view(-1, 1, 8, 8).repeat(1, 3, 1, 1) / 8 - 1
images = torch.nn.functional.interpolate(images, 32, mode="bilinear")
size = 128 if args.smoke else len(images)
train, test = random_split(TensorDataset(images[:size], torch.tensor(y[:size])), [0.7, 0.3])
loader = DataLoader(train, batch_size=64, shuffle=True, drop_last=True)

model = timm.create_model("test_resnet", num_classes=10)
mixup_fn = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=10)
# Mixup smooths the labels itself; without it: CrossfadeLoss(gradual(), label_smoothing=0.1)
train_loss_fn = CrossfadeLoss(gradual())
task = ClassificationTask(model, criterion=train_loss_fn, verbose=False)
optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3)
lr_scheduler, num_epochs = create_scheduler_v2(optimizer, num_epochs=1 if args.smoke else args.epochs, warmup_epochs=0)

for epoch in range(num_epochs):
    task.train()
    train_loss_fn.at(epoch / num_epochs)
    for inputs, target in loader:
        loss = task(*mixup_fn(inputs, target))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    lr_scheduler.step(epoch + 1)

model.eval()
with torch.inference_mode():
    hits = [(model(inputs).argmax(1) == target).float() for inputs, target in DataLoader(test, batch_size=256)]
print(f"test accuracy {torch.cat(hits).mean():.4f}")
