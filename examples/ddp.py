"""DDP: the right mean when the processes hold different numbers of targets, or none.

torchrun --nproc_per_node 2 examples/ddp.py
"""

import argparse

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from crossfade import CrossfadeLoss, gradual
from crossfade.integrations.distributed import global_mean

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--smoke", action="store_true", help="five steps")
args = parser.parse_args()
steps = 5 if args.smoke else args.steps

if dist.is_torchelastic_launched():
    dist.init_process_group("gloo")
rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

X, y = load_digits(return_X_y=True)
inputs, labels = torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y)
labels[: len(labels) // 3] = -100  # unlabelled: the first process has more of them than the last
shard = slice(rank * len(labels) // world, (rank + 1) * len(labels) // world)

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
if dist.is_initialized():
    model = DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = CrossfadeLoss(gradual())
generator = torch.Generator().manual_seed(rank)
for step in range(steps):
    batch = torch.randint(shard.start, shard.stop, (64,), generator=generator)
    loss = global_mean(criterion.at(step / steps), model(inputs[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

if rank == 0:
    hits = (model(inputs).argmax(1) == torch.tensor(y)).float()
    print(f"accuracy on the rows without labels {hits[labels == -100].mean():.4f}")
if dist.is_initialized():
    dist.destroy_process_group()
