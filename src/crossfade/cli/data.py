"""``crossfade data``: the data sets that the lab knows, and how to get them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crossfade.cli.options import Quiet
from crossfade.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crossfade.lab.data.sources import DataSet


def data(
    name: str | None = None, /, *, data_dir: Path | None = None, download: bool = False, quiet: Quiet = False
) -> int:
    """List the data sets that the lab knows, where they come from and whether they are here; or get one.

    Args:
        name: One data set; without it, all are listed.
        data_dir: Where the data is, or goes. Default: $CROSSFADE_DATA, or crossfade/data in the user's cache folder.
        download: Fetch and unpack NAME. A download that was broken off goes on where it stopped.
    """
    from crossfade.lab.data.sources import CATALOGUE, default_data_dir

    folder = data_dir or default_data_dir()
    if name is not None and name not in CATALOGUE:
        raise UserError(f"data set {name!r} is unknown (known: {', '.join(CATALOGUE)})")
    if download and name is None:
        raise UserError("--download needs the name of a data set: crossfade data NAME --download")
    entries = [CATALOGUE[name]] if name else list(CATALOGUE.values())
    if download:
        _get(entries[0], folder, quiet)
    width = max(len(entry.name) for entry in entries)
    print(f"data folder: {folder}")
    for entry in entries:
        here = entry.here(folder)
        print(f"{entry.name:{width}}  {entry.title} ({entry.used_by})")
        print(f"{'':{width}}  {'here: ' + here if here else 'not here. ' + entry.how}")
        if name and entry.url:
            print(f"{'':{width}}  from {entry.url}")
    return 0


def _get(entry: DataSet, folder: Path, quiet: bool) -> None:
    from crossfade.lab.data.sources import download, unpack

    if entry.here(folder):
        return
    if entry.url is None:
        raise UserError(f"{entry.name} can't be downloaded by a program: {entry.how}")
    if entry.checksum is None and not quiet:
        about = "its owner publishes no checksum; what the archive holds is checked when it is read"
        print(f"{entry.name}: {about}", file=sys.stderr)
    shown: Callable[[int, int], None] = (lambda done, total: None) if quiet else _Line()
    archive = download(entry.url, folder / entry.url.rpartition("/")[2], checksum=entry.checksum, on_progress=shown)
    target = unpack(archive, folder / entry.folder)
    inner = target / entry.folder
    if inner.is_dir():  # the archive brought its own folder of the same name
        spare = target.with_name(target.name + ".outer")
        target.replace(spare)
        (spare / entry.folder).replace(target)
        if not any(spare.iterdir()):
            spare.rmdir()


class _Line:
    """Progress of a download: one line that is overwritten on a terminal; in a log, one line for every tenth."""

    _tenth = -1

    def __call__(self, done: int, total: int) -> None:
        tenth = 10 * done // total if total else done >> 25
        if sys.stderr.isatty():
            print(f"\r{done / 1e6:.0f} of {total / 1e6:.0f} MB ", end="", file=sys.stderr, flush=True)
        elif tenth != self._tenth:
            self._tenth = tenth
            print(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB", file=sys.stderr, flush=True)
