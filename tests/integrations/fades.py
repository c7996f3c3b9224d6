"""A criterion of a user's own for the trainers, with parameters named as the mixture's."""

import torch

from crossfade import Fade


def own(alpha, beta):
    """Return alpha log(1 + ce) + beta (1 - p) + 1, which isn't 0 where p = 1."""
    return lambda ce: alpha * torch.log1p(ce) - beta * torch.expm1(-ce) + 1.0


def own_fade(schedule, **options):
    """Return the criterion whose alpha and beta are those of a schedule."""
    alpha, beta = (lambda progress: schedule(progress).alpha), (lambda progress: schedule(progress).beta)
    return Fade(own, alpha=alpha, beta=beta, **options)
