"""The tables of docs/results/mpce.md, from results/table4 and results/table4_wide."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from crossfade.lab.paper.table4_page import NETS
from crossfade.stats import analyze

RESULTS = Path(__file__).parents[2] / "results"
_CLASSES = {"2": (2, 2), "3": (3, 3), "4 to 9": (4, 9), "10 and more": (10, 1000)}


def _pair(frame: pd.DataFrame, net: str) -> pd.DataFrame:
    """Return the trials of MPCE, and CE's on the same data sets with the same seeds, momentum 0.9."""
    own = frame[(frame["net"] == net) & (frame["momentum"] == 0.9) & frame["method"].isin(["ce", "mpce"])]
    return own[own.groupby(["dataset", "seed"])["method"].transform("size") == 2]


def by_classes(frame: pd.DataFrame) -> str:
    """Return MPCE beside CE for data sets of few and of many classes."""
    lines = [
        "| network | classes | sets | CE, % | MPCE, % | Δ points | 95 % | of CE's lead on 1/C | largest rate taken |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for net, title in NETS.items():
        whole = _pair(frame, net)
        for name, (fewest, most) in _CLASSES.items():
            own = whole[whole["classes"].between(fewest, most)]
            means = own.pivot_table(index=["dataset", "classes"], columns="method", values="accuracy")
            lead = means.sub(1 / means.index.get_level_values("classes").to_numpy(), axis=0)
            span = analyze(own, repeat="seed", control="ce").intervals["mpce"]
            largest = own[own["method"] == "mpce"]["learning_rate"].eq(own["learning_rate"].max()).mean()
            ce, mpce = 100 * means["ce"].mean(), 100 * means["mpce"].mean()
            lines.append(
                f"| {title} | {name} | {len(means)} | {ce:.1f} | {mpce:.1f} | {mpce - ce:+.1f} | "
                f"{100 * span.low:+.1f} to {100 * span.high:+.1f} | "
                f"{100 * lead['mpce'].sum() / lead['ce'].sum():.0f} % | {100 * largest:.0f} % |"
            )
    return "\n".join(lines)


def trend(frame: pd.DataFrame) -> str:
    """Return how MPCE's difference to CE goes with the number of classes."""
    lines = []
    for net, title in NETS.items():
        own = _pair(frame, net)
        means = own.pivot_table(index=["dataset", "classes"], columns="method", values="accuracy")
        found = spearmanr(means.index.get_level_values("classes"), means["mpce"] - means["ce"])
        name, classes = worst = (means["mpce"] - means["ce"]).idxmin()
        ce, mpce = 100 * means.loc[worst]
        lines.append(
            f"* {title}: rank correlation of the number of classes with the difference {found.statistic:+.2f} "
            f"(p = {found.pvalue:.1g}, {len(means)} sets, {own['seed'].nunique()} seeds). Furthest behind on {name}, "
            f"{classes} classes: {mpce:.1f} % against CE's {ce:.1f} %."
        )
    return "\n".join(lines)


def behind(frame: pd.DataFrame) -> str:
    """Return by how many points MPCE is behind CE on the sets of most classes, for a sentence."""
    means = [_pair(frame, net).query("classes >= 10").groupby("method")["accuracy"].mean() for net in NETS]
    return " and ".join(f"{100 * (one['ce'] - one['mpce']):.0f}" for one in means) + " points"


def calibration(frame: pd.DataFrame) -> str:
    """Return the calibration errors of MPCE and CE, for a sentence."""
    means = [100 * _pair(frame, net).groupby("method")["ece"].mean() for net in NETS]
    ours, theirs = (" and ".join(f"{one[name]:.0f}" for one in means) for name in ("mpce", "ce"))
    return f"{ours} % against CE's {theirs} %"


def images() -> str:
    """Return the accuracies of CE and MPCE on CIFAR-100, and MPCE's NLL, for a sentence."""
    rows = pd.read_csv(RESULTS / "images" / "table1-own-mpce.csv").set_index("method")
    accuracy, nll = 100 * rows["accuracy"], rows.loc["mpce", "nll"]
    ours = f"MPCE on {accuracy['mpce']:.2f} %, with an NLL of {nll:.3f} nats"
    return f"CE is right on {accuracy['ce']:.2f} % of the test images and {ours}"


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks."""
    frame, wide = (pd.read_parquet(RESULTS / name / "results.parquet") for name in ("table4", "table4_wide"))
    found = {
        "results/table4 mpce": by_classes(frame),
        "results/table4 mpce, trend": trend(frame),
        "results/table4_wide mpce": by_classes(wide),
        "results/table4 mpce, behind": behind(frame),
        "results/table4_wide mpce, behind": f"from {behind(frame)} to {behind(wide)}",
        "results/table4 mpce, ece": calibration(frame),
        "results/images/table1-own-mpce accuracies": images(),
    }
    return {"docs/results/mpce.md": found}
