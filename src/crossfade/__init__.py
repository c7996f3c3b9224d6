"""Train classifiers for accuracy: mix cross entropy and expectation loss 1 - p_y, fade into the latter.

>>> import torch, crossfade
>>> criterion = crossfade.CrossfadeLoss(crossfade.gradual())
>>> loss = criterion.at(0.5)(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))

The names are listed in ``__init__.pyi`` and loaded on first use: ``import crossfade`` alone doesn't import torch.
"""

import lazy_loader as lazy

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
# What needs pandas or skorch isn't for a star.
__all__ = [*(name for name in __all__ if name not in ("compare", "CrossfadeClassifier")), "__version__"]
