"""The sections on how the numbers came about: the losses, what was run, what was not, and how to run it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossfade.report.figures import schedule_figure, schedule_phases
from crossfade.report.inputs import Inputs, MethodInfo
from crossfade.report.page import Block, Cell, Code, Column, Facts, Fold, Items, Section, Table, Text
from crossfade.stats.words import MISSING, count, decimal

_SHORT_HASH = 12
_AUTOMATIC = {"width": "as many as inputs"}  # what None means in a recipe


def losses_section(inputs: Inputs) -> Section:
    """Show the losses in a table, and draw the schedules that change."""
    rows = tuple((method.title, method.name, _formula(method)) for method in inputs.methods)
    columns = (Column("Method", align="left"), Column("Name", align="left"), Column("Loss", align="left"))
    table = Table("The losses that were compared", columns, rows)
    figure = schedule_figure(inputs.methods)
    return Section("losses", "Losses and schedules", (table, figure) if figure else (table,))


def _formula(method: MethodInfo) -> Cell | str:
    if method.schedule is None:
        text = method.formula or MISSING
    else:
        phases = schedule_phases(method.schedule)
        if len(phases) <= 3:
            parts = [_phase(*phase, first=k == 0) for k, phase in enumerate(phases)]
            text = "α CE + β EL with " + ", then ".join(parts) + (" throughout" if len(phases) == 1 else "")
        else:
            (_, *first), (_, *last) = phases[0], phases[-1]
            text = f"α CE + β EL in {count(len(phases), 'phase')}, from {_weights(*first)} to {_weights(*last)}"
    return Cell(text, method.note) if method.note and method.note != text else text


def _phase(start: float, alpha: float, beta: float, *, first: bool) -> str:
    return _weights(alpha, beta) if first else f"from {100 * start:.4g} % of the training on {_weights(alpha, beta)}"


def _weights(alpha: float, beta: float) -> str:
    return f"(α, β) = ({alpha:.4g}, {beta:.4g})"


def run_section(inputs: Inputs) -> Section:
    """Show data, recipe, versions and machine."""
    meta = inputs.meta
    blocks: list[Block] = []
    data = list(meta.get("datasets", ()))
    if data:
        blocks.append(_data_table(inputs, data))
        hashes = [f"{entry['sha256']}  {entry['name']}" for entry in data if entry.get("sha256")]
        if hashes:
            blocks.append(Fold("SHA-256 of the data, in full", (Code("\n".join(hashes)),)))
    notes = tuple(str(note) for note in meta.get("notes", ()))
    if notes:
        blocks.append(Items(notes, "warn"))
    facts = [
        ("Control", f"{inputs.control.title} ({inputs.control.name})"),
        ("Repeats", _written(meta.get("repeats"))),
        ("Seed", _written(meta.get("seed"))),
        ("Device", _written(meta.get("device"))),
        ("Commit", _written(meta.get("commit"))),
    ]
    blocks.append(Facts(tuple(facts)))
    for key, title in (("recipe", "Recipe, the same for every method"), ("versions", "Versions")):
        entries = meta.get(key) or {}
        if entries:
            given = ((k, _AUTOMATIC.get(str(k)) if v is None else v) for k, v in entries.items())
            blocks.append(Facts(tuple((_spaced(k), _written(v)) for k, v in given), title))
    return Section("run", "What was run", tuple(blocks))


def _data_table(inputs: Inputs, given: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column("Data set", align="left"),
        Column("Source", align="left"),
        *(Column(title) for title in ("Rows", "Features", "Classes")),
        Column("Train / validation / test", "rows of a repeat"),
        Column("Repeats", "complete"),
        Column("SHA-256", "first digits"),
    )
    rows: list[tuple[Cell | str, ...]] = []
    for entry in given:
        parts = " / ".join(_written(entry.get(part)) for part in ("n_train", "n_val", "n_test"))
        used = int(inputs.repeats.get(str(entry["name"]), 0))
        rows.append(
            (
                str(entry["name"]),
                _written(entry.get("source")),
                *(_written(entry.get(key)) for key in ("rows", "features", "classes")),
                parts,
                Cell(str(used), tone="" if used else "warn"),
                _written(entry.get("sha256"))[:_SHORT_HASH],
            )
        )
    return Table("Data", columns, tuple(rows))


def not_run_section(inputs: Inputs) -> Section:
    """List everything that was asked for and has no result, and what was left out because of it."""
    said = [str(item) for item in inputs.meta.get("missing", ())]
    blocks: list[Block] = []
    if said:
        blocks += [Text("Reported by the run:"), _items(said)]
    if inputs.gaps:
        blocks += [Text("Found missing in the results:"), _items(inputs.gaps)]
    if not blocks:
        trials = count(len(inputs.results), "trial")
        blocks.append(Text(f"Nothing is missing: all {trials} of this comparison finished and are on this page."))
    return Section("not-run", "What was not run", tuple(blocks))


def _items(items: Sequence[str], most: int = 30) -> Block:
    if len(items) <= most:
        return Items(tuple(items))
    return Fold(count(len(items), "entry"), (Items(tuple(items)),))


def reproduce_section(inputs: Inputs) -> Section:
    """Show the command, and say what has to be the same."""
    meta = inputs.meta
    blocks: list[Block] = []
    if meta.get("command"):
        blocks.append(Code(str(meta["command"]), "Run again with"))
    versions = {str(k): str(v) for k, v in (meta.get("versions") or {}).items()}
    exact = [f"{name}=={versions[name]}" for name in ("crossfade", "torch") if name in versions]
    same = f" with {' and '.join(exact)}" if exact else ""
    blocks.append(
        Text(
            f"The same data and command{same} give the same splits, initial weights and batches: their seeds depend on "
            "the data set and the repeat, and never on the method, so every difference on this page is paired. Another "
            "processor or version may round sums differently, which can move single trials."
        )
    )
    return Section("reproduce", "How to reproduce it", tuple(blocks))


def _spaced(key: object) -> str:
    return str(key).replace("_", " ")


def _written(value: object) -> str:
    """Write any plain value in words."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return decimal(value, 0)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_spaced(k)} {_written(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_written(v) for v in value)
    return str(value)
