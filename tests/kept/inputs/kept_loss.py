"""A loss of a user's own."""

import torch


def squared(ce):
    return torch.expm1(-ce) ** 2
