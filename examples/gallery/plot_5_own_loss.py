"""
A loss of your own, checked
===========================

``check_loss`` puts a loss through what users will do to it. Here a first try, what is wrong with it, and a second one.
"""

from functools import partial

import matplotlib.pyplot as plt
import torch

import crossfade
from crossfade.diagnostics import gradient_curve
from crossfade.testing import check_loss

# %%
# **A first try**, (1 - p)^2 by hand from the softmax. It looks right, and gives up in more ways than one:


def squared_error_of_p(logits, target, *, reduction="mean", ignore_index=-100):
    p = logits.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    loss = (1 - p) ** 2
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


try:
    check_loss(squared_error_of_p)
except AssertionError as error:
    print(str(error)[:600])

# %%
# **A second one**: the same function of ce = -log p, and ``probability_loss`` does the rest.


def squared(ce):
    return torch.expm1(-ce) ** 2


print(check_loss(partial(crossfade.probability_loss, squared)))

# %%
# Its gradient vanishes at both ends, and is largest at a third:
p = torch.linspace(0, 1, 201, dtype=torch.float64)
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(p, gradient_curve(squared, p), label="(1 − p)²")
axes.plot(p, gradient_curve(lambda ce: -torch.expm1(-ce), p), label="1 − p, the expectation loss")
axes.set(xlabel="p, the probability of the right class", ylabel="size of the gradient")
axes.legend(frameon=False)
plt.show()
