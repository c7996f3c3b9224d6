"""A command in a process of its own that is struck at a named point: by a signal, or by a disk that fails."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# Files by the place where they are written: a temporary file's name has a dot and letters around it.
FILES = {
    "checkpoint": r"\.last\.ckpt\.",
    "recording": r"/p(robabilities)?\.npy$|/\.\d+\.npy$",
    "measurements": r"\.measured\.json\.",
    "page": r"\.(page\.(html|md)|transitions\.csv|along\.csv|peaks\.csv|claims\.csv)\.",
    "answer": r"\.answer\.json\.",
    "figure": r"\.[\w-]+\.svg\.",
    "provenance": r"\.provenance\.json\.",
    "weights": r"\.[\w.]+\.safetensors\.",
    "table": r"\.table\.csv\.",
}


def run(command: list[str], folder: Path, point: str = "", strike: str = "", number: int = 1) -> None:
    """Run a command in a folder, with what it says in ``out`` and ``err``.

    Args:
        point: Where it is struck: ``"row"`` before a trial is stored, ``"commit"`` while it is, or one of ``FILES``.
        strike: The name of a signal, or of an error (ENOSPC, EIO).
        number: At which of such moments; each earlier one passes.
    """
    os.chdir(folder)
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    small()
    if point:
        arm(point, blow(strike), number)
    from joblib.externals.loky import reusable_executor

    from crossfade.cli import main

    try:
        main(command)
    finally:
        # multiprocessing waits for idle workers, an interpreter's end doesn't
        if reusable_executor._executor is not None:
            reusable_executor._executor.shutdown(kill_workers=True)


def blow(strike: str) -> Callable[[int | None], None]:
    """Return what strikes the process; given an open file that is being written, its second half is lost first."""

    def strike_now(file: int | None) -> None:
        if file is not None:
            os.truncate(file, os.fstat(file).st_size // 2)
        if strike.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[strike])
        else:
            code = getattr(errno, strike)
            raise OSError(code, os.strerror(code))

    return strike_now


def arm(point: str, strike: Callable[[int | None], None], number: int) -> None:
    """Have the process struck at a point."""
    from crossfade.lab.store import Store

    seen = 0

    def now() -> bool:
        nonlocal seen
        seen += 1
        return seen == number

    insert, sync = Store._insert, os.fsync

    def struck_insert(store: Store, table: str, *row: object) -> None:
        if table != "trials" or point not in ("row", "commit") or not now():
            insert(store, table, *row)
            return
        if point == "commit":
            store._db.execute("BEGIN")
            insert(store, table, *row)
        try:
            strike(None)
        finally:  # as SQLite does with its one statement; a killed process doesn't come here
            if point == "commit":
                store._db.execute("ROLLBACK")
        raise AssertionError("the process went on")

    def struck_sync(file: int) -> None:
        if point in FILES and re.search(FILES[point], os.readlink(f"/proc/self/fd/{file}")) and now():
            strike(file)
        sync(file)

    Store._insert, os.fsync = struck_insert, struck_sync  # type: ignore[method-assign]


def limit(size: int) -> None:
    """Have the system kill this process as it writes beyond so many bytes of any file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def small() -> None:
    """Cut published data and networks down, and give every trial of tables a batch of its own."""
    import crossfade.lab.run as lab_run
    from crossfade.lab.data.image_sets import IMAGE_SETS
    from crossfade.lab.nets import SMALL_NETS
    from tests.images.image_cases import tiny

    lab_run.BATCH = 1.0
    for name in ("cifar100", "cinic10"):
        IMAGE_SETS[name] = replace(IMAGE_SETS[name], train=TRAIN, test=TEST, classes=4)
    for name in (*SMALL_NETS, "shufflenet_v2_x1_0"):
        SMALL_NETS[name] = tiny(norm=True)


TRAIN, TEST = 80, 20  # images of the cut-down sets, of four classes
