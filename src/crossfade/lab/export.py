"""A store's results or training curves written to a CSV, TSV or Parquet file; curves a few hundred trials at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from crossfade.lab import frames

if TYPE_CHECKING:
    from crossfade.lab.store import Store

_TOGETHER = 500  # trials in a row group of a Parquet file


def write_results(
    store: Store, keys: Collection[str] | None, requests: Mapping[str, str], file: IO[bytes], kind: str, safe: bool
) -> int:
    """Write a row a finished trial, and return how many; see ``write_curves`` for the arguments."""
    frame = frames.results(store, keys, requests).drop(columns="hits", errors="ignore")
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
    names = frames.curve_names(store, keys) | {"request": True}
    if kind == "parquet":
        return _write_parquet(frames.curve_columns(store, keys, requests), file, names)
    count, text = 0, io.TextIOWrapper(file, encoding="utf-8", newline="")
    write = csv.writer(text, delimiter=_separator(kind), lineterminator="\n")
    write.writerow(map(as_text, names) if safe else names)
    # Numbers stay as they are written in the store, where floats have all their digits.
    for trial in frames.curve_columns(store, keys, requests, parse_float=str, parse_int=str):
        rows = len(trial["epoch"])
        columns = [trial.get(name, [None] * rows) for name in names]
        write.writerows(zip(*([map(as_text, column) for column in columns] if safe else columns), strict=True))
        count += rows
    text.detach()
    return count


def _write_parquet(trials: Iterator[frames.Columns], file: IO[bytes], names: dict[str, bool]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = {"repeat": pa.int64(), "epoch": pa.int64()}
    schema = pa.schema({name: whole.get(name, pa.string() if words else pa.float64()) for name, words in names.items()})
    count = 0
    with pq.ParquetWriter(file, schema) as writer:
        while some := list(islice(trials, _TOGETHER)):
            writer.write_table(pa.Table.from_pandas(frames.joined(some, names), schema, preserve_index=False))
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
