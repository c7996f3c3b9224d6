"""Tables of docs/why/, from results/{figure1,taylor,dynamics,escape,escape_cifar100}."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from crossfade.lab.paper.why.escape import predicted_rise

RESULTS = Path(__file__).parents[2] / "results"
GROUPS = ("wrong and hopeless", "wrong and near", "right")
PAPER = {"wrong and hopeless": (2623, 88), "wrong and near": (611, 235), "right": (6766, 6482)}


def table(head: list[str], rows: list[list[object]]) -> str:
    """Return a Markdown table; every column but the first is aligned right, for numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks. Studies without results are left out."""
    found: dict[str, dict[str, str]] = {}
    for page, study, make in (
        ("gradient-curves.md", "figure1", gradient_curves),
        ("taylor.md", "taylor", taylor),
        ("dynamics.md", "dynamics", dynamics),
        ("escaping.md", "escape", escaping),
        ("escaping.md", "escape_cifar100", large_network),
    ):
        if (RESULTS / study / "provenance.json").exists():
            blocks = {f"results/{study}/{mark}": text for mark, text in make(RESULTS / study).items()}
            found.setdefault(f"docs/why/{page}", {}).update(blocks)
    return found


def gradient_curves(folder: Path) -> dict[str, str]:
    peaks = pd.read_csv(folder / "peaks.csv").set_index("unit")
    rows: list[list[object]] = []
    for focus in (0, 0.1, 0.2, 0.3, 0.4, 0.5):
        paper, unit = peaks.loc[f"paper-{focus:g}"], peaks.loc[f"unit-{focus:g}"]
        cells = [f"({scale.alpha:g}, {scale.beta:.4g})" for scale in (paper, unit)]
        rows.append([f"{focus:g}", cells[0], f"{paper.peak_height:.3f}", cells[1], f"{unit.peak_height:.3f}"])
    mixtures = table(["F", "(α, β), paper", "height of the peak", "(α, β), unit", "height of the peak"], rows)
    others = peaks[peaks.alpha.isna()]
    named = [[row.loss, f"{row.peak_p:.3f}", f"{row.peak_height:.3f}"] for row in others.itertuples()]
    return {"peaks.csv": mixtures + "\n\n" + table(["loss", "peak at p", "height"], named)}


def taylor(folder: Path) -> dict[str, str]:
    claims = pd.read_csv(folder / "claims.csv").fillna("")
    rows = [[c.text, c.quoted, c.measured, "yes" if c.holds else "**no**", c.note] for c in claims.itertuples()]
    intervals = pd.read_csv(folder / "intervals.csv")
    spans = [
        [f"{i.interval}, {i.low:g} ≤ p ≤ {i.high:g}", f"{i.smallest:.3f}", f"{i.largest:.3f}".replace("inf", "∞"),
         f"{i.lagrange_bound:.3f}".replace("inf", "∞")] for i in intervals.itertuples()
    ]  # fmt: skip
    return {
        "claims.csv": table(["statement", "quoted", "measured", "holds", "why"], rows),
        "intervals.csv": table(["interval", "smallest R", "largest R", "Lagrange bound"], spans),
    }


def _share(right: float, total: float) -> str:
    return f"{100 * right / total:.1f} % of {total:,.0f}" if total else "none"


def dynamics(folder: Path) -> dict[str, str]:
    moves = pd.read_csv(folder / "transitions.csv")
    moves["total"] = moves[[f"to {group}" for group in GROUPS]].sum(axis=1)
    test = moves[moves.part == "test"]
    sums = test.groupby(["dataset", "method", "from"], sort=False)[["to right", "total"]].sum()
    rows: list[list[object]] = [
        ["CIFAR-100, ResNet-32 (the paper, 1 run)", *(_share(r, n) for n, r in (PAPER[g] for g in GROUPS))]
    ]
    datasets = list(dict.fromkeys(moves.dataset))
    for dataset in datasets:
        rows.append([f"{dataset} ({test[test.dataset == dataset].seed.nunique()} runs)"] + [
            _share(*sums.loc[dataset, "ce", group]) for group in GROUPS
        ])  # fmt: skip
    methods = list(dict.fromkeys(moves.method))
    pooled = []
    for method in methods:
        own = test[test.method == method].groupby("from")[["to right", "total"]].sum()
        accuracy = [_accuracy(folder, dataset, method) for dataset in datasets]
        pooled.append([method, *(_share(*own.loc[group]) for group in GROUPS), f"{100 * np.mean(accuracy):.2f}"])
    last = datasets[-1]
    head = [f"watched {group} → right" for group in GROUPS]
    return {
        "transitions.csv": table(["data", *head], rows),
        "transitions.csv methods": "All data sets above together:\n\n"
        + table(["method", *head, "mean test accuracy at the end, %"], pooled),
        "mass.csv": _mass(folder, last),
        "calibration.csv": _calibration(folder, last),
        "provenance.json": provenance(folder),
    }


def _accuracy(folder: Path, dataset: str, method: str) -> float:
    frame = pd.read_csv(folder / "calibration.csv")
    own = frame[(frame.dataset == dataset) & (frame.method == method) & (frame.part == "test")]
    return float(own[own.epoch == own.epochs].accuracy.mean())


def _mass(folder: Path, dataset: str) -> str:
    frame = pd.read_csv(folder / "mass.csv")
    own = frame[(frame.dataset == dataset) & (frame.method == "ce") & (frame.part == "train")]
    bins = [f"bin{k}" for k in range(10)]
    rows = []
    for (epoch, loss), part in own.groupby(["epoch", "loss"], sort=False):
        share = part[bins].mean()
        rows.append([f"{epoch}, {loss}", f"{100 * share.iloc[:2].sum():.1f}", f"{100 * share.iloc[2:6].sum():.1f}",
                     f"{100 * share.iloc[6:].sum():.1f}"])  # fmt: skip
    return f"{dataset}, % of the gradient:\n\n" + table(["epoch, loss", "p < 0.2", "0.2–0.6", "p ≥ 0.6"], rows)


def _calibration(folder: Path, dataset: str) -> str:
    frame = pd.read_csv(folder / "calibration.csv")
    own = frame[(frame.dataset == dataset) & (frame.part == "test") & (frame.epoch == frame.epochs)]
    lost = pd.read_csv(folder / "forgetting.csv")
    lost = lost[(lost.dataset == dataset) & (lost.part == "train")]
    rows = []
    for method in dict.fromkeys(own.method):
        score = own[own.method == method].mean(numeric_only=True)
        counts = lost[lost.method == method]
        learnt = counts[counts.events != "never learnt"]
        events = learnt.events.astype(int)
        never, total = counts[counts.events == "never learnt"].examples.sum(), counts.examples.sum()
        rows.append([method, f"{100 * score.accuracy:.2f}", f"{score.nll:.3f}", f"{score.ece:.3f}", f"{score.brier:.3f}",
                     f"{(events * learnt.examples).sum() / learnt.examples.sum():.2f}", f"{100 * never / total:.1f}"])  # fmt: skip
    head = ["trained with", "accuracy, %", "NLL", "ECE", "Brier", "forgetting events an example", "never learnt, %"]
    return f"{dataset}: the test part after the last epoch; forgetting over the training part.\n\n" + table(head, rows)


def provenance(folder: Path) -> str:
    found = json.loads((folder / "provenance.json").read_text())
    parts = [one for one in (found, *found.get("earlier", [])) if "command" in one]  # trials of a store have none
    commands = [f"`{one['command']}` (commit {one['commit']})" for one in parts]
    return (
        f"Scale `{found['scale']}`, on {found['machine']}, torch {found['versions']['torch']}: {', '.join(commands)}. "
        f"{found.get('note', '')}"
    ).rstrip()


def _verdicts(margin: pd.Series, error: pd.Series) -> list[object]:
    holds, fails = (margin > 2 * error).mean(), (margin < -2 * error).mean()
    return [f"{100 * holds:.0f} %", f"{100 * fails:.0f} %", f"{100 * (1 - holds - fails):.0f} %"]


def escaping(folder: Path) -> dict[str, str]:
    along, minima = pd.read_csv(folder / "along.csv"), pd.read_csv(folder / "minima.csv")
    return {
        "pair.csv": _pair(pd.read_csv(folder / "pair.csv")),
        "along.csv": _both_sides(along),
        "along.csv ratios": _ratios(along),
        "minima.csv": _minima(minima),
        "minima.csv rise": _rise(minima),
        "simulation.csv": _simulation(pd.read_csv(folder / "simulation.csv")),
        "sharpness.csv": _sharpness(pd.read_csv(folder / "sharpness.csv")),
        "provenance.json": provenance(folder),
    }


def large_network(folder: Path) -> dict[str, str]:
    along = pd.read_csv(folder / "along.csv")
    names, rows = ("f0", "f0.4", "el"), []
    for _, part in along.groupby("unit", sort=False):
        own = part.set_index("mixture")
        ce, bounded = own.loc["ce"], own[own.printed_margin.notna()]
        cells = [f"{ce.trained_with}, {ce.epoch}", f"{100 * ce.concave_share:.0f} %"]
        for name in names:
            ratio = own.loc[name].tr_h_sigma / ce.tr_h_sigma
            known = ce.tr_h_sigma > 2 * ce.tr_h_sigma_se  # as in the table of all data sets
            cells += [f"{ratio:.2f}", f"{own.loc[name].matched_ratio:.2f}"] if known else ["–", "–"]
        for side in ("printed", "derived"):
            cells.append(" / ".join(map(str, _verdicts(bounded[f"{side}_margin"], bounded[f"{side}_margin_se"]))))
        rows.append(cells)
    ratios = [cell for name in names for cell in (name, f"{name}, same noise")]
    verdicts = [f"{bound} holds / fails / undecided" for bound in ("(18)", "(18′)")]
    return {
        "along.csv": table(["trained with, after epoch", "p_y concave", *ratios, *verdicts], rows),
        "provenance.json": provenance(folder),
    }


def _pair(pair: pd.DataFrame) -> str:
    rows = []
    for (name, beta), own in pair[pair.is_minimum].groupby(["mixture", "beta"], sort=False):
        holds = own[own.gain > own.printed_bound]
        span = f"{holds.p.min():.2f} to {holds.p.max():.2f}" if len(holds) else "nowhere"
        lowest = own.gain.min()
        rows.append([f"{name} (β = {beta:.3g})", f"{own.p.min():.2f}", span, f"{100 * len(holds) / len(own):.0f} %",
                     f"{100 * (own.gain < 0).mean():.0f} %", f"{lowest:.2g}"])  # fmt: skip
    head = ["mixture", "minimum for p from", "(18) holds for p", "of those p", "gain negative", "lowest gain"]
    return table(head, rows)


def _both_sides(along: pd.DataFrame) -> str:
    rows = []
    for name in ("f0", "f0.1", "f0.2", "f0.3", "f0.4"):
        own = along[along.mixture == name]
        rows.append([f"{name} (β = {own.beta.iloc[0]:.3g})", *_verdicts(own.gain, own.gain_se)[:2],
                     *_verdicts(own.printed_margin, own.printed_margin_se),
                     *_verdicts(own.derived_margin, own.derived_margin_se)])  # fmt: skip
    head = ["mixture", "gain > 0", "gain < 0", "(18) holds", "fails", "undecided", "(18′) holds", "fails", "undecided"]
    own = along[along.mixture == "f0"]
    runs = own.groupby(["dataset", "trained_with", "seed"]).ngroups
    about = (
        f"{len(own)} measurements along {runs} runs on {own.dataset.nunique()} data sets. (A2): along random directions "
        f"p_y was concave for {100 * own.concave_share.mean():.0f} % of the examples (lowest {100 * own.concave_share.min():.0f} %, "
        f"highest {100 * own.concave_share.max():.0f} %), never for all of them in {(own.concave_share < 1).sum()} of {len(own)}. "
        f"Tr(H_p F_p) was negative in {100 * (own.tr_hp_fp < 0).mean():.0f} %."
    )
    return about + "\n\n" + table(head, rows)


def _ratios(along: pd.DataFrame) -> str:
    ce = along[along.mixture == "ce"].set_index("unit")
    rows = []
    for name in dict.fromkeys(along.mixture):
        own = along[along.mixture == name].set_index("unit")
        valid = ce.tr_h_sigma > 2 * ce.tr_h_sigma_se
        raw = (own.tr_h_sigma / ce.tr_h_sigma)[valid].quantile([0.25, 0.5, 0.75])
        matched = own.matched_ratio[valid].replace([np.inf, -np.inf], np.nan).dropna().quantile([0.25, 0.5, 0.75])
        rows.append(
            [
                f"{name} ({own.alpha.iloc[0]:.3g}, {own.beta.iloc[0]:.3g})",
                *(f"{q:.2f}" for q in raw),
                *(f"{q:.2f}" for q in matched),
            ]
        )
    head = [
        "mixture (α, β)",
        "25 %",
        "**median**",
        "75 %",
        "25 %, same noise",
        "**median**, same noise",
        "75 %, same noise",
    ]
    return (
        "Tr(HΣ) over CE's at the same weights, quartiles over the measurements: at the same learning rate, and at the "
        "learning rate that gives the mixture CE's Tr(Σ).\n\n" + table(head, rows)
    )


def _minima(minima: pd.DataFrame) -> str:
    rows = []
    for name in dict.fromkeys(minima.mixture):
        own = minima[minima.mixture == name]
        cells: list[object] = [name, f"{own.tr_h_sigma.lt(0).sum()}", f"{own.matched_ratio.median():.2f}"]
        if own.printed_margin.notna().all():
            cells += [f"{100 * (own.gain < 0).mean():.0f} %", *_verdicts(own.printed_margin, own.printed_margin_se)[:2],
                      *_verdicts(own.derived_margin, own.derived_margin_se)[:2]]  # fmt: skip
        else:
            cells += ["", "", "", "", ""]
        rows.append(cells)
    norm = (minima.gradient_norm2 / minima.tr_sigma).max()
    head = [
        "mixture",
        "Tr(HΣ) < 0",
        "over CE's at CE's noise",
        "gain < 0",
        "(18) holds",
        "fails",
        "(18′) holds",
        "fails",
    ]
    return (
        f"{len(minima[minima.mixture == 'ce'])} networks (linear, and 8 tanh units) on {minima.dataset.nunique()} data sets. "
        f"|∇L|² was at most {norm:.1e} of Tr(Σ); p_y was concave for {100 * minima.concave_share.mean():.0f} % of the examples "
        f"along a random direction.\n\n" + table(head, rows)
    )


def _rise(minima: pd.DataFrame) -> str:
    rows = []
    for step in (1, 10, 50):
        predicted = predicted_rise(minima, step)
        ratio = (minima[f"rise{step}"] / predicted)[predicted > 0]
        rows.append(
            [
                step,
                *(f"{q:.2f}" for q in ratio.quantile([0.25, 0.5, 0.75])),
                f"{np.corrcoef(np.log(predicted[predicted > 0]), np.log(minima[f'rise{step}'][predicted > 0].clip(lower=1e-12)))[0, 1]:.3f}",
            ]
        )
    return table(["SGD steps", "measured / predicted, 25 %", "median", "75 %", "correlation of logarithms"], rows)


def _simulation(simulation: pd.DataFrame) -> str:
    own = simulation[simulation.kind == "sgd"]
    rows = []
    for (well, rate), part in own.groupby(["well", "rate"], sort=False):
        for matched in (False, True):
            chosen = part[part.matched == matched].set_index("mixture")
            label = f"{well}, η = {rate:g}, {'same noise' if matched else 'same η'}"
            cells = [
                f"{100 * row.escaped / row.walkers:.1f}" + ("" if row.stable else "†") for _, row in chosen.iterrows()
            ]
            rows.append([label, *cells])
    names = list(dict.fromkeys(simulation.mixture))
    return "Share of the walkers that escaped, %; † ηH ≥ 2, the minimum itself is unstable.\n\n" + table(
        ["", *names], rows
    )


def _sharpness(sharpness: pd.DataFrame) -> str:
    ce = sharpness[sharpness.loss == "ce"]
    base = ce[ce.trained_with == "ce"].set_index(["dataset", "seed"])
    rows = []
    for name in dict.fromkeys(ce.trained_with):
        own = ce[ce.trained_with == name].set_index(["dataset", "seed"])
        shared = base.index.intersection(own.index)
        ratio = own.loc[shared].largest_eigenvalue / base.loc[shared].largest_eigenvalue
        delta = 100 * (own.loc[shared].test_accuracy - base.loc[shared].test_accuracy)
        rows.append([name, len(shared), *(f"{q:.2f}" for q in ratio.quantile([0.25, 0.5, 0.75])), f"{100 * (ratio > 1).mean():.0f} %",
                     f"{delta.mean():+.2f}"])  # fmt: skip
    head = ["trained with", "solutions", "25 %", "median", "75 %", "sharper than CE's", "Δ test accuracy, points"]
    return (
        "The largest Hessian eigenvalue of *CE* at the solution, over that at CE's own solution (same seed).\n\n"
        + table(head, rows)
    )
