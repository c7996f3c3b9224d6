"""The tables of docs/large-vocabularies.md, from results/linear_loss, linear_loss_gpu and loss_gpu."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from why import table

RESULTS = Path(__file__).parents[2] / "results"
BASE, CHUNKED = "linear + F.cross_entropy", "F.linear_cross_entropy, options"
OURS = "linear_crossfade_loss, CE"
TARGETS = (0.80, 0.12)


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks; none without results."""
    found = (
        _cpu(RESULTS / "linear_loss")
        | _rows(RESULTS / "linear_loss_rows")
        | _logits_on_gpu(RESULTS / "loss_gpu")
        | _on_gpu(RESULTS / "linear_loss_gpu")
    )
    return {"docs/large-vocabularies.md": found}


def _logits_on_gpu(folder: Path) -> dict[str, str]:
    if not (folder / "provenance.json").exists():
        return {}
    found = json.loads((folder / "provenance.json").read_text())
    head = ["logits", "", "ms", "time / eager's", "of a copy's bandwidth", "extra MiB", "gradient error"]
    arms = pd.read_csv(folder / "arms.csv")
    rows: list[list[object]] = [
        [
            f"{one.rows} × {one.classes}", one.arm, f"{one.ms:.2f}", f"{one.ratio:.2f}",
            f"{100 * one.of_copy_bandwidth:.0f} %", f"{one.peak_mib:.0f}", f"{one.gradient_error:.0e}",
        ]
        for one in arms.itertuples()
    ]  # fmt: skip
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("torch", "triton", "liger-kernel"))
    origin = f"{found['capability']}, bfloat16, {versions}, commit {found['commit']}: `{found['command']}`"
    return {
        "results/loss_gpu/arms.csv": table(head, rows),
        "results/loss_gpu/provenance.json": origin,
        "results/loss_gpu": _logits_targets(arms[arms["classes"] == arms["classes"].max()].set_index("arm")),
    }


def _logits_targets(arms: pd.DataFrame) -> str:
    """Return the goals for the largest vocabulary. Liger works in place, so it is compared with ours in place."""
    ratio, share = arms["ratio"], arms["of_copy_bandwidth"]["kernels, CE"]
    liger = arms["ms"]["kernels, CE, in place"] / arms["ms"]["Liger (in place)"]
    mixture = arms["ms"]["kernels, CE + EL"] / arms["ms"]["kernels, CE"] - 1
    rows: list[list[object]] = [
        ["half of eager `F.cross_entropy`'s time", f"{ratio['kernels, CE']:.2f}", _yes(ratio["kernels, CE"] <= 0.5)],
        ["Liger's cross entropy within 3 %, both in place", f"{liger:.2f} of its time", _yes(liger <= 1.03)],
        ["80 % of a copy's bandwidth", f"{100 * share:.0f} %", _yes(share >= 0.8)],
        ["the mixture costs at most 2 % over CE", f"{100 * mixture:.1f} %".replace("-", "−"), _yes(mixture <= 0.02)],
    ]
    return table(["goal", "measured", "met"], rows)


def _on_gpu(folder: Path) -> dict[str, str]:
    if not (folder / "provenance.json").exists():
        return {}
    seconds = pd.read_csv(folder / "rounds.csv").pivot_table(index="round", columns="arm", values="seconds")
    arms = pd.read_csv(folder / "arms.csv").set_index("arm")
    ratios = {rival: seconds.div(seconds[rival], axis=0).median() for rival in (BASE, "Liger")}
    rows: list[list[object]] = []
    for arm in arms.index:
        times = [f"{ratios[rival][arm]:.2f}" for rival in (BASE, "Liger")]
        extra = f"{arms.peak_mib[arm]:.0f}"
        rows.append([arm, f"{1e3 * seconds[arm].median():.1f}", *times, extra, f"{arms.gradient_error[arm]:.1e}"])
    head = ["", "ms", "time / base's", "time / Liger's", "extra MiB", "gradient error"]
    time, memory = ratios["Liger"][OURS], arms.peak_mib[OURS] / arms.peak_mib["Liger"]
    met: list[list[object]] = [
        ["no slower than Liger's fused linear", f"{time:.2f} of its time", _yes(time <= 1)],
        ["no more memory", f"{memory:.2f} of Liger's", _yes(memory <= 1)],
    ]
    return {
        "results/linear_loss_gpu/arms.csv": table(["goal", "measured", "met"], met),
        "results/linear_loss_gpu/rounds.csv": table(head, rows),
        "results/linear_loss_gpu/provenance.json": _provenance(folder),
    }


