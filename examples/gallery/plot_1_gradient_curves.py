"""
The gradient of each loss over p
================================

The gradient of a loss g(ce) with respect to the logit of the right class has the size ``|g'(ce)| (1 - p)``. That of the
cross entropy is largest where p is near 0, on examples that may never become right; a fade moves the peak to undecided
ones.
"""

import matplotlib.pyplot as plt
import torch

import crossfade
from crossfade.diagnostics import gradient_curve, numeric_peak


def mixture(alpha, beta):
    return lambda ce: alpha * ce - beta * torch.expm1(-ce)


# %%
# Six phases of ``gradual("unit")``, and four losses that stay as they are.
p = torch.linspace(0, 1, 201, dtype=torch.float64)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
schedule = crossfade.gradual("unit")
for phase in range(6):
    alpha, beta = schedule((phase + 0.5) / 6)
    left.plot(
        p, gradient_curve(mixture(alpha, beta), p), color=plt.get_cmap("viridis")(phase / 6), label=f"phase {phase + 1}"
    )
left.set(title="a fade", xlabel="p, the probability of the right class", ylabel="size of the gradient")
left.legend(frameon=False, fontsize=8)

losses = {
    "cross entropy": lambda ce: ce,
    "focal, γ = 2": lambda ce: (-torch.expm1(-ce)) ** 2 * ce,
    "L_q, q = 0.7": lambda ce: -torch.expm1(-0.7 * ce) / 0.7,
    "expectation loss": lambda ce: -torch.expm1(-ce),
}
for name, g in losses.items():
    right.plot(p, gradient_curve(g, p), label=name)
right.set(title="other losses", xlabel="p")
right.legend(frameon=False, fontsize=8)
plt.show()

# %%
# The peak of each of them:
for name, g in losses.items():
    print(f"{name:16}  {numeric_peak(g)}")
