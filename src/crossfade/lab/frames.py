"""Results and training curves of a store as data frames, which statistics and reports read, and as exported files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import IO, Any, TypeAlias

import pandas as pd

from crossfade.lab.methods import OLD_NAMES
from crossfade.lab.scores import unpack_hits
from crossfade.lab.store import Store
from crossfade.lab.trial import Json
from crossfade.stats.words import count as in_words

Columns: TypeAlias = Mapping[str, Sequence[Any]]

_RESULTS = (
    *("study", "dataset", "method", "repeat", "accuracy", "nll", "ece", "brier", "learning_rate", "epoch"),
    *("n_train", "n_val", "n_test", "fixed_test", "classes", "seconds", "net", "engine", "key"),
)
_CURVES = (
    *("dataset", "method", "repeat", "epoch"),
    *("val_accuracy", "test_accuracy", "val_nll", "test_nll", "train_loss", "net"),
)
_NET = "json_extract(content, '$.recipe.net')"
_TOGETHER = 500  # trials whose curves become a frame, or a row group of a Parquet file, at once


def results(
    store: Store, keys: Collection[str] | None = None, requests: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return one row for each finished trial; accuracy and the like are fractions, epochs are counted from 1.

    ``requests`` fills a last column, by the trials' keys. ``hits``, where trials have it, is an array: 1 for a
    row that was classified rightly, 0 wrongly, -1 not tested.
    """

    def row(study: str, task: str, method: str, repeat: int, result: str, fixed: object, net: object, key: str) -> Json:
        asked = {"study": study, "dataset": task, "method": OLD_NAMES.get(method, method), "repeat": repeat}
        return {**asked, **json.loads(result), "fixed_test": bool(fixed), "net": net, "key": key}

    columns: dict[str, list[object]] = {name: [] for name in _RESULTS}
    wanted = f"study, task, method, repeat, result, json_extract(content, '$.task.fixed_test'), {_NET}, key"
    for count, found in enumerate(store.select(wanted, row, keys, "result IS NOT NULL")):
        for name in found:
            if name not in columns:
                columns[name] = [math.nan] * count
        for name, column in columns.items():
            column.append(found.get(name, math.nan))
    if "hits" in columns:
        columns["hits"] = [unpack_hits(hits) if isinstance(hits, str) else hits for hits in columns["hits"]]
    if requests is not None:
        columns["request"] = [requests.get(str(key)) for key in columns["key"]]
    scores = ["accuracy", "nll", "ece", "brier", "learning_rate", "seconds"]
    return pd.DataFrame(columns).astype(dict.fromkeys(scores, "float64"))  # a missing NLL is NaN, not an object


def curves(store: Store, keys: Collection[str] | None = None) -> pd.DataFrame:
    """Return one row for each finished trial and epoch, at the selected learning rate."""
    trials, parts = curve_columns(store, keys), []
    while some := list(islice(trials, _TOGETHER)):
        parts.append(joined(some, dict.fromkeys(name for one in some for name in one)))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_CURVES))
    numbers = [name for name in _CURVES if name in frame and name.endswith(("accuracy", "nll", "loss"))]
    return frame.astype(dict.fromkeys(numbers, "float64"))


def curve_columns(
    store: Store, keys: Collection[str] | None = None, requests: Mapping[str, str] | None = None, **parse: Any
) -> Iterator[Columns]:
    """Yield the columns of ``curves`` trial by trial, with ``requests`` as above; ``parse`` is for ``json.loads``."""

    def columns(key: str, task: str, method: str, repeat: int, text: str, net: object) -> Columns:
        series = json.loads(text, **parse)
        count = len(next(iter(series.values())))
        name = OLD_NAMES.get(method, method)
        asked = {"dataset": [task] * count, "method": [name] * count, "repeat": [repeat] * count}
        last = {"net": [net] * count} | ({} if requests is None else {"request": [requests.get(key)] * count})
        return {**asked, "epoch": range(1, count + 1), **series, **last}

    return store.select(f"key, task, method, repeat, curves, {_NET}", columns, keys, "curves <> '{}'")


def curve_names(store: Store, keys: Collection[str] | None = None) -> dict[str, bool]:
    """Return the names of the columns of ``curves``, and whether they hold words."""
    listed = "(SELECT json_group_array(json_array(key, instr(value, '\"') > 0)) FROM json_each(curves))"
    series: dict[str, bool] = {}
    names = list(_CURVES)
    for at, kinds in enumerate(dict.fromkeys(store.select(listed, str, keys, "curves <> '{}'"))):
        for name, words in json.loads(kinds):
            series[name] = series.get(name, False) or bool(words)
        if not at:
            names = ["dataset", "method", "repeat", "epoch", *series, "net"]
    return {name: series.get(name, name in ("dataset", "method", "net")) for name in (*names, *series)}


