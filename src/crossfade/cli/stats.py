"""``crossfade stats``: the statistics of the paper's Table 4 and Figure 3 for any table of results."""

from __future__ import annotations

import sys
from collections import Counter
from math import ceil, exp, isinf, lgamma, log10
from pathlib import Path
from typing import TYPE_CHECKING

from crossfade.cli.options import JsonPath, Overwrite, Quiet
from crossfade.errors import UserError
from crossfade.lab.files import SIGNATURE, check_folder, check_outputs, write_json, write_text
from crossfade.stats.words import count, level, p_number, p_value, percent, points, points_range, text_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crossfade.stats import Analysis, ItemTest

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
    items: str | None = None,
    lower_is_better: bool = False,
    out: Path | None = None,
    alpha: float = 0.05,
    json: JsonPath = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
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
        items: Column of the items (questions, test rows) that every method answered rightly or wrongly, as the score
            says; methods are then compared by McNemar's exact test.
        lower_is_better: Scores are errors or losses.
        out: Folder for the figures, as SVG.
        alpha: Level of the tests; intervals are at 1 - alpha.
        json: Write the numbers to this file; - is standard output, instead of the tables.
    """
    from crossfade.lab.data.reading import read_frame
    from crossfade.stats import analyze, compare_items, to_svg
    from crossfade.stats.shape import check_fraction
    from crossfade.stats.words import plain

    check_outputs([("--json", json)], [file], overwrite=overwrite)
    if items is not None:
        if repeat is not None or out is not None or lower_is_better:
            raise UserError("--items goes with --method, --score, --control, --alpha and --json alone")
        check_fraction("alpha", alpha)
        read = read_frame(file, score, [items, method])
        names = {"item": items, "method": method, "score": score}
        tests = compare_items(read.frame, **names, control=control, confidence=1 - alpha)
        if str(json) != "-":
            print("\n".join([*(f"note: {note}" for note in read.notes if not quiet), _items_text(tests)]))
        if json is not None:
            write_json(json, {"items": plain(tests)})
        return 0
    check_folder(out, "--out")
    raw, columns = read_frame(file, method, [block]), {"block": block, "method": method, "score": score}
    found = analyze(raw.frame, **columns, repeat=repeat, control=control, lower_is_better=lower_is_better, alpha=alpha)
    figures = {} if out is None else {out / f"{name}.svg": figure for name, figure in found.figures().items()}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        check_outputs([("--out", path) for path in figures], [file, json], overwrite=overwrite)
    if str(json) != "-":
        print("\n".join([*(f"note: {note}" for note in raw.notes if not quiet), *_paragraphs(found, score)]))
    for path, figure in figures.items():
        write_text(path, to_svg(figure) + SIGNATURE, "--out")
        if not quiet:
            print(f"Figure: {path}", file=sys.stderr if str(json) == "-" else sys.stdout)
    if json is not None:
        write_json(json, found.to_dict())
    return 0


def _paragraphs(found: Analysis, score: str) -> Iterator[str]:
    f, blocks, alpha = found.friedman, len(found.matrix), f"at {found.alpha:g}"
    yield _summary(found, score)
    yield (
        f"Friedman over {blocks} blocks: chi2({f.methods - 1}) = {f.chi2:.4g}, {p_value(f.chi2_p)}; Iman-Davenport "
        f"F({f.methods - 1}, {(f.methods - 1) * (blocks - 1)}) = {f.f:.4g}, {p_value(f.f_p)}."
    )
    if isinf(f.f):
        tied = Counter(row.mean_rank for row in found.summary).values()
        orders = lgamma(f.methods + 1) - sum(lgamma(times + 1) for times in tied)
        chance = p_value(exp((1 - blocks) * orders))
        yield f"All blocks agree on one order: by chance alone {chance}; F and Conover's test only know the limit, 0."
    if len(found.p_values) <= _MATRIX:
        rows = [
            [str(name), *("" if name == other else p_number(p) for other, p in line.items())]
            for name, line in found.p_values.iterrows()
        ]
        yield f"\nAll pairs: Conover p, Benjamini-Hochberg\n\n{text_table(['Method', *found.p_values], rows)}\n"
    groups = "; ".join("{" + ", ".join(group) + "}" for group in found.groups) or "none, all pairs of neighbours differ"
    yield f"Not told apart {alpha}: {groups}."
    yield f"Nemenyi critical difference of mean ranks {alpha}: {found.critical_difference:.3f}."
    if found.control is not None:
        heads = ["Method", "Mean Δ", f"{level(1 - found.alpha)} interval", "W/T/L", "Wilcoxon p", "Holm p"]
        rows = []
        for test in found.against_control:
            interval, counts = found.intervals[test.method], test.counts
            span = f"{interval.low:+.4g} to {interval.high:+.4g}" if interval else ""
            cells = [test.method, f"{test.mean_delta:+.4g}", span, f"{counts.wins}/{counts.ties}/{counts.losses}"]
            rows.append([*cells, p_number(test.p), p_number(test.p_adjusted)])
        yield f"\nAgainst {found.control}\n\n{text_table(heads, rows)}\n"


def _items_text(tests: Sequence[ItemTest]) -> str:
    heads = ["Method", "Right %", "Δ points", f"{level(tests[0].interval.confidence)} interval", "Won", "Lost"]
    rows = [[tests[0].control, percent(tests[0].control_score), *[""] * 6]]
    for test in tests:
        span = points_range(test.interval.low, test.interval.high)
        counts = [str(test.rows.wins), str(test.rows.losses), p_number(test.rows.p), p_number(test.p_adjusted)]
        rows.append([test.method, percent(test.score), points(test.delta), span, *counts])
    title = f"{count(tests[0].items, 'item')}; items won from and lost to {tests[0].control}"
    return f"{title}\n\n{text_table([*heads, 'McNemar p', 'Holm p'], rows)}"


def _summary(found: Analysis, score: str) -> str:
    heads = ["Method", f"Mean {score}", "Wins", *(["Mean Δ"] if found.control else []), "Mean rank"]
    heads += ["Wins a repeat", "Mean rank a repeat"] if found.by_repeat else []
    rows = []
    largest = max(abs(row.mean_score) for row in found.summary) or 1.0
    digits = f".{max(0, 4 - ceil(log10(largest)))}f" if 1e-4 < largest < 1e9 else ".4g"
    for place, row in enumerate(found.summary):
        cells = [row.method, f"{row.mean_score:{digits}}", f"{row.wins:g}"]
        if found.control is not None:
            cells.append("" if row.method == found.control else f"{row.mean_delta:+{digits}}")
        cells.append(f"{row.mean_rank:.3f}")
        if found.by_repeat:
            cells += [f"{found.by_repeat[place].wins:.4g}", f"{found.by_repeat[place].mean_rank:.3f}"]
        rows.append(cells)
    sense = "lower" if found.lower_is_better else "higher"
    title = f"{len(found.matrix)} blocks; {sense} is better; a tie for the best is a win for each"
    return f"{title}\n\n{text_table(heads, rows)}\n"
