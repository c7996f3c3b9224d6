"""Tables of docs/integrations/causal-lm.md, from results/causal_lm."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from why import table

PAGE = "integrations/causal-lm.md"
SCORES = {
    "accuracy": "accuracy, %",
    "rare_accuracy": "where p was < 0.01",
    "middle_accuracy": "0.01 to 0.5",
    "sure_accuracy": "0.5 and more",
    "known_accuracy": "on known text",
}
AFTER = {"ce": "CE, nats", "p": "mean p, %", "small": "tokens with p < 0.01, %"}


def blocks(folder: Path) -> dict[str, str]:
    """Return the page's blocks by the names of their marks; none without results."""
    if not (folder / "provenance.json").exists():
        return {}
    frame = pd.read_csv(folder / "results.csv")
    chosen = at_chosen_rates(frame)
    found = {f"results/causal_lm/results.csv {domain}": _scores(chosen, domain) for domain in ("known", "unknown")}
    found["results/causal_lm/results.csv after"] = _after(chosen)
    found["results/causal_lm/results.csv rates"] = _rates(frame)
    found["results/causal_lm/provenance.json"] = _provenance(folder, frame)
    return found


def at_chosen_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each loss's own rate: the best on validation text, of those that the first seed tried."""
    first = frame[frame.seed == frame.seed.min()]
    best = first.loc[first.groupby(["domain", "method"]).validation_accuracy.idxmax(), ["domain", "method", "rate"]]
    return frame.merge(best, on=["domain", "method", "rate"])


def _cell(values: pd.Series, scale: float, digits: int) -> str:
    spread = f" ± {scale * values.std():.{digits}f}" if values.nunique() > 1 else ""
    return f"{scale * values.mean():.{digits}f}{spread}"


def _scores(chosen: pd.DataFrame, domain: str) -> str:
    scores = {name: head for name, head in SCORES.items() if (domain, name) != ("known", "known_accuracy")}
    rows: list[list[object]] = []
    for method, part in chosen[chosen.domain == domain].groupby("method", sort=False):
        rate = "" if method == "before" else f"{part.rate.iloc[0]:g}"
        rows.append([method, rate, *(_cell(part[name], 100, 2) for name in scores)])
    return table(["", "rate", *scores.values()], rows)


def _after(chosen: pd.DataFrame) -> str:
    rows: list[list[object]] = []
    for (domain, method), part in chosen.groupby(["domain", "method"], sort=False):
        cells = (_cell(part[name], 1 if name == "ce" else 100, 3 if name == "ce" else 1) for name in AFTER)
        rows.append([f"{domain}, {method}", *cells])
    return table(["", *AFTER.values()], rows)


def _rates(frame: pd.DataFrame) -> str:
    """Return the table of the first seed's validation accuracy, by which the rates were chosen."""
    first = frame[(frame.seed == frame.seed.min()) & (frame.method != "before")]
    wide = first.pivot_table(index=["domain", "method"], columns="rate", values="validation_accuracy", sort=False)
    rows: list[list[object]] = []
    for (domain, method), values in wide.sort_index(axis=1).iterrows():
        rows.append(
            [f"{domain}, {method}", *(f"**{100 * v:.1f}**" if v == values.max() else f"{100 * v:.1f}" for v in values)]
        )
    return table(["rate", *(f"{rate:g}" for rate in sorted(wide.columns))], rows)


def _provenance(folder: Path, frame: pd.DataFrame) -> str:
    found = json.loads((folder / "provenance.json").read_text())
    tokens, versions = found["tokens"], found["versions"]
    return (
        f"{found['parameters']:,} parameters; {tokens['pretrain']:,} tokens of pre-training text, "
        f"{tokens['known train']:,} of known and {tokens['unknown train']:,} of unknown text to fine-tune on, "
        f"{tokens['known test']:,} of each held out for the test and as many for validation; "
        f"{frame.seed.nunique()} seeds. "
        f"Python {versions['python']}, torch {versions['torch']}, transformers {versions['transformers']}, "
        f"{found['machine']}, commit {found['commit']}:\n\n```sh\n{found['command']}\n```"
    )