def _rows(folder: Path) -> dict[str, str]:
    """Return what objectives that look at their row cost, as multiples of CE on the same path."""
    if not (folder / "provenance.json").exists():
        return {}
    seconds = pd.read_csv(folder / "rounds.csv").pivot_table(index="round", columns="arm", values="seconds")
    arms = pd.read_csv(folder / "arms.csv").set_index("arm")
    ratios = seconds.div(seconds[OURS], axis=0).median()
    rows: list[list[object]] = [
        [arm, f"{ratios[arm]:.3f}", f"{arms.gradient_error[arm]:.0e}", _yes(ratios[arm] <= 1.05)]
        for arm in arms.index
        if arm not in (BASE, OURS)
    ]
    head = ["", f"time / `{OURS}`'s", "gradient error", "at most 1.05"]
    return {
        "results/linear_loss_rows/rounds.csv": table(head, rows),
        "results/linear_loss_rows/provenance.json": _provenance(folder),
    }


def _cpu(folder: Path) -> dict[str, str]:
    if not (folder / "provenance.json").exists():
        return {}
    seconds = pd.read_csv(folder / "rounds.csv").pivot_table(index="round", columns="arm", values="seconds")
    arms = pd.read_csv(folder / "arms.csv").set_index("arm")
    ratios = {rival: seconds.div(seconds[rival], axis=0).median() for rival in (BASE, CHUNKED)}
    memory = arms.peak_mib / arms.peak_mib[BASE]
    rows: list[list[object]] = []
    for arm in arms.index:
        times = [f"{ratios[rival][arm]:.2f}" for rival in (BASE, CHUNKED)]
        extra = [f"{arms.peak_mib[arm]:.0f}", f"{100 * memory[arm]:.1f} %"]
        rows.append([arm, f"{1e3 * seconds[arm].median():.0f}", *times, *extra, f"{arms.gradient_error[arm]:.0e}"])
    head = ["", "ms", "time / base's", "time / `options`", "extra MiB", "MiB / base's", "gradient error"]
    return {
        "results/linear_loss/rounds.csv": table(head, rows),
        "results/linear_loss/arms.csv": _targets(ratios, memory),
        "results/linear_loss/provenance.json": _provenance(folder),
    }


def _targets(ratios: dict[str, pd.Series], memory: pd.Series) -> str:
    """Return the goals for class indices and CE, as the rivals compute it."""
    time, extra, chunked = ratios[BASE][OURS], memory[OURS], ratios[CHUNKED][OURS]
    plain = time / ratios[BASE]["F.linear_cross_entropy"]
    met = [
        f"| at most {TARGETS[0]:.2f} of the time of `{BASE}` | {time:.2f} | {_yes(time <= TARGETS[0])} |",
        f"| at most {100 * TARGETS[1]:.0f} % of its extra memory | {100 * extra:.1f} % | {_yes(extra <= TARGETS[1])} |",
        f"| no slower than `F.linear_cross_entropy`, `options=None` | {plain:.2f} | {_yes(plain <= 1)} |",
        f"| ... and `options=LinearCrossEntropyOptions()` | {chunked:.2f} | {_yes(chunked <= 1)} |",
    ]
    return "\n".join(["| goal | `linear_crossfade_loss` with CE | met |", "|---|--:|---|", *met])


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


def _provenance(folder: Path) -> str:
    found = json.loads((folder / "provenance.json").read_text())
    settings = found["settings"]
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] > 1)}, " if settings["device"] == "cpu" else ""
    return (
        f"N = {settings['rows']}, D = {settings['dim']}, C = {settings['classes']}, {settings['dtype']}, "
        f"{threads}medians of {settings['rounds']} rounds in which the arms take turns; "
        f"{found['capability']}, torch {found['versions']['torch']}, commit {found['commit']}: `{found['command']}`"
    )
