"""``crossfade list``: everything that can be named on the command line."""

from __future__ import annotations

__all__ = ["show"]

_NETS = (
    ("linear", "one layer, inputs x classes: the paper's first network"),
    ("mlp", "hidden layers with ReLU, as wide as the inputs: the paper's second network; --width, --depth"),
)
_STUDIES = (("compare", "methods x repeats on your tables, or on four real data sets: crossfade compare"),)


def show() -> int:
    """List the methods, networks and studies that can be named."""
    from crossfade.lab.methods import DEFAULT_METHODS, METHODS

    named = [
        (method.name + ("*" if method.name in DEFAULT_METHODS else ""), f"{method.title}. {method.note}".rstrip(" ."))
        for method in METHODS
    ]
    for heading, entries in (("Methods (* compared by default)", named), ("Networks", _NETS), ("Studies", _STUDIES)):
        print(heading)
        width = max(len(name) for name, _ in entries)
        for name, text in entries:
            print(f"  {name.ljust(width)}  {text}")
        print()
    return 0
