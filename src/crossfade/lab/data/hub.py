"""The Hugging Face hub, asked once: where it can't be reached, what is in the cache counts, without retries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

_SECONDS = 5.0


@contextmanager
def hub(kind: Literal["model", "dataset"], name: str) -> Iterator[None]:
    """Load something of the hub inside: quietly, and from the cache alone if the hub doesn't answer."""
    import huggingface_hub.constants as constants

    log = logging.getLogger("huggingface_hub")
    level, offline = log.level, constants.HF_HUB_OFFLINE
    log.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or not _answers(kind, name)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        log.setLevel(level)


@lru_cache
def _answers(kind: Literal["model", "dataset"], name: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_SECONDS)
    except HfHubHTTPError:  # an answer, if only that there is no such thing
        return True
    except Exception:  # a proxy, a name that isn't found, offline mode, a time-out
        return False
    return True
