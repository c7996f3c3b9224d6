"""The lab: trials, the store, the stacked training of tiny networks, and comparisons on your own data.

>>> from crossfade.lab import compare  # doctest: +SKIP
>>> compare(X, y)  # doctest: +SKIP

The names are listed in ``__init__.pyi`` and loaded on first use.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
