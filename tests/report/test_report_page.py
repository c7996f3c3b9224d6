"""`render_page`: any text in, one valid, self-contained, accessible file out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from crossfade.report import (
    Cell,
    Code,
    Column,
    Facts,
    Figure,
    Fold,
    Items,
    Key,
    Page,
    Panel,
    Section,
    Table,
    Text,
    charts,
    render_page,
)
from tests.examples import examples
from tests.report.report_fresh import Fresh
from tests.report.report_markup import Page as Parsed

STYLE = Path(charts.__file__).with_name("templates") / "page.css"


def everything(text: str) -> Page:
    """A page that shows ``text`` in every place there is."""
    drawing = charts.dot_chart([charts.DotRow(text, "s1", [1.0], 1.0)], title=text, name=text, least=0.5)
    table = Table(text, (Column(text, text, "left"), Column(text)), ((text, Cell(text, text, "good")),), (text,))
    figure = Figure((Panel(drawing, text), Panel(drawing)), text, (Key(text, "line s1"),))
    words = (Text(text), Text(text, "warn"), Items((text,), "warn"), Facts(((text, text),), text), Code(text, text))
    return Page(
        title=text, lead=text, verdict=(text, text), details=(text,), caution=text, footer=text,
        sections=(
            Section("one", text, (table, figure, *words)),
            Section("two", text, (Fold(text, (Fold(text, (table,)), figure), open=True),)),
        ),
    )  # fmt: skip


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=https://example.org/x onerror=alert(1)>',
    "' onload='x' & &amp; &lt; </style></title></textarea><!--",
    "]]> {{ 7 * 7 }} {% raw %} ${x} \\",
    "naïve Größe 数据集 مجموعة 🙂 e\u0301 \u202eabc\u202c",
    "nul\x00 bell\x07 escape\x1b surrogate\ud800 delete\x7f",
    "x" * 3000,
    "two\nlines\tand tabs  ",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text: str) -> None:
    html = render_page(everything(text))
    page = Parsed(html)
    assert page.problems == []
    html.encode("utf-8")
    shown = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)
    for tag in ("title", "h1", "h3", "caption", "figcaption", "dt", "dd", "code", "summary"):
        assert all(shown in found for found in page.texts[tag]), tag
    names = [a["aria-label"] for a in page.all("svg") if a.get("role") == "img"]
    assert names == [shown] * 4


@examples(25)
@given(st.text(min_size=1))
def test_any_text_gives_a_valid_page(text: str) -> None:
    visible = text if text.strip() else "x"
    html = render_page(everything(visible))
    assert [p for p in Parsed(html).problems if p != "a drawing without a name"] == []
    html.encode("utf-8")


def test_the_same_structure_whatever_the_text() -> None:
    plain, hostile = (Parsed(render_page(everything(text))) for text in ("plain", "<b>bold</b><script>"))
    assert [tag for tag, _ in plain.elements] == [tag for tag, _ in hostile.elements]


def test_one_script_alone_is_allowed_and_folds_that_are_closed_are_not_printed() -> None:
    html = render_page(everything("x"))
    assert len(re.findall(r"<script>", html)) == 1
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", html)
    printed = STYLE.read_text().split("@media print")[-1]
    assert re.search(r"details:not\(\[open\]\)[^{]*\{ display: none; \}", printed)


def test_every_kind_of_block_is_shown_once_where_it_belongs() -> None:
    blocks = (Text("a paragraph"), Items(("an item",)), Facts((("a name", "a value"),)), Code("some code", "its label"))
    page = Parsed(render_page(Page("t", "l", ("v",), (Section("only", "Heading", (Fold("more", blocks),)),))))
    html = page.texts["details"][0]
    for words in ("more", "a paragraph", "an item", "a name", "a value", "some code", "its label"):
        assert html.count(words) == 1
    assert page.all("details") == [{}]  # closed unless asked
    assert page.texts["h2"] == ["Verdict", "Heading"]


def test_cells_carry_their_note_and_tone() -> None:
    table = Table("c", (Column("a", align="left"), Column("b")), (("row", Cell("1.0", "0 to 2", "bad")),))
    html = render_page(Page("t", "l", ("v",), (Section("s", "S", (table,)),)))
    assert '<td class="bad">1.0<small>0 to 2</small></td>' in html
    assert '<th scope="row" class="left">row</th>' in html


def test_drawings_of_another_hand_get_a_name_and_a_white_ground() -> None:
    drawing = Markup('<svg viewBox="0 0 1 1"><path id="a-1" d="M0 0h1"/></svg>')
    panels = (Panel(drawing, name="mean <ranks>"), Panel(drawing, "heading"), Panel(drawing))
    html = render_page(Page("t", "l", ("v",), (Section("s", "S", (Figure(panels, "caption"),)),)))
    wrapped = [a["aria-label"] for a in Parsed(html).all("div") if a.get("role") == "img"]
    assert wrapped == ["mean <ranks>", "heading", "caption"]


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 columns, got a row of 3"):
        Table("c", (Column("a"), Column("b")), (("1", "2", "3"),))


@pytest.mark.parametrize("ids", [("a", "a"), ("verdict",), ("A",), ("1a",), ('x" onload="y',), ("",)])
def test_ids_that_cannot_be_anchors_are_refused(ids: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="section ids"):
        render_page(Page("t", "l", ("v",), tuple(Section(id_, "S", ()) for id_ in ids)))


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_in_light_dark_and_print() -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for lines of a drawing."""
    modes = [_colours(block) for block in re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)]
    modes = [mode for mode in modes if mode]
    assert len(modes) == 3
    assert len({frozenset(mode) for mode in modes}) == 1, "a mode lacks a colour"
    for mode in modes:
        text = [(name, back) for name in ("ink", "muted", "accent", "good", "bad") for back in ("paper", "card")]
        text += [("warn", "paper"), ("ink", "warn-card")]
        for name, back in text:
            assert _contrast(mode[name], mode[back]) >= 4.5, (name, back, mode)
        for line in ("s1", "s2", "s3", "s4", "s5", "s6", "ink", "muted"):
            assert _contrast(mode[line], mode["paper"]) >= 3, (line, mode)


def test_importing_the_report_loads_no_torch(fresh: Fresh) -> None:
    assert not fresh.after_report & {"torch", "matplotlib"}


def test_all_of_the_statistics_load_no_torch(fresh: Fresh) -> None:
    assert "matplotlib" in fresh.after_statistics
    assert "torch" not in fresh.after_statistics
