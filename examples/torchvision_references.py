"""torchvision's references/classification/train.py, shortened: v2.MixUp, v2.CutMix, label smoothing, averaging.

In train.py two lines change: the criterion, and its progress in the epoch loop.

    python examples/torchvision_references.py
"""

import argparse

import torch
import torchvision
from sklearn.datasets import load_digits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset, default_collate, random_split
from torchvision.transforms import v2

from crossfade import CrossfadeLoss, gradual

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--label-smoothing", type=float, default=0.1)
parser.add_argument("--smoke", action="store_true", help="one epoch on a few images")
args = parser.parse_args()
epochs = 1 if args.smoke else args.epochs

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
images = torch.tensor(X, dtype=torch.float32).view(-1, 1, 8, 8).repeat(1, 3, 1, 1) / 8 - 1
images = torch.nn.functional.interpolate(images, 32, mode="bilinear")
size = 128 if args.smoke else len(images)
train, test = random_split(TensorDataset(images[:size], torch.tensor(y[:size])), [0.7, 0.3])
mix = v2.RandomChoice([v2.MixUp(alpha=0.2, num_classes=10), v2.CutMix(alpha=1.0, num_classes=10)])
loader = DataLoader(train, batch_size=64, shuffle=True, collate_fn=lambda batch: mix(*default_collate(batch)))

model = torchvision.models.shufflenet_v2_x0_5(num_classes=10)
model_ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95), use_buffers=True)
criterion = CrossfadeLoss(gradual(), label_smoothing=args.label_smoothing)  # was nn.CrossEntropyLoss(...)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)

for epoch in range(epochs):
    criterion.at(epoch / epochs)  # with --resume, too: epoch starts at args.start_epoch
    model.train()
    for inputs, target in loader:
        loss = criterion(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model_ema.update_parameters(model)
    lr_scheduler.step()

with torch.inference_mode():
    for name, network in (("model", model), ("average", model_ema)):
        network.eval()
        hits = [(network(inputs).argmax(1) == target).float() for inputs, target in DataLoader(test, batch_size=256)]
        print(f"{name}: test accuracy {torch.cat(hits).mean():.4f}")
