"""Fine-tuning of a language model, token by token: which objectives are safe where p is small, and which gain by it.

One pre-trained model, two kinds of new text: more of what it knows, and what it doesn't.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b

import pandas as pd

from crossfade.lab.data import shipped
from crossfade.lab.methods import OBJECTIVES, Method, method
from crossfade.lab.paper.finetune_model import RARE, FinetuneRecipe, FinetuneTask, compute
from crossfade.lab.paper.page import MarkdownStudy, plus_minus, row, signed
from crossfade.lab.paper.processes import process_executor
from crossfade.lab.paper.study import DEFINED, Cell, Prepared, Request, check_known
from crossfade.lab.train.executor import Family
from crossfade.stats import Comparison, PairedComparison, compare_methods
from crossfade.stats.words import listed

CASES = {"known": "Known text", "unknown": "Unknown text"}
_LONGEST = 4_000  # bytes of a document, so that each part has many
_REGION = 0.005  # a loss of accuracy up to this size counts as none
_SHORTENED = {
    "smoke": ({"pretrain_steps": 3, "train": 2_048, "held_out": 1_024}, 2),
    "short": ({"pretrain_steps": 500, "train": 16_384, "held_out": 8_192}, 2),
}
Documents = dict[str, tuple[bytes, ...]]


@cache  # both kinds of text are divided from them
def corpora() -> Documents:
    """Return documents by use. The hash of a document decides, so that it is the same on every machine."""
    docs = _drawn([*shipped.reference(), *shipped.torch_docs()])
    first, second = round(0.6 * len(docs)), round(0.7 * len(docs))
    return {
        "pretrain": docs[:first],
        "old": docs[first:second],
        "known": docs[second:],
        "unknown": _drawn(shipped.headers()),
    }


def _drawn(texts: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(text.encode()[:_LONGEST] for text in sorted(texts, key=lambda text: blake2b(text.encode()).digest()))


@dataclass(frozen=True)
class _Finetune(MarkdownStudy[FinetuneRecipe, Documents]):
    shortened = _SHORTENED

    @property
    def family(self) -> Family:
        return partial(process_executor, compute)

    def load(self, data: str, request: Request) -> Documents:
        return corpora()

    def methods(self, cell: Cell[FinetuneRecipe], request: Request) -> list[Method]:
        own = {one.name: one for one in OBJECTIVES}
        check_known("--methods", request.methods, cell.methods, self.name)
        return [own.get(name) or method(name) for name in dict.fromkeys(["ce", *(request.methods or cell.methods)])]

    def prepare(self, cell: Cell[FinetuneRecipe], data: Documents, request: Request) -> Prepared:
        recipe, repeats = self.protocol(cell, request)
        folder = request.data_dir / "finetune"
        task = FinetuneTask(cell.data, data["pretrain"], data["old"], data[cell.data], recipe, folder)
        about = (
            f"{recipe.train:,} bytes to fine-tune on, {recipe.held_out:,} for validation and as many for the test · "
            f"the best of {len(recipe.learning_rates)} learning rates on validation text"
        )
        return Prepared(cell.label, (task,), recipe, tuple(range(repeats)), about)

    def lead(self, results: pd.DataFrame, scale: str) -> str:
        shortened = "" if scale == "paper" else f"Scale **{scale}**: shortened.\n\n"
        return shortened + "\n".join(f"* {line}" for line in answers(results))

    def tables(self, results: pd.DataFrame) -> str:
        return "\n\n".join(
            f"**{CASES[name]}**: {_start(own)}\n\n{_table(own)}"
            for name, own in ((name, results[results["dataset"] == name]) for name in CASES)
            if len(own)
        )


def _compared(own: pd.DataFrame) -> Comparison | None:
    """Return the comparison with CE on one kind of text; None where there is nothing to compare."""
    complete = own["method"].nunique() > 1 and "ce" in set(own["method"])
    return compare_methods(own, missing="drop", equivalent=_REGION) if complete else None


def answers(results: pd.DataFrame) -> list[str]:
    """Return what the study was to find: what is safe where p is small, what gains where it is large, and the fade."""
    found: dict[str, dict[str, list[str]]] = {}
    lines = []
    for case, where in (("unknown", "where p is small"), ("known", "where p is large")):
        comparison = _compared(results[results["dataset"] == case])
        if comparison is None:
            continue
        kinds = found.setdefault(case, {})
        for one in comparison.paired:
            kinds.setdefault(_kind(one), []).append(one.method)
        said = "; ".join(f"{kind}: {listed(names, 20)}" for kind, names in sorted(kinds.items()))
        lines.append(f"{CASES[case]}, {where}: {said}.")
    if len(found) == 2:
        safe = [*found["unknown"].get("better", ()), *found["unknown"].get("safe", ())]
        both = [name for name in safe if name in found["known"].get("better", ())]
        lines.append(f"Safe where p is small and better than CE where it is large: {listed(both, 20) or 'none'}.")
        fade = [next((kind for kind, names in found[case].items() if "gradual" in names), "") for case in found]
        if all(fade):
            lines.append(f"The fade, gradual, is {fade[0]} where p is small, and {fade[1]} where it is large.")
    return lines


def _kind(one: PairedComparison) -> str:
    """Return what a comparison with CE shows; "safe" is that a loss of more than half a point is improbable."""
    if one.outcome in ("better", "worse"):
        return one.outcome
    return "safe" if one.equivalence is not None and one.equivalence.worse < 0.05 else "open"


def _start(own: pd.DataFrame) -> str:
    means = own[["before_accuracy", "before_nll", "before_rare", "before_old_accuracy"]].astype(float).mean()
    return (
        f"before the fine-tuning, accuracy {100 * means['before_accuracy']:.2f} %, NLL {means['before_nll']:.3f}, p < "
        f"{RARE:g} at {100 * means['before_rare']:.1f} % of the bytes; accuracy on old text "
        f"{100 * means['before_old_accuracy']:.2f} %."
    )


def _table(own: pd.DataFrame) -> str:
    heads = ["objective", "accuracy, %", "Δ to CE", "better / worse", "95 % interval", "p (Holm)", "NLL"]
    heads += ["where p was < 0.01, %", "old text, %", "p < 0.01, %", "rates"]
    comparison = _compared(own)
    lines = [row(*heads), "|---|" + "--:|" * (len(heads) - 2) + "---|"]
    paired = {one.method: one for one in comparison.paired} if comparison else {}
    for name, part in own.groupby("method", sort=False):
        found, accuracy = paired.get(str(name)), 100 * part["accuracy"]
        span, p = (found.interval, found.p_adjusted) if found else (None, None)
        scores = part[["rare_accuracy", "old_accuracy", "rare"]].astype(float).mean()
        rates = part["learning_rate"].value_counts().sort_index()
        cells = [
            plus_minus(accuracy.mean(), accuracy.std()),
            signed(100 * found.mean) if found else "",
            f"{found.counts.wins} / {found.counts.losses}" if found else "",
            f"{signed(100 * span.low)} to {signed(100 * span.high)}" if span else "",
            "" if p is None else f"{p:.2g}",
            f"{part['nll'].mean():.3f}",
            *(f"{100 * score:.2f}" for score in scores),
            ", ".join(f"{rate:g} × {number}" for rate, number in rates.items()),
        ]
        lines.append(row(_title(str(name)), *cells))
    return "\n".join(lines)


def _title(name: str) -> str:
    own = {one.name: one.title for one in OBJECTIVES}
    return f"`{name}`" + (f" {own[name]}" if name in own else " (DFT)" if name == "el" else "")


_ABOUT = DEFINED["finetune"]
_NAMES = ("ce", "el", "f0", "gradual", "gce-rising", "log-ce", *(one.name for one in OBJECTIVES))
_CELLS = tuple(Cell(name, "bytes", FinetuneRecipe(), 5, name, methods=_NAMES) for name in CASES)
STUDY = _Finetune("finetune", _ABOUT["title"], _CELLS, choices=tuple(_ABOUT["choices"]))
