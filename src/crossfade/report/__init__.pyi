from .comparison import (
    comparison_page as comparison_page,
    render_comparison as render_comparison,
)
from .inputs import mean_curves as mean_curves
from .page import (
    Block as Block,
    Cell as Cell,
    Code as Code,
    Column as Column,
    Facts as Facts,
    Figure as Figure,
    Fold as Fold,
    Items as Items,
    Key as Key,
    Page as Page,
    Panel as Panel,
    Section as Section,
    Table as Table,
    Text as Text,
    render_page as render_page,
)
