"""A check of the public names against the last release: python .ci/api.py TAG

What was removed, or changed so that callers break, must be named under "Removed" in the changelog's newest section.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

sys.path.insert(1, str(Path(__file__).parents[1] / "docs"))
import api_pages

ROOT = Path(__file__).parents[1]


def changes(tag: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the description of each change that breaks callers."""
    before = griffe.load_git("crossfade", ref=tag, repo=ROOT, search_paths=["src"])
    after = griffe.load("crossfade", search_paths=[ROOT / "src"])
    public = set()
    for package in api_pages.PAGES:
        groups = api_pages.public_names(package)
        public |= {f"{module}.{name.rpartition('.')[2]}" for module, names in groups.items() for name in names}
        path = package.split(".")[1:]
        if path and path[0] not in before.members:
            continue  # a new one
        lost = set((before[path] if path else before).members) - set((after[path] if path else after).members)
        yield from ((name, f"{package}.{name}: was removed") for name in lost if not name.startswith("_"))
    for change in griffe.find_breaking_changes(before, after):
        path = change.obj.path.removesuffix(".__init__")
        # The library makes its results itself: one more field of a data class breaks nobody.
        made = path != change.obj.path and not change.obj.lineno
        if not made and (path in public or path.rpartition(".")[0] in public):
            yield change.obj.name, change.explain(griffe.ExplanationStyle.ONE_LINE)


def main() -> int:
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    removed = newest.partition("### Removed")[2]
    untold = {text for name, text in changes(sys.argv[1]) if not re.search(rf"\b{re.escape(name)}\b", removed)}
    print(*sorted(untold), sep="\n")
    return bool(untold)


if __name__ == "__main__":
    sys.exit(main())
