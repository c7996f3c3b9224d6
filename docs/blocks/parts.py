"""The provenance of results that were merged from several stores: what each part was computed with."""

from __future__ import annotations

import json
from collections.abc import Iterable

from crossfade.lab.store import Row


def parts_of(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Return an entry for all trials of one commit, machine, day, set of versions and model, with their number."""
    found: dict[str, dict[str, object]] = {}
    for row in rows:
        origin = row.provenance
        model = row.content["recipe"].get("digest") or row.content["recipe"].get("model")
        about = {
            "commit": origin["commit"],
            "time": origin["time"][:10],
            "machine": origin["machine"],
            "versions": origin["versions"],
            "model": model,
        }
        part = found.setdefault(json.dumps(about, sort_keys=True), {"trials": 0, "data": [], **about})
        part["trials"] = int(str(part["trials"])) + 1
        names = part["data"]
        assert isinstance(names, list)
        if row.task not in names:
            names.append(row.task)
    return [{name: value for name, value in part.items() if value is not None} for part in found.values()]


def joined(*descriptions: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """Return the descriptions of data sets of several runs, each data set once."""
    return list({one["name"]: one for several in descriptions for one in several}.values())
