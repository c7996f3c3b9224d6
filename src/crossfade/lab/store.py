"""The store of results: one SQLite file, one transaction a trial, written by the driving process alone.

A process may be killed at any moment: what was committed stays, what wasn't is run again. Readers never wait for the
writer (WAL). A second run on the same file, whatever name it comes by, is refused before it does anything.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from crossfade.errors import UserError
from crossfade.lab.files import replacing
from crossfade.lab.trial import Json, Trial, digest

_APPLICATION = 0x43524644  # "CRFD" in the file's header: this SQLite file is ours
_SCHEMA = 1
_TOGETHER = 500  # rows that are read at once
_TABLES = """
CREATE TABLE trials (
    key TEXT PRIMARY KEY, study TEXT NOT NULL, task TEXT NOT NULL, method TEXT NOT NULL, repeat INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'failed')), error TEXT,
    content TEXT NOT NULL, result TEXT, curves TEXT, provenance TEXT NOT NULL, finished REAL NOT NULL
);
CREATE TABLE runs (
    id TEXT PRIMARY KEY, study TEXT NOT NULL, started REAL NOT NULL, request TEXT NOT NULL, keys TEXT NOT NULL
);
"""
# Made beside its place, without a journal: what a kill leaves of it is begun again.
_NEW = (
    f"PRAGMA journal_mode = MEMORY; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA}; {_TABLES}"
)
_log = logging.getLogger(__name__)
# What to do about SQLite's errors, by a word of their text.
_ERRORS = {
    "full": "the disk is full; free some space and run the same command again: what is stored is safe",
    "disk I/O": "the disk refused to write; check space and quota and run the same command again",
    "readonly": "it can't be written to; make it writable or name another one with --store",
    "unable to open": "can't be opened; check its and the folder's permissions or name another one with --store",
    "locked": "another program keeps it locked; close that, or name another one with --store",
    "malformed": "the file is damaged; restore a copy of it, or name another one with --store to start again",
    "not a database": "not a crossfade store (not an SQLite file), or damaged; name another one with --store",
}


T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """The end of one trial: ``result`` and ``curves`` when it is done, ``error`` (one line) when it failed.

    ``origin`` is its provenance, if it wasn't computed by this process.
    """

    result: Json | None = None
    curves: Mapping[str, Sequence[float | str | None]] | None = None
    error: str | None = None
    origin: Json | None = None

    @property
    def status(self) -> Literal["done", "failed"]:
        """``"done"`` or ``"failed"``."""
        return "done" if self.error is None else "failed"


@dataclass(frozen=True)
class Row:
    """One trial as it lies in the store."""

    key: str
    study: str
    task: str
    method: str
    repeat: int
    outcome: Outcome
    content: Json
    provenance: Json


@dataclass(frozen=True)
class Run:
    """One request: what its page needs (``request``), and the keys of its trials."""

    study: str
    request: Json
    keys: tuple[str, ...]
    started: float = field(default=0.0, compare=False)

    @cached_property  # it hashes all keys, and is asked for once a trial
    def id(self) -> str:
        """Twelve hex digits; the same trials, whenever they are asked for, are the same run."""
        return digest([self.study, list(self.keys)])[:12]


class Store:
    """One file of results. Use as a context manager.

    Args:
        path: The file, made if it isn't there; ``":memory:"`` keeps the results in this process.
        mode: ``"write"`` takes the file for one run; ``"read"`` opens an existing file and changes nothing.

    Raises:
        UserError: no such file (reading), not a store, damaged, not writable, or in use by another run.
    """

    def __init__(self, path: str | Path, mode: Literal["write", "read"] = "write") -> None:
        self.path = str(path)
        if self.path != ":memory:":
            _check_file(Path(path), mode)
        with ExitStack() as held, self._errors():
            if mode == "read":
                self._db = held.enter_context(closing(_open_for_reading(_one_name(Path(path)))))
                self._check_ours()
            else:
                name = self.path
                if name != ":memory:":
                    held.enter_context(_locked(Path(path).resolve()))
                    name = str(_one_name(Path(path)))
                self._db = held.enter_context(closing(sqlite3.connect(name, isolation_level=None, timeout=30)))
                self._prepare()
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let the next run have it."""
        self._held.close()

    def statuses(self, keys: Collection[str]) -> dict[str, str]:
        """Return ``"done"`` or ``"failed"`` for those of ``keys`` that the store knows."""
        return dict(self.select("key, status", lambda *row: row, keys))

    def put(self, trial: Trial, outcome: Outcome, provenance: Json) -> None:
        """Write one trial, in one transaction; a row with its key is replaced."""
        asked = (trial.key, trial.study, trial.task.name, trial.method.name, trial.repeat)
        plain = map(_dump, (trial.content, outcome.result, outcome.curves))
        row = (*asked, outcome.status, outcome.error, *plain, time.time())
        self._insert("trials", *row[:-1], _signed(provenance, row), row[-1])

    def rows(self, keys: Collection[str] | None = None, curves: bool = False) -> Iterator[Row]:
        """Yield the trials of ``keys`` in their order, or all by study, data set, method and repeat.

        Curves are most of the file: they come on request only.
        """

        def row(*cells: Any) -> Row:
            key, study, task, method, repeat, result, curve, error, content, provenance = cells
            outcome = Outcome(_load(result), _load(curve), error)
            return Row(key, study, task, method, repeat, outcome, _load(content), _unsigned(provenance)[0])

        read = "curves" if curves else "NULL"
        return self.select(f"key, study, task, method, repeat, result, {read}, error, content, provenance", row, keys)

    def select(
        self, columns: str, make: Callable[..., T], keys: Collection[str] | None = None, where: str = "true"
    ) -> Iterator[T]:
        """Yield what ``make`` returns for these columns (in SQL) of trials, ordered as ``rows`` orders them.

        Only a few hundred rows are in memory at a time. Malformed JSON is an error of the store in ``make``, too.
        """
        with self._errors():
            if keys is None:
                ordered = "SELECT key FROM trials ORDER BY study, task, method, repeat, key"
                keys = [key for (key,) in self._db.execute(ordered)]
            waiting = iter(dict.fromkeys(keys))
            while some := tuple(islice(waiting, _TOGETHER)):
                marks = ", ".join("?" * len(some))
                query = f"SELECT key, {columns} FROM trials WHERE key IN ({marks}) AND {where}"
                found = {key: cells for key, *cells in self._db.execute(query, some)}
                yield from (make(*found[key]) for key in some if key in found)

    def save(self, run: Run) -> None:
        """Write down what was asked for, so that ``status`` and ``report`` need nothing but this file."""
        row = (run.id, run.study, time.time(), _dump(list(run.keys)))
        self._insert("runs", *row[:-1], _signed(run.request, row), row[-1])

    def runs(self) -> list[Run]:
        """Return every request written here, the latest first: a row that is replaced gets a new place at the end."""
        found = []
        with self._errors():
            for *row, request, keys in self._db.execute("SELECT * FROM runs ORDER BY rowid DESC").fetchall():
                asked, signature = _unsigned(request)
                if signature not in (None, _signature(asked, (*row, keys))):
                    raise sqlite3.DatabaseError(f"malformed: request {row[0]}")
                found.append(Run(row[1], asked, tuple(json.loads(keys)), row[2]))
        return found

    def verify(self) -> tuple[int, int]:
        """Read everything; return how many trials there are, and how many an older crossfade wrote without a checksum.

        Raises:
            UserError: a damaged file, request or trial.
        """
        whole, older, damaged = 0, 0, []
        with self._errors():
            self._check_pages("integrity_check")
            for *row, provenance, finished in self._db.execute("SELECT * FROM trials"):
                whole += 1
                with suppress(ValueError):
                    origin, signature = _unsigned(provenance)
                    older += signature is None
                    list(map(_load, row[7:]))  # all that can be said of an older one
                    if signature in (None, _signature(origin, (*row, finished))):
                        continue
                damaged.append(f"{row[2]}, {row[3]}, repeat {row[4]}")
        self.runs()
        if damaged:
            first = "; ".join(damaged[:3])
            raise UserError(
                f"store {self.path}: {len(damaged)} of {whole} trials are damaged ({first}); restore a backup"
            )
        return whole, older

    def backup(self, path: Path) -> None:
        """Write a copy of everything that is stored to a new file; a run may go on writing meanwhile."""
        with (
            self._errors(),
            replacing(path, "--backup") as file,
            closing(sqlite3.connect(file.name, isolation_level=None)) as copy,
        ):
            self._db.backup(copy)

    def _insert(self, table: str, *row: object) -> None:
        with self._errors():
            self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)

    def _prepare(self) -> None:
        if self.path == ":memory:":
            self._db.executescript(_NEW)
        self._check_ours()
        self._check_pages("quick_check")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")

    def _check_ours(self) -> None:
        if self._value("PRAGMA application_id") != _APPLICATION:
            raise UserError(
                f"store {self.path}: an SQLite file, but not one of crossfade's; name another one with --store"
            )
        schema = self._value("PRAGMA user_version")
        if schema != _SCHEMA:
            known = f"written in layout {schema}, this version reads {_SCHEMA}"
            raise UserError(f"store {self.path}: {known}; update crossfade or name another one with --store")

    def _check_pages(self, how: str) -> None:
        damage = self._value(f"PRAGMA {how}(1)")
        if damage != "ok":
            raise sqlite3.DatabaseError(f"malformed: {damage}")

    def _value(self, query: str) -> object:
        return self._db.execute(query).fetchone()[0]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (BlockingIOError, TimeoutError):
            advice = "wait until that ends, or name another one with --store"
            raise UserError(f"store {self.path}: another run is writing to it; {advice}") from None
        except OSError as error:
            raise UserError(f"store {self.path}: {error.strerror}; name another one with --store") from None
        except UserError:
            raise
        except (sqlite3.Error, ValueError, TypeError) as error:
            unknown = f"the file is damaged ({error}); restore a copy of it, or name another one with --store"
            line = next((line for sign, line in _ERRORS.items() if sign in str(error)), unknown)
            raise UserError(f"store {self.path}: {line}") from None


