"""
Segmentation, with pixels that don't count
==========================================

Logits of shape (N, C, H, W), targets of shape (N, H, W), and a border around each object whose label is 255: every loss
takes them as ``F.cross_entropy`` does.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import crossfade

IGNORED = 255


def scenes(count, generator):
    """Return noisy grey images (N, 1, 24, 24) of a disc (class 1) and a bar (class 2), and their labels (N, 24, 24)."""
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    images, labels = torch.zeros(count, 1, 24, 24), torch.zeros(count, 24, 24, dtype=torch.int64)
    for k in range(count):
        top, left, bar = (int(value) for value in torch.randint(5, 19, (3,), generator=generator))
        distance = ((rows - top) ** 2 + (columns - left) ** 2).sqrt()
        labels[k][(columns - bar).abs() <= 1] = 2
        labels[k][distance < 5] = 1
        images[k, 0] = 0.5 * (labels[k] == 2) + 1.0 * (labels[k] == 1)
        labels[k][(distance >= 4.5) & (distance < 5.5)] = IGNORED  # annotators don't agree about the edge
    return images + 0.5 * torch.randn(images.shape, generator=generator), labels


generator = torch.Generator().manual_seed(0)
images, labels = scenes(200, generator)
test_images, test_labels = scenes(50, generator)

# %%
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 3, 1)
)
optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
criterion = crossfade.CrossfadeLoss(crossfade.gradual(), ignore_index=IGNORED)
epochs = 6
for epoch in range(epochs):
    criterion.at(epoch / epochs)
    for batch in torch.randperm(len(images)).split(10):
        optimizer.zero_grad()
        criterion(net(images[batch]), labels[batch]).backward()
        optimizer.step()

with torch.no_grad():
    predicted = net(test_images).argmax(1)
counted = test_labels != IGNORED
print(f"pixels that are right: {(predicted == test_labels)[counted].float().mean():.1%} of those that count")

# %%
figure, panels = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
panels[0].imshow(test_images[0, 0], cmap="gray")
panels[1].imshow(test_labels[0].masked_fill(test_labels[0] == IGNORED, 3), vmin=0, vmax=3)
panels[2].imshow(predicted[0], vmin=0, vmax=3)
for panel, title in zip(panels, ("image", "labels (yellow: ignored)", "prediction"), strict=True):
    panel.set_title(title)
    panel.axis("off")
plt.show()
