"""``crossfade stats``: the statistics of the paper's Table 4 and Figure 3 for any table of results."""

from __future__ import annotations

from math import ceil, log10
from pathlib import Path
from typing import TYPE_CHECKING

from crossfade.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from crossfade.stats import Analysis, Interval

__all__ = ["stats"]

# Beyond this many methods a matrix of p-values is no longer readable in a terminal; figure and JSON have it.
_MATRIX = 8


def stats(
    file: Path,
    /,
    *,
    block: str = "dataset",
    method: str = "method",
    score: str = "accuracy",
    control: str | None = None,
    repeat: str | None = None,
    lower_is_better: bool = False,
    out: Path | None = None,
    alpha: float = 0.05,
    json: Path | None = None,
) -> int:
    """Compare methods over data sets, from any table with a row a result.

    Prints wins, mean differences and mean ranks, Friedman's test, which methods can't be told apart (Conover, adjusted
    by Benjamini and Hochberg), and every method against a control (Wilcoxon, adjusted by Holm's method).

    Args:
        file: CSV, TSV or Parquet.
        block: Column of the data sets.
        method: Column of the methods.
        score: Column of the scores.
        control: Compare every other method with this one.
        repeat: Column of the repeats (seeds, splits); they are averaged inside their data set.
        lower_is_better: Scores are errors or losses.
        out: Write the figures into this folder, as SVG.
        alpha: Level of the tests; intervals are at 1 - alpha.
        json: Write the numbers to this file.
    """
    from crossfade.cli.options import check_output
    from crossfade.lab.data.reading import read_frame
    from crossfade.stats import analyze

    check_output(json, "--json")
    raw = read_frame(file, method)
    found = analyze(
        raw.frame, block=block, method=method, score=score, repeat=repeat, control=control,
        lower_is_better=lower_is_better, alpha=alpha,
    )  # fmt: skip
    _show([*(f"note: {note}" for note in raw.notes), *_tables(found, score)])
    _write(found, out, json)
    return 0


def _tables(found: Analysis, score: str) -> Iterable[RenderableType]:
    blocks = len(found.matrix)
    yield _summary(found, score)
    f = found.friedman
    yield (
        f"Friedman over {blocks} blocks: chi2({f.methods - 1}) = {f.chi2:.4g}, {_p(f.chi2_p)}; Iman-Davenport "
        f"F({f.methods - 1}, {(f.methods - 1) * (blocks - 1)}) = {f.f:.4g}, {_p(f.f_p)}."
    )
    if len(found.p_values) <= _MATRIX:
        names = list(found.p_values.columns)
        rows = [
            [str(name), *("" if name == other else _p(p, bare=True) for other, p in zip(names, line, strict=True))]
            for name, line in zip(names, found.p_values.to_numpy().tolist(), strict=True)
        ]
        yield _table("All pairs: Conover p, Benjamini-Hochberg", ["Method", *map(str, names)], rows)
    level = f"at {found.alpha:g}"
    groups = "; ".join("{" + ", ".join(group) + "}" for group in found.groups) or "none, all pairs of neighbours differ"
    yield f"Not told apart {level}: {groups}."
    yield f"Nemenyi critical difference of mean ranks {level}: {found.critical_difference:.3f}."
    if found.control is not None:
        rows = [
            [
                test.method, f"{test.mean_delta:+.4g}", _span(found.intervals[test.method]),
                f"{test.counts.wins}/{test.counts.ties}/{test.counts.losses}",
                _p(test.p, bare=True), _p(test.p_adjusted, bare=True),
            ]
            for test in found.against_control
        ]  # fmt: skip
        heads = ["Method", "Mean Δ", f"{100 * (1 - found.alpha):g} % interval", "W/T/L", "Wilcoxon p", "Holm p"]
        yield _table(f"Against {found.control}", heads, rows)


def _summary(found: Analysis, score: str) -> RenderableType:
    heads = ["Method", f"Mean {score}", "Wins", *(["Mean Δ"] if found.control else []), "Mean rank"]
    if found.by_repeat:
        heads += ["Wins a repeat", "Mean rank a repeat"]
    rows = []
    places = max(0, 4 - ceil(log10(max(abs(row.mean_score) for row in found.summary) or 1.0)))
    for place, row in enumerate(found.summary):
        cells = [row.method, f"{row.mean_score:.{places}f}", f"{row.wins:g}"]
        if found.control is not None:
            cells.append("" if row.method == found.control else f"{row.mean_delta:+.{places}f}")
        cells.append(f"{row.mean_rank:.3f}")
        if found.by_repeat:
            cells += [f"{found.by_repeat[place].wins:.4g}", f"{found.by_repeat[place].mean_rank:.3f}"]
        rows.append(cells)
    sense = "lower" if found.lower_is_better else "higher"
    return _table(f"{len(found.matrix)} blocks; {sense} is better; a tie for the best is a win for each", heads, rows)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(escape(head), justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _show(parts: Iterable[RenderableType]) -> None:
    from rich.console import Console
    from rich.markup import escape

    # In a file or a pipe nothing has to fit a screen.
    console = Console(highlight=False, width=None if Console().is_terminal else 160)
    for part in parts:
        console.print(escape(part) if isinstance(part, str) else part)


def _write(found: Analysis, out: Path | None, json: Path | None) -> None:
    from crossfade.lab.answer import write_text

    if out is not None:
        from crossfade.stats import to_svg

        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {out}: can't be made ({error.strerror or error})") from None
        for name, figure in found.figures().items():
            _show([f"Figure: {write_text(out / f'{name}.svg', to_svg(figure), '--out')}"])
    if json is not None:
        from json import dumps

        write_text(json, dumps(found.to_dict(), indent=1, allow_nan=False) + "\n", "--json")


def _p(p: float, *, bare: bool = False) -> str:
    text = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return text if bare else f"p {text}" if p < 0.001 else f"p = {text}"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:+.4g} to {interval.high:+.4g}"
