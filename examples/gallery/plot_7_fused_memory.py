"""
The fused loss: logits that are never built
===========================================

The memory that a step needs beside its inputs, with the logits of all tokens and without, as the classes become more.
"""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

import crossfade

TOKENS, WIDTH = 512, 64


def peak(step, *given):
    """Return the most MiB that a step holds at once beside what it was given: the profiler counts each allocation."""
    step(*given)  # once before, for what is made only once
    for tensor in given:
        tensor.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(*given)
    held = largest = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            largest = max(largest, held)
    return largest / 2**20


def logits_and_loss(hidden, weight, target):
    crossfade.crossfade_loss(F.linear(hidden, weight), target).backward()


def fused(hidden, weight, target):
    crossfade.linear_crossfade_loss(hidden, weight, target, memory_budget_mb=4).backward()


# %%
classes = [2_000, 8_000, 16_000, 32_000]
found = {logits_and_loss: [], fused: []}
for count in classes:
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    weight = torch.randn(count, WIDTH).mul_(0.1).requires_grad_()
    target = torch.randint(count, (TOKENS,))
    for way, sizes in found.items():
        hidden.grad = weight.grad = None
        sizes.append(peak(way, hidden, weight, target))
for count, *sizes in zip(classes, *found.values(), strict=True):
    print(f"{count:6,} classes: {sizes[0]:6.1f} MiB with the logits, {sizes[1]:5.1f} MiB fused")

# %%
# What is left grows with the gradient of the weight, (C, D), which any training needs.
figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for (_, sizes), label in zip(found.items(), ("F.linear + crossfade_loss", "linear_crossfade_loss"), strict=True):
    axes.plot(classes, sizes, "o-", label=label)
axes.plot(classes, [count * WIDTH * 4 / 2**20 for count in classes], "--", color="0.6", label="the weight's gradient")
axes.set(xlabel="classes", ylabel="MiB at once", title=f"{TOKENS} tokens of width {WIDTH}, float32")
axes.legend(frameon=False)
plt.show()
