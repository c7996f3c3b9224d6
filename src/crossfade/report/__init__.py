"""Reports: one self-contained HTML file from a frame of results, and the parts to build other pages from."""

from crossfade.report.comparison import comparison_page, render_comparison
from crossfade.report.page import (
    Block,
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
    render_page,
)

__all__ = [
    "Block",
    "Cell",
    "Code",
    "Column",
    "Facts",
    "Figure",
    "Fold",
    "Items",
    "Key",
    "Page",
    "Panel",
    "Section",
    "Table",
    "Text",
    "comparison_page",
    "render_comparison",
    "render_page",
]
