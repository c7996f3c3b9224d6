"""Results as plain data, for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Dataclasses, tuples and numpy numbers as what JSON knows; NaN and infinity as ``None``."""
    if hasattr(value, "__dataclass_fields__"):
        outcome = {"outcome": value.outcome} if hasattr(value, "outcome") else {}
        return plain({**asdict(value), **outcome})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
