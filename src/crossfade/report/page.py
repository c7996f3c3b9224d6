"""The parts of a page and `render_page`, which writes them as one self-contained HTML file.

A page is plain data: a verdict, then sections of text, tables, figures, facts and code. Only this module and its
template know HTML. Everything in a page is text and is escaped, except for the drawings in a `Panel`, which
`crossfade.report.charts` makes and escapes itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

Tone: TypeAlias = Literal["", "good", "bad", "best", "warn", "quiet"]

# Not allowed in HTML text, or not encodable as UTF-8: they come in with column names of damaged files.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_LONG_WORD = 18  # characters


@dataclass(frozen=True)
class Cell:
    """A table cell. ``note`` is a second, smaller line; ``tone`` only repeats in colour what the text says."""

    text: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """A table column: its heading, a unit or hint in small print below it, and where its text stands."""

    title: str
    hint: str = ""
    align: Literal["left", "right"] = "right"

    @property
    def style(self) -> str:
        """Class names: where the text stands, and whether a word of the title is too long to stay whole."""
        long = any(len(word) > _LONG_WORD for word in self.title.split())
        return " ".join(name for name, wanted in (("left", self.align == "left"), ("long", long)) if wanted)


@dataclass(frozen=True)
class Table:
    """A table. The first cell of each row is the row's heading."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def name_length(self) -> int:
        """Characters of the longest row heading."""
        heads = [row[0] if isinstance(row[0], str) else row[0].text for row in self.rows]
        return max(map(len, heads), default=0)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.caption!r} has {len(self.columns)} columns, got a row of {len(row)}")


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure.

    ``svg`` is one element, trusted as it stands; ids in it must be unique on the page. A drawing of another hand,
    without an ``aria-label``, is shown on white and named ``name`` (or the heading, or the caption) to a screen reader.
    """

    svg: Markup
    heading: str = ""
    name: str = ""

    @property
    def named(self) -> bool:
        """Whether the drawing names itself."""
        return " aria-label=" in self.svg.partition(">")[0]


@dataclass(frozen=True)
class Key:
    """A legend entry; ``style`` holds the class names of the line it explains."""

    label: str
    style: str


@dataclass(frozen=True)
class Figure:
    """Panels that share a legend and a caption."""

    panels: tuple[Panel, ...]
    caption: str
    legend: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Items:
    """A bulleted list."""

    items: tuple[str, ...]
    tone: Tone = ""


@dataclass(frozen=True)
class Facts:
    """Names and their values, as a description list, below a heading where there is one."""

    facts: tuple[tuple[str, str], ...]
    title: str = ""


@dataclass(frozen=True)
class Code:
    """Text to be copied as it stands: a command, a hash."""

    code: str
    label: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks behind a summary line that opens them; printed open."""

    summary: str
    blocks: tuple[Block, ...]
    open: bool = False


Block: TypeAlias = Table | Figure | Text | Items | Facts | Code | Fold


@dataclass(frozen=True)
class Section:
    """A heading with blocks. ``id`` is the anchor that the table of contents links to."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole page: what was found first, then the sections that support it.

    Attributes:
        title: the heading and the browser's title.
        lead: one line on what was compared.
        verdict: what was found, in sentences; the first is set large.
        caution: one line that a reader must see before believing the verdict; may be empty.
        details: further sentences of the verdict, as a list below it.
        sections: in reading order, their ``id`` unique.
        footer: one closing line.
    """

    title: str
    lead: str
    verdict: tuple[str, ...]
    sections: tuple[Section, ...]
    details: tuple[str, ...] = ()
    caution: str = ""
    footer: str = ""


@cache
def _template() -> Template:
    loader = PackageLoader("crossfade.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The one script is named by its hash, so that no other can run, whatever a name on the page holds.
    script = loader.get_source(environment, "page.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html", globals={"script": Markup(script), "script_hash": f"sha256-{digest}"})


def render_page(page: Page) -> str:
    """Return one HTML file with inline style and drawings, without addresses; the same bytes every time.

    Raises:
        ValueError: two sections with the same ``id``, or one that can't be an anchor.
    """
    ids = [section.id for section in page.sections]
    if len({*ids, "verdict"}) <= len(ids) or any(not re.fullmatch(r"[a-z][a-z0-9-]*", id_) for id_ in ids):
        raise ValueError(f"section ids must be unique, not 'verdict', and of a-z, 0-9 and '-', got {ids}")
    return _UNPRINTABLE.sub("\ufffd", _template().render(page=page))