def _dump(value: object) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _signed(content: Json, row: Sequence[object]) -> str | None:
    """Return JSON with a checksum of itself and of the rest of its row."""
    return _dump({**content, "checksum": _signature(content, row)})


def _signature(content: Json, row: Sequence[object]) -> str:
    return digest([content, *row])


def _unsigned(text: str) -> tuple[Json, str | None]:
    """Return the content of signed JSON and its checksum, None if an older crossfade wrote it."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    return content, content.pop("checksum", None)


def _check_file(path: Path, mode: str) -> None:
    if path.is_dir():
        raise UserError(f"store {path}: a folder, expected a file")
    if not path.exists():
        if mode == "read":
            raise UserError(f"store {path}: no such file; `crossfade compare` makes one, --store names another")
        if not path.parent.is_dir():
            raise UserError(f"store {path}: the folder {path.parent} isn't there; make it first")
    elif not path.is_file():
        raise UserError(f"store {path}: a pipe or a device, expected a file")
    elif mode == "write" and not os.access(path, os.W_OK):
        raise UserError(f"store {path}: it can't be written to; make it writable or name another one with --store")


def _one_name(path: Path) -> Path:
    """Return one name for all symbolic links, and hard links in a folder: SQLite keeps its log beside the name."""
    path = path.resolve()
    if not path.exists() or path.stat().st_nlink == 1:
        return path
    with os.scandir(path.parent) as there:
        names = sorted(one.path for one in there if one.inode() == path.stat().st_ino)
    if len(names) < path.stat().st_nlink:
        _log.warning("store %s: what an unfinished run keeps beside its name in another folder isn't seen here", path)
    return Path(names[0])


def _locked(path: Path) -> ExitStack:
    """Lock a store for one writer until the result is closed; one that isn't there, or is empty, is made.

    It is made beside its place and moved there, locked already: nobody ever sees a file without its header and tables.
    """
    new = Path(f"{path}.new")
    while True:
        with ExitStack() as held:
            made = path.exists() and path.stat().st_size > 0
            file = os.open(path if made else new, os.O_RDWR | os.O_CREAT, 0o666)
            held.callback(os.close, file)
            if sys.platform == "linux":
                # A lock of the open file, whatever names lead to it, also from other machines by NFS; on a byte far
                # beyond those that SQLite locks.
                from fcntl import F_OFD_SETLK, F_WRLCK, fcntl

                fcntl(file, F_OFD_SETLK, struct.pack("hhqqi", F_WRLCK, os.SEEK_SET, 1 << 62, 1, 0))
            else:
                from filelock import FileLock

                held.enter_context(FileLock(f"{path}.lock", timeout=0))
            if not made:
                held.callback(new.unlink, missing_ok=True)
                if not path.exists() or not path.stat().st_size:
                    os.truncate(file, 0)
                    with closing(sqlite3.connect(new, isolation_level=None)) as db:
                        db.executescript(_NEW)
                    new.replace(path)
            if os.path.samestat(os.fstat(file), path.stat()):  # or another run has moved its own there meanwhile
                return held.pop_all()


def _open_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection that can't write; in a folder where SQLite may not make its side files, as a snapshot."""
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    # A connection that may not write can't tidy up the side files of the last one: they would stay.
    uri = path.as_uri() + ("?mode=rw" if writable else "?mode=ro")
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    try:
        db.execute("PRAGMA query_only = ON")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        db.close()
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:  # rows that the file itself doesn't have yet
            return _snapshot(path, log)
        db = sqlite3.connect(uri + "&immutable=1", uri=True, isolation_level=None)
    return db


def _snapshot(*files: Path) -> sqlite3.Connection:
    """Return the content of a store and its log, by way of copies in a temporary folder."""
    before, memory = [file.stat().st_mtime_ns for file in files], sqlite3.connect(":memory:", isolation_level=None)
    with tempfile.TemporaryDirectory() as folder:
        copies = [shutil.copyfile(file, Path(folder, file.name)) for file in files]
        if [file.stat().st_mtime_ns for file in files] != before:
            raise sqlite3.OperationalError("locked")
        with closing(sqlite3.connect(copies[0], isolation_level=None)) as db:
            db.backup(memory)
    return memory
