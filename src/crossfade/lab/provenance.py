"""The provenance of numbers: versions, commit, machine and time."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import crossfade

_PACKAGES = (
    *("crossfade", "torch", "torchvision", "lightning", "transformers", "tokenizers", "pillow"),
    *("numpy", "scipy", "pandas", "scikit-learn", "numba"),
)


def provenance() -> dict[str, Any]:
    """Return what is written beside every trial."""
    return {
        "versions": versions(),
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Return the commit of crossfade's own source tree, with ``+`` if it was changed since; None if it is installed."""
    folder = Path(crossfade.__file__).parent
    try:
        git = ["git", "-C", str(folder)]
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, timeout=10)
        if tracked.returncode:
            return None
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changed.returncode else "") if head.returncode == 0 else None
