"""Pretrained models and their tokenizers from a folder or the hub, with a clear error for what can't be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crossfade.errors import UserError
from crossfade.lab.data.sources import hub
from crossfade.lab.data.texts import TextPart

_BUCKET = 32
_PLAIN = "use a model that transformers itself knows, such as BERT"
_ADVICE = "give a folder with config.json, model.safetensors and the tokenizer's files"


def check_model(model: str, max_length: int) -> str:
    """Check that a model can be used, and return the digest of its folder, or ``""`` for a model of the hub.

    Raises:
        UserError: a missing or unusable model or tokenizer, a tokenizer that doesn't belong to the model, or a
            ``max_length`` above the model's own.
    """
    from transformers import AutoConfig

    config = _from(model, AutoConfig)
    tokenizer = load_tokenizer(model)
    known, padding = getattr(config, "vocab_size", None), getattr(config, "pad_token_id", None)
    problem = ""
    # An embedding may be a little larger than its tokenizer, rounded up. transformers makes an empty tokenizer if a
    # folder has none.
    if known is not None and not known / 2 <= len(tokenizer) <= known:
        problem = f"has {len(tokenizer)} tokens and its embedding {known}"
    elif padding is not None and tokenizer.pad_token_id not in (None, padding):
        problem = f"pads with token {tokenizer.pad_token_id}, the model expects {padding}"
    if problem:
        own = "they don't belong together; put the model's own tokenizer beside it"
        raise UserError(f"model {model}: its tokenizer {problem}: {own}")
    if tokenizer.pad_token_id is None:
        raise UserError(f"model {model}: its tokenizer has no padding token; use one that has, such as BERT's")
    longest = getattr(config, "max_position_embeddings", None) or max_length
    if max_length > longest:
        raise UserError(f"max_length must be at most {longest} for model {model}, got {max_length}")
    return _digest(Path(model)) if Path(model).is_dir() else ""


def load_tokenizer(model: str) -> Any:
    """Return the model's tokenizer; raises UserError if it can't be loaded."""
    from transformers import AutoTokenizer

    return _from(model, AutoTokenizer)


def load_classifier(model: str, classes: int) -> nn.Module:
    """Return the model in training mode with a new head, whose weights are drawn from the global generator."""
    from transformers import AutoModelForSequenceClassification

    # A head in the folder, perhaps for other classes, isn't used: every training starts with a new one.
    net: nn.Module = _from(model, AutoModelForSequenceClassification, num_labels=classes, ignore_mismatched_sizes=True)
    heads = [module for name, module in net.named_children() if name in ("classifier", "score")]
    for layer in (layer for head in heads for layer in head.modules() if isinstance(layer, nn.Linear)):
        nn.init.normal_(layer.weight, 0.0, getattr(net.config, "initializer_range", 0.02))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net.train()


def empty_classifier(model: str, classes: int) -> nn.Module:
    """Return the model with a head as its settings say, and no weights of its own, for PyTorch's meta device."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = _from(model, AutoConfig, num_labels=classes)
    net: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return net


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a part's examples.

    Attributes:
        padded: The model's inputs by name, each (N, longest) int64.
        lengths: (N,) tokens of each example.
        left: Whether padding comes before the tokens.
    """

    padded: Mapping[str, Tensor]
    lengths: NDArray[np.int64]
    left: bool


@lru_cache(maxsize=6)  # the parts of two repeats
def encode(part: TextPart, model: str, max_length: int) -> Tokens:
    """Return the tokens of every example, padded like the tokenizer, which itself takes seconds for 10,000 texts."""
    tokenizer = load_tokenizer(model)
    pairs = None if part.seconds is None else list(part.seconds)
    tokens = tokenizer(list(part.texts), pairs, truncation=True, max_length=max_length)
    lengths = np.array([len(row) for row in tokens["input_ids"]], dtype=np.int64)
    left, longest = tokenizer.padding_side == "left", padded_length(int(lengths.max()), max_length)
    first = {name: rows[:1] for name, rows in tokens.items()}
    one = tokenizer.pad(first, padding="max_length", max_length=int(lengths[0]) + 1)
    places = np.arange(longest)[:: -1 if left else 1] < lengths[:, None]
    padded = {}
    for name, rows in tokens.items():
        array = np.full(places.shape, one[name][0][0 if left else -1], dtype=np.int64)
        array[places] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
        padded[name] = torch.from_numpy(array)
    return Tokens(padded, lengths, left)


def padded_length(length: int, most: int) -> int:
    """Return the length rounded up to a multiple of 32, but no more than ``most``."""
    return min(-(-length // _BUCKET) * _BUCKET, most)


def _from(model: str, kind: Any, **options: Any) -> Any:
    folder = Path(model)
    if folder.is_file():
        raise UserError(f"model {model}: a file; {_ADVICE}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"model {model}: the folder has no config.json; {_ADVICE}")
    for name in ("config.json", "tokenizer_config.json"):
        if _runs_code(folder / name):
            raise UserError(f"model {model}: the auto_map in its {name} names code to run, which isn't done; {_PLAIN}")
    if not folder.is_dir() and (model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model):
        raise UserError(f"model {model}: no such folder; {_ADVICE}")
    with _quiet(), nullcontext() if folder.is_dir() else hub("model", model):
        try:
            return kind.from_pretrained(model, trust_remote_code=False, **options)
        except Exception as error:  # transformers raises whatever its parts raise
            reason = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())[:160]
            what = "can't be loaded" if folder.is_dir() else "isn't on the hub, or the hub can't be reached"
            raise UserError(f"model {model}: {what} ({reason}); {_ADVICE}") from None


def _runs_code(path: Path) -> bool:
    """Return whether a file of settings names classes of its folder's own code, which transformers would ask about."""
    try:
        return "auto_map" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars and reports on newly initialised weights."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _digest(folder: Path) -> str:
    """Return the hash of the files that determine the results."""
    hashed = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".txt", ".model"):
            hashed.update(path.name.encode())
            with path.open("rb") as file:
                hashed.update(hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()
