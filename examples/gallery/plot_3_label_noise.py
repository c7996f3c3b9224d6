"""
Wrong labels
============

Two of five training labels are drawn at random. The cross entropy ends up learning them by heart; losses whose gradient
falls with p leave them behind.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import crossfade

X, y = load_digits(return_X_y=True)
parts = train_test_split(X / 16, y, test_size=0.4, random_state=0, stratify=y)
x_train, x_test, y_train, y_test = (torch.tensor(part, dtype=torch.get_default_dtype()) for part in parts)
y_train, y_test = y_train.long(), y_test.long()
torch.manual_seed(1)
wrong = torch.rand(len(y_train)) < 0.4
y_train[wrong] = torch.randint(10, (int(wrong.sum()),))
epochs = 40


def train(loss):
    """Return the accuracy on clean test labels after each epoch; ``loss`` takes logits, target and progress."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    accuracy = []
    for epoch in range(epochs):
        for rows in torch.randperm(len(x_train)).split(32):
            optimizer.zero_grad()
            loss(net(x_train[rows]), y_train[rows], epoch / epochs).backward()
            optimizer.step()
        with torch.no_grad():
            accuracy.append(100 * float((net(x_test).argmax(1) == y_test).float().mean()))
    return accuracy


fade = crossfade.CrossfadeLoss(crossfade.gradual())
losses = {
    "cross entropy": lambda logits, target, _: nn.functional.cross_entropy(logits, target),
    "gradual()": lambda logits, target, progress: fade.at(progress)(logits, target),
    "L_q, q = 0.7": lambda logits, target, _: crossfade.generalized_cross_entropy(logits, target),
    "MAE": lambda logits, target, _: crossfade.mae_loss(logits, target),
}
runs = {name: train(loss) for name, loss in losses.items()}

# %%
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name, accuracy in runs.items():
    axes.plot(accuracy, label=f"{name}: {accuracy[-1]:.1f} % at the end")
axes.set(xlabel="epoch", ylabel="accuracy on clean test labels, %", ylim=(55, 100))
axes.legend(frameon=False)
plt.show()
