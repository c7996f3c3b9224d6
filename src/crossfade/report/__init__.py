"""Reports: one self-contained HTML file from a frame of results, and the parts to build other pages from.

The names are listed in ``__init__.pyi`` and loaded on first use.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