def mean_curves(store: Store, counted: pd.DataFrame) -> pd.DataFrame:
    """Return ``report.mean_curves`` of these results' trials; one method's on one data set are in memory at a time."""
    from crossfade.report import mean_curves

    parts = []
    for (dataset, method), keys in counted.groupby(["dataset", "method"], sort=False)["key"]:
        drawn = joined(curve_columns(store, keys), ("epoch", "val_accuracy", "test_accuracy", "test_nll"))
        parts.append(mean_curves(drawn, ["epoch"]).assign(dataset=str(dataset), method=str(method)))
    return pd.concat(parts, ignore_index=True)


def joined(trials: Iterable[Columns], names: Iterable[str]) -> pd.DataFrame:
    """Return the named columns of trials below each other, NaN where a trial doesn't have one."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for trial in trials:
        for name, column in columns.items():
            column += trial[name] if name in trial else [math.nan] * len(trial["epoch"])
    return pd.DataFrame(columns)


def failures(store: Store, keys: Collection[str] | None = None) -> list[tuple[str, str, int, str]]:
    """Return data set, method, repeat and error of every failed trial."""
    return list(store.select("task, method, repeat, error", lambda *row: row, keys, "error IS NOT NULL"))


def origins(store: Store, keys: Collection[str] | None = None) -> list[str]:
    """Return a line for each machine, commit and version of torch that trials come from; none if all are alike."""
    parts = [f"json_extract(provenance, '$.{name}')" for name in ("machine", "commit", "versions.torch")]
    found = Counter(store.select(", ".join(parts), lambda *row: row, keys))
    lines = [
        f"{in_words(trials, 'trial')} on {machine}, torch {torch}" + (f", commit {commit}" if commit else "")
        for (machine, commit, torch), trials in found.items()
    ]
    return lines if len(lines) > 1 else []


def failure_lines(failed: Sequence[tuple[str, str, int, str]]) -> list[str]:
    """Return one line for each different error: where it came first, and how often it came."""
    by_error: dict[str, list[str]] = {}
    for task, method, repeat, error in failed:
        by_error.setdefault(error, []).append(f"{task}, {method}, repeat {repeat}")
    return [
        f"{first} and {len(more)} more: {error}" if more else f"{first}: {error}"
        for error, (first, *more) in by_error.items()
    ]


def write_results(
    store: Store, keys: Collection[str] | None, requests: Mapping[str, str], file: IO[bytes], kind: str, safe: bool
) -> int:
    """Write a row a finished trial, and return how many; see ``write_curves`` for the arguments."""
    frame = results(store, keys, requests).drop(columns="hits", errors="ignore")
    if kind == "parquet":
        frame.to_parquet(file, index=False)
    else:
        if safe:
            words = frame.select_dtypes(exclude=["number", "bool"])
            frame = frame.assign(**words.map(as_text)).rename(columns=as_text)
        frame.to_csv(file, index=False, sep=_separator(kind))
    return len(frame)


def write_curves(
    store: Store, keys: Collection[str] | None, requests: Mapping[str, str], file: IO[bytes], kind: str, safe: bool
) -> int:
    """Write a row a finished trial and epoch, and return how many.

    Args:
        keys: The trials, None for all.
        requests: What the last column says of a trial, by its key.
        file: Where to write.
        kind: ``"csv"``, ``"tsv"`` or ``"parquet"``.
        safe: Mark words that a spreadsheet would take for formulas as text.
    """
    names = curve_names(store, keys) | {"request": True}
    if kind == "parquet":
        return _write_parquet(curve_columns(store, keys, requests), file, names)
    count, text = 0, io.TextIOWrapper(file, encoding="utf-8", newline="")
    write = csv.writer(text, delimiter=_separator(kind), lineterminator="\n")
    write.writerow(map(as_text, names) if safe else names)
    # Numbers stay as they are written in the store, where floats have all their digits.
    for trial in curve_columns(store, keys, requests, parse_float=str, parse_int=str):
        rows = len(trial["epoch"])
        columns = [trial.get(name, [None] * rows) for name in names]
        write.writerows(zip(*([map(as_text, column) for column in columns] if safe else columns), strict=True))
        count += rows
    text.detach()
    return count


def _write_parquet(trials: Iterator[Columns], file: IO[bytes], names: dict[str, bool]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = {"repeat": pa.int64(), "epoch": pa.int64()}
    schema = pa.schema({name: whole.get(name, pa.string() if words else pa.float64()) for name, words in names.items()})
    count = 0
    with pq.ParquetWriter(file, schema) as writer:
        while some := list(islice(trials, _TOGETHER)):
            writer.write_table(pa.Table.from_pandas(joined(some, names), schema, preserve_index=False))
            count += sum(len(trial["epoch"]) for trial in some)
    return count


def _separator(kind: str) -> str:
    return "\t" if kind == "tsv" else ","


def as_text(cell: Any) -> Any:
    """Return a cell with an apostrophe before it if a spreadsheet would run it as a formula; numbers stay.

    >>> as_text("=cmd()"), as_text("-0.5"), as_text("-x")
    ("'=cmd()", '-0.5', "'-x")
    """
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        with suppress(ValueError):
            float(cell)
            return cell
        return f"'{cell}"
    return cell
