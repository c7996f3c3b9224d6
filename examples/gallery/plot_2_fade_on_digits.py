"""
A fade on handwritten digits
============================

The same network, the same weights and the same batches, once with the cross entropy and once with a fade: accuracy over
the epochs, and a reliability diagram at the end. One run proves nothing about accuracy; ``crossfade compare`` is for
that.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import crossfade
from crossfade.diagnostics import calibration

X, y = load_digits(return_X_y=True)
parts = train_test_split(X / 16, y, test_size=0.4, random_state=0, stratify=y)
x_train, x_test, y_train, y_test = (torch.tensor(part, dtype=torch.get_default_dtype()) for part in parts)
y_train, y_test = y_train.long(), y_test.long()
epochs = 30


def train(schedule):
    """Return the logits of the test images after each epoch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    criterion = crossfade.CrossfadeLoss(schedule)
    history = []
    for epoch in range(epochs):
        criterion.at(epoch / epochs)
        for rows in torch.randperm(len(x_train)).split(32):
            optimizer.zero_grad()
            criterion(net(x_train[rows]), y_train[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            history.append(net(x_test))
    return history


runs = {"cross entropy": train(crossfade.cross_entropy()), "gradual()": train(crossfade.gradual())}

# %%
figure, (curve, reliability) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
edges = torch.linspace(0, 1, 11)
for name, history in runs.items():
    curve.plot([100 * float((logits.argmax(1) == y_test).float().mean()) for logits in history], label=name)
    confidence, predicted = history[-1].softmax(1).max(1)
    right = (predicted == y_test).float()
    bins = torch.bucketize(confidence, edges[1:-1])
    filled = [k for k in range(10) if (bins == k).sum() >= 5]
    points = [(float(confidence[bins == k].mean()), float(right[bins == k].mean())) for k in filled]
    reliability.plot(*zip(*points, strict=True), "o-", label=name)
curve.set(xlabel="epoch", ylabel="test accuracy, %", title="training")
curve.legend(frameon=False)
reliability.plot([0, 1], [0, 1], color="0.7", ls="--")
reliability.set(xlabel="confidence", ylabel="share that is right", title="reliability, at the end")
reliability.legend(frameon=False)
plt.show()

# %%
# The expectation loss at the end of the fade pushes probabilities towards 0 and 1:
for name, history in runs.items():
    scores = calibration(history[-1], y_test)
    print(f"{name:14}  accuracy {scores.accuracy:.2%}   NLL {scores.nll:.3f}   ECE {scores.ece:.2%}")
