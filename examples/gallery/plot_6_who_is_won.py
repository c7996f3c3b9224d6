"""
Wrong examples that become right late in a training
===================================================

The paper's motivating example in small: which test examples that were wrong in the middle of the training are right at
its end, by how probable the right class was?
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_classification
from torch import nn

import crossfade
from crossfade.diagnostics import ProbabilityRecorder, Recording, histograms, transitions

X, y = make_classification(4000, 20, n_informative=8, n_classes=5, class_sep=0.8, flip_y=0.1, random_state=0)
x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
x_train, y_train, x_test, y_test = x[:2000], y[:2000], x[2000:], y[2000:]
epochs, watched = 40, 12


def record(schedule):
    """Train, and record the probability of each test example's class in each epoch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    criterion = crossfade.CrossfadeLoss(schedule)
    folder = tempfile.mkdtemp()
    with ProbabilityRecorder(folder, examples=len(y_test), epochs=epochs) as recorder:
        for epoch in range(epochs):
            criterion.at(epoch / epochs)
            for rows in torch.randperm(len(x_train)).split(32):
                optimizer.zero_grad()
                criterion(net(x_train[rows]), y_train[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                recorder.record(epoch, torch.arange(len(y_test)), net(x_test), y_test)
    return Recording(folder)


recordings = {"cross entropy": record(crossfade.cross_entropy()), "gradual()": record(crossfade.gradual())}

# %%
groups = ["wrong, p < 0.2", "wrong, p ≥ 0.2", "right"]
figure, (bars, spread) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for place, (name, recording) in enumerate(recordings.items()):
    found = transitions(recording, first=watched, last=epochs - 1)
    bars.bar(np.arange(3) + 0.4 * place - 0.2, 100 * found.became_right, 0.38, label=name)
    spread.stairs(histograms(recording, bins=20)[-1], np.linspace(0, 1, 21), label=name, lw=1.5)
bars.set_xticks(range(3), groups)
bars.set(ylabel="right at the end, %", title=f"test examples by what they were in epoch {watched}")
bars.legend(frameon=False)
spread.set(xlabel="p of the right class, at the end", ylabel="test examples", title="all test examples")
spread.legend(frameon=False)
plt.show()

# %%
# The table behind the bars: rows are the groups in the watched epoch, columns those at the end.
for name, recording in recordings.items():
    print(name, transitions(recording, first=watched, last=epochs - 1).counts.tolist())
