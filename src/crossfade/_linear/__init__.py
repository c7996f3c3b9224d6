"""The loss fused with the output projection. Not named ``crossfade.linear``: that is a schedule."""

from crossfade._linear.api import LinearLossStats, linear_crossfade_loss
from crossfade._linear.module import LinearCrossfadeLoss

__all__ = ["LinearCrossfadeLoss", "LinearLossStats", "linear_crossfade_loss"]
