"""The loss fused with the output projection. (``crossfade.linear`` is a schedule.)"""

from crossfade._linear.api import LinearLossStats, linear_crossfade_loss

__all__ = ["LinearLossStats", "linear_crossfade_loss"]
