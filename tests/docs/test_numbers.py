"""Every number on a page comes from a file: none with a unit is typed, and those within sentences are up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# What was measured when, with its date: logs.
_LOGS = ("findings.md", "changelog.md")
_PAGES = [
    ROOT / "README.md",
    *(page for page in DOCS.rglob("*.md") if page.name not in _LOGS and "_build" not in page.parts),
]
_UNITS = (
    "%|percent|points?|(?:core-)?seconds?|(?:core-)?minutes?|hours?|days?|ns|µs|us|ms|s|min|h|[kMGT]i?B|"
    "(?:images|tokens|examples|rows|texts)(?:/s| a second)"
)
_TYPED = re.compile(
    rf"[+−-]?\d[\d,.]*\s?(?:{_UNITS})(?![\w/])|\d[\d,]*\.\d+ times|\d[\d.,]*-fold|\d[\d.]*x (?:faster|slower)"
)
# The last phase of F = 0, 0.5, and the level of intervals: not measured, but chosen.
_CHOSEN = {"5 %", "95 %"}


def typed(text: str) -> list[str]:
    """Return the numbers with a unit outside of generated blocks and of code; sizes of downloads are in a file."""
    blocks, code = r"(?s)<!-- from .*?<!-- end -->", (r"(?ms)^( *)```.*?^\1```", r"`(?:[^`\n]|\n(?!\n))*`")
    for written in (blocks, *code, r"\]\([^)]*\)"):
        text = re.sub(written, " ", text)
    sizes = (ROOT / "src/crossfade/lab/data/sources.toml").read_text()
    return [found for found in _TYPED.findall(text) if found not in _CHOSEN and f"({found})" not in sizes]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_number_with_a_unit_is_typed(page: Path) -> None:
    assert not typed(page.read_text()), "let docs/blocks/sentences.py write it from a file in results/"


def test_what_counts_as_a_typed_number() -> None:
    assert typed("It is 0.45 to 0.9 points below, 2.5 times as fast, and took 147 s (3.2 % of 6 GB) on 12 cores.") == [
        "0.9 points", "2.5 times", "147 s", "3.2 %", "6 GB",
    ]  # fmt: skip
    assert not typed(
        "`--equivalent 0.5 points`, 95 % intervals, <!-- from x -->12 %<!-- end -->, 39 MB\n```\n3 s\n```\n"
    )


def test_the_numbers_within_sentences_are_those_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "blocks"))
    import sentences

    for page, blocks in sentences.pages().items():
        text = (ROOT / page).read_text()
        for name, value in blocks.items():
            assert f"<!-- from {name} -->{value}<!-- end -->" in text, f"{page}: run docs/build.py"


def test_every_mark_has_a_file() -> None:
    for page in _PAGES:
        for source in re.findall(r"<!-- from (\S+)", page.read_text()):
            place = ROOT / source.rstrip(",")  # a file, a folder, or a block's name in a folder
            there = any(place.with_name(f"{place.name}{end}").exists() for end in ("", ".csv", ".json"))
            inside = place.parent.is_dir() and place.parent.name != "results"
            assert not source.startswith("results/") or there or inside, f"{page.name}: {source}"
        lines = page.read_text().splitlines()
        assert not [line for line in lines if re.match(r"\s*<!-- from .*?-->\S", line)], "it would end the paragraph"
