"""The tables of docs/results/text.md, from results/text/, and commands that fill results/text/ from stores.

python docs/blocks/text_studies.py STORE,... NAME HARDWARE  writes stores to results/text/NAME.{csv,json}
python docs/blocks/text_studies.py choices "learning rate 0.003=STORE" ...    Table 3 with other choices, to
                                                                       table3-choices.{csv,json}
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd
from parts import joined, parts_of
from scipy.stats import ttest_1samp

from crossfade.lab import frames
from crossfade.lab.paper import figure2, finetune, table3
from crossfade.lab.paper.page import signed
from crossfade.lab.store import Run, Store
from crossfade.stats import to_svg

FOLDER = Path(__file__).parents[2] / "results" / "text"
STUDIES = {"table3": table3.STUDY, "figure2": figure2.study(), "finetune": finetune.STUDY}
_COMMAND = re.compile(r"(--(?:data-dir|store|report|model)) \S*?([^/\s]*)(?= |$)")
_DIGITS = 7
_PARTS = ("methods", "device", "versions", "commit")  # what differs between the parts of a merged file
_BRIEF = {"table3-gpu"}  # repeats a study: one line for each method is enough


def collect(stores: list[Path], name: str, hardware: str) -> None:
    """Write the requests of some stores: results and curves as CSV, and where they come from.

    The paths of data and models on one machine are left out of the commands.
    """
    frames_of: dict[str, list[pd.DataFrame]] = {"": [], "-curves": []}
    meta, commands, keys, rows, datasets = {}, [], [], [], []
    for store in stores:
        with Store(store, mode="read") as opened:
            wanted: list[Run] = []
            for run in opened.runs():  # the latest first: an earlier one may be the same, or for fewer seeds
                if not any(set(run.keys) <= set(later.keys) for later in wanted):
                    wanted.append(run)
            for run in reversed(wanted):
                meta = {key: value for key, value in run.request["meta"].items() if key not in _PARTS}
                datasets.append(run.request["meta"]["datasets"])
                commands.append(_COMMAND.sub(_shortened, meta["command"]))
                keys += run.keys
                rows += opened.rows(run.keys)
                frames_of[""].append(frames.results(opened, run.keys))
                frames_of["-curves"].append(frames.curves(opened, run.keys))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for suffix, found in frames_of.items():
        kept = pd.concat(found).dropna(axis=1, how="all").drop(columns=["key", "fixed_test"], errors="ignore")
        order = ["dataset", "repeat", "method"]
        kept.sort_values(order, kind="stable").round(_DIGITS).to_csv(FOLDER / f"{name}{suffix}.csv", index=False)
    meta |= {"runs": parts_of(rows), "datasets": joined(*datasets)}
    recipes = {json.dumps(row.content["recipe"], sort_keys=True) for row in rows}
    meta |= {"hardware": hardware, "asked": len(set(keys)), "recipe": [json.loads(one) for one in sorted(recipes)]}
    meta["command"] = "`, `".join(dict.fromkeys(commands))
    (FOLDER / f"{name}.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n")


def collect_choices(stores: list[str]) -> None:
    """Write Table 3 as it was run and with one choice changed, by a name for each store."""
    tables, commands = [], {}
    for given in stores:
        name, _, store = given.rpartition("=")
        with Store(store, mode="read") as opened:
            run = opened.runs()[0]
            found = frames.results(opened, run.keys)
        columns = ["dataset", "method", "repeat", "accuracy", "nll", "f1", "epoch", "seconds"]
        tables.append(found[columns].assign(choice=name).round(_DIGITS))
        commands[name] = _COMMAND.sub(_shortened, run.request["meta"]["command"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    pd.concat(tables).to_csv(FOLDER / "table3-choices.csv", index=False)
    (FOLDER / "table3-choices.json").write_text(json.dumps(commands, indent=1) + "\n")


def choices() -> str:
    """Return CE's accuracy and the other methods' paired differences to it, under each choice, for one architecture."""
    frame = pd.read_csv(FOLDER / "table3-choices.csv")
    frame = frame[frame["dataset"] == "Reviews · arch1"]
    methods = [name for name in dict.fromkeys(frame["method"]) if name != "ce"]
    lines = [
        "| choice | CE | " + " | ".join(f"{name}, Δ" for name in methods) + " | chosen epoch (mean) |",
        "|---|--:|" + "--:|" * (len(methods) + 1),
    ]
    for name, own in frame.groupby("choice", sort=False):
        table = own.pivot_table(index="repeat", columns="method", values="accuracy") * 100
        gaps = [signed((table[method] - table["ce"]).mean()) for method in methods]
        lines.append(f"| {name} | {table['ce'].mean():.2f} | {' | '.join(gaps)} | {own['epoch'].mean():.1f} |")
    return "\n".join(lines)


def pairs(results: pd.DataFrame, score: str, alike: str) -> str:
    """Return one line for each method: differences to CE over all pairs of a data set and a seed.

    p is from a t test on the means over each value of the column ``alike``, within which results aren't independent:
    the architectures of a seed share its reviews, the seeds of a task its texts.
    """
    table = results.pivot_table(index=["dataset", "repeat"], columns="method", values=score) * 100
    lines = ["| method | mean Δ to CE, points | standard deviation | better / equal / worse | p | NLL | ECE, % |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for name, own in results.groupby("method", sort=False):
        gap = (table[name] - table["ce"]).dropna()
        scores = [f"{own['nll'].mean():.3f}", f"{100 * own['ece'].mean():.1f}"]
        found = ["", "", "", ""]
        if name != "ce":
            counts = f"{(gap > 0).sum()} / {(gap == 0).sum()} / {(gap < 0).sum()}"
            p = ttest_1samp(gap.groupby(alike).mean(), 0).pvalue
            found = [signed(gap.mean()), f"{gap.std():.2f}", counts, f"{p:.2f}"]
        lines.append(f"| {' | '.join([str(name), *found, *scores])} |")
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _shortened(found: re.Match[str]) -> str:
    option, end = found.groups()
    return f"{option} {'DIR' if option == '--data-dir' else end if option != '--model' else 'FOLDER'}"


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks, and draw the figures."""
    found = {}
    if (FOLDER / "table3-choices.csv").exists():
        found["results/text/table3-choices"] = choices()
    for path in sorted(set(FOLDER.glob("*.json")) - {FOLDER / "table3-choices.json"}):
        about, results = json.loads(path.read_text()), pd.read_csv(path.with_suffix(".csv"))
        study = path.stem.partition("-")[0]
        made = "; ".join(
            f"{one['trials']} at commit {one['commit']}, {one['time']}"
            + (", with versions that weren't kept" if one["versions"] == "not kept" else "")
            for one in about["runs"]
        )
        lines = [
            f"`{about['command']}`: {len(results)} of {about['asked']} runs ({made}; {about['hardware']}), "
            f"{_seconds(results['seconds'].median())} seconds each (median). Recipe and versions: "
            f"`results/text/{path.name}`."
        ]
        if study in STUDIES and path.stem not in _BRIEF:
            lines += ["", STUDIES[study].tables(results)]
        if study == "finetune":
            lines[1:1] = ["", STUDIES[study].lead(results, about["scale"])]
        if study == "table3":
            lines += ["", "Over all pairs of an architecture and a seed:", "", pairs(results, "accuracy", "repeat")]
        if study == "figure2":
            scores = figure2.glue_scores(results)
            cut = figure2.subsets(results)
            lines += ["", f"Over all pairs of a task and a seed{cut}, without WNLI, the official metric:", ""]
            lines.append(pairs(scores[scores["task"] != "WNLI"], "score", "dataset"))
        found[f"results/text/{path.stem}"] = "\n".join(lines)
        figure = STUDIES[study].figure(results, "") if study in STUDIES else None
        if figure is not None:
            (FOLDER.parent.parent / "docs" / "results" / f"{path.stem}.svg").write_text(to_svg(figure))
    tuned = {"results/text/finetune": found.pop("results/text/finetune")}
    return {"docs/results/text.md": found, "docs/results/finetune.md": tuned}


if __name__ == "__main__":
    if sys.argv[1] == "choices":
        collect_choices(sys.argv[2:])
    else:
        collect([Path(one) for one in sys.argv[1].split(",")], sys.argv[2], " ".join(sys.argv[3:]))
