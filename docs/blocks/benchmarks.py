"""Tables of the benchmarks' results, from results/benchmarks/."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from why import table

FOLDER = Path(__file__).parents[2] / "results" / "benchmarks"


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks. Benchmarks without results are left out."""
    found: dict[str, dict[str, str]] = {}
    for page, name, make in (
        ("results/images.md", "images", _images),
        ("results/images.md", "images_gpu", _images),
        ("results/images.md", "depthwise", _depthwise),
        ("results/text.md", "lstm", _lstm),
        ("results/text.md", "lstm_gpu", _lstm_gpu),
        ("results/text.md", "bert", _bert),
        ("why/escaping.md", "diagnostics", _diagnostics),
        ("cpu.md", "loss_cpu", _loss_cpu),
        ("cpu.md", "loss_cpu_2", _loss_cpu),
        ("results/table4.md", "tables", _tables),
        ("statistics.md", "intervals", _intervals),
        ("statistics.md", "verdict", _verdict),
    ):
        folder = FOLDER / name
        if (folder / "provenance.json").exists():
            found.setdefault(f"docs/{page}", {})[f"results/benchmarks/{name}"] = f"{_origin(folder)}\n\n{make(folder)}"
    return found


def _origin(folder: Path) -> str:
    about = json.loads((folder / "provenance.json").read_text())
    threads = f", {about['threads']} thread{'s' * (about['threads'] > 1)}" if "threads" in about else ""
    commands = [about["command"]] if isinstance(about["command"], str) else about["command"]
    return (
        f"{' and '.join(f'`{one}`' for one in commands)} ({about['machine']}: {about['capability']}{threads}; torch "
        f"{about['versions']['torch']}, commit {about['commit']}, {about['time'][:10]}):"
    )


def _images(folder: Path) -> str:
    rows = [
        [f"{one.what}: {one.arm}", f"{one.images_per_second:,.0f}", f"{one.ratio:.2f}"]
        for one in pd.read_csv(folder / "images.csv").itertuples()
    ]
    return table(["", "images/s", "× DataLoader"], rows)


def _depthwise(folder: Path) -> str:
    rows = [
        [f"{one.what}: {one.arm}", f"{one.ms:.2f}", f"{one.ratio:.2f}"]
        for one in pd.read_csv(folder / "arms.csv").itertuples()
    ]
    return table(["", "ms", "× float32"], rows)


def _lstm(folder: Path) -> str:
    found = pd.read_csv(folder / "lstm.csv")
    rows = [
        [
            f"{one.layers} × {one.hidden}", f"{one.study:,.0f}", f"{one.one_by_one:,.0f}", f"{one.ratio:.1f}",
            f"{one.ratio_by_cpu:.1f}", f"{one.ratio_of_strangers:.1f}", one.variant,
        ]
        for one in found.itertuples()
    ]  # fmt: skip
    rows.append(["all together", "", "", _together(found), "", "", ""])
    head = ["layers × H", "study", "one by one", "ratio", "by processor time", "ratio, nothing shared"]
    return table([*head, "the loop's fastest variant"], rows)


def _lstm_gpu(folder: Path) -> str:
    found = pd.read_csv(folder / "lstm_gpu.csv")
    rows = [
        [f"{one.layers} × {one.hidden}", f"{one.study:,.0f}", f"{one.one_by_one:,.0f}", f"{one.ratio:.1f}", one.variant]
        for one in found.itertuples()
    ]
    rows.append(["all together", "", "", _together(found), ""])
    return table(["layers × H", "study", "one by one", "ratio", "the loop's fastest variant"], rows)


def _together(found: pd.DataFrame) -> str:
    """Return the ratio for the same number of networks of every architecture."""
    return f"{(1 / found['one_by_one']).sum() / (1 / found['study']).sum():.1f}"


def _bert(folder: Path) -> str:
    rows = [
        [f"{one.task}, {one.arm}", f"{one.examples_per_second:.1f}", f"{one.time_to_lab:.2f}"]
        for one in pd.read_csv(folder / "bert.csv").itertuples()
    ]
    return table(["", "examples/s", "time over the lab's"], rows)


def _diagnostics(folder: Path) -> str:
    recorder = [
        [one.network, f"{one.step_ms:.1f}", f"{one.record_ms:.3f}", f"{100 * one.share:.2f} %"]
        for one in pd.read_csv(folder / "recorder.csv").itertuples()
    ]
    escaping = [
        [one.network, f"{one.gradient_ms:.1f}", f"{one.probe:.2f}", f"{one.curvlinops:.2f}"]
        for one in pd.read_csv(folder / "escaping.csv").itertuples()
    ]
    return "\n\n".join(
        [
            table(["recorder", "step, ms", "record, ms", "share"], recorder),
            table(["Tr(HΣ)", "gradient, ms", "a probe, gradients", "curvlinops' HVP alone"], escaping),
        ]
    )


def _tables(folder: Path) -> str:
    rows = [
        [f"{one.set}, {one.net}", f"{one.kernel:.3g}", f"{one.batched_ratio:.0f}", f"{one.plain_ratio:.0f}"]
        for one in pd.read_csv(folder / "steps.csv").itertuples()
    ]
    text = table(
        ["", "kernel: µs of a core for a network's step", "batched engine, × that", "plain loop, × that"], rows
    )
    if not (folder / "table4.csv").exists():
        return text
    whole = pd.read_csv(folder / "table4.csv").iloc[0]
    return (
        f"{text}\n\nAll of Table 4, {whole.networks:,.0f} networks on {whole.sets:.0f} sets, loading and compiling "
        f"included, took {whole.core_minutes:.1f} minutes of processor time and {whole.minutes:.1f} on the clock."
    )


def _intervals(folder: Path) -> str:
    found = pd.read_csv(folder / "coverage.csv")
    sizes, kinds = [5, 10, 20, 40, 120], list(dict.fromkeys(found["interval"]))
    covered = found.set_index(["distribution", "interval", "n"])["covered"]
    rows = [
        [name, *(" / ".join(f"{100 * covered[name, kind, n]:.0f}" for n in sizes) for kind in kinds)]
        for name in dict.fromkeys(found["distribution"])
    ]
    width = found.groupby(["interval", "n"])["width"].mean()
    rows.append(
        ["*mean width over Student's*", *(" / ".join(f"{width[kind, n]:.2f}" for n in sizes) for kind in kinds)]
    )
    names = ["Wilcoxon's, of the pseudo-median" if kind == "wilcoxon" else kind for kind in kinds]
    return table(["%, for " + " / ".join(map(str, sizes)) + " data sets", *names], rows)


def _verdict(folder: Path) -> str:
    found = pd.read_csv(folder / "verdict.csv")
    arms = list(dict.fromkeys(found["arm"]))
    rows = []
    usual = found[~found["estimator"].str.startswith("fixed") & (found["repeats"] >= 10)]
    for (size, estimator, repeats), part in usual.groupby(["rows", "estimator", "repeats"], sort=False):
        by_arm = part.set_index("arm")
        n = int(by_arm["samples"].iloc[0])
        shares = [by_arm["found"][arm] for arm in arms]
        shown = [f"{100 * share:.1f}" if n >= 20 else f"{round(n * share)} of {n}" for share in shares]
        missed = by_arm["missed"].drop("copy")
        rest = [f"{100 * missed.mean():.1f}" if missed.notna().all() else "", f"{100 * part['half_width'].mean():.2f}"]
        rows.append([f"{size:,} × {n}", estimator, str(repeats), *shown, *rest])
    truth, sizes = usual.groupby(["rows", "arm"], sort=False)["truth"].mean(), [100, 300, 1000]
    truths = [" / ".join(f"{100 * truth[size, arm]:+.1f}" for size in sizes) for arm in arms]
    rows.append(["*mean truth at 100 / 300 / 1,000 rows, points*", "", "", *truths, "", ""])
    head = ["rows × samples", "estimator", "repeats", "false positives", *(f"found: {arm}" for arm in arms[1:])]
    text = table([*head, "truth not covered", "half width, points"], rows)
    shared = pd.read_csv(folder / "shared.csv").groupby(["arm", "rows"], sort=False)[["common", "fits"]].sum()
    share = (shared["common"] / shared["fits"]).unstack()
    said = "; ".join(f"{arm} {', '.join(f'{value:.2f}' for value in share.loc[arm])}" for arm in arms)
    counts = ", ".join(f"{n:,}" for n in share)
    ratio = pd.read_csv(folder / "foreseen.csv")["ratio"]
    whole = shared["common"].sum() / shared["fits"].sum()
    ends = " to ".join(f"{ratio.quantile(end):.2f}" for end in (0.1, 0.9))
    return (
        f"{text}\n\n{_few_or_fixed(found.drop(usual.index))}\n\n"
        f"* The share of the fits' variance that is common to all fits of a sample ({counts} rows): {said}; "
        f"{whole:.2f} in all.\n* The difference that ten repeats say twenty would detect, "
        f"over what twenty say: {ratio.median():.2f}, in four of five cases {ends}."
    )


def _few_or_fixed(found: pd.DataFrame) -> str:
    """Return a table of few repeats and of fixed test rows, with a cell for all sizes of samples."""
    rows = []
    for (estimator, repeats), part in found.groupby(["estimator", "repeats"], sort=False):
        by_size = [one.set_index("arm") for size, one in part.groupby("rows") if size <= 1000]
        false = [one["found"]["copy"] for one in by_size]
        power = [one["found"].drop("copy").mean() for one in by_size]
        missed = [one["missed"].drop("copy").mean() for one in by_size]
        half = [one["half_width"].mean() for one in by_size]
        digits = (1, 1, 1, 2)
        cells = zip((false, power, missed, half), digits, strict=True)
        shown = [" / ".join(f"{100 * value:.{places}f}" for value in values) for values, places in cells]
        alone = f", samples of {part['rows'].iloc[0]}" if len(by_size) == 1 else ""
        rows.append([estimator + alone, str(repeats), *shown])
    head = ["at 100 / 300 / 1,000 rows", "repeats", "false positives", "found of mild, strong and el"]
    return table([*head, "truth not covered", "half width, points"], rows)


def _loss_cpu(folder: Path) -> str:
    found = pd.read_csv(folder / "arms.csv")
    found["shape"] = found["rows"].astype(str) + " × " + found["classes"].astype(str) + ", " + found["dtype"]
    shapes = list(dict.fromkeys(found["shape"]))
    rows: list[list[str]] = []
    for arm in dict.fromkeys(found["arm"]):
        cells = [arm]
        for shape in shapes:
            one = found[(found["arm"] == arm) & (found["shape"] == shape)].iloc[0]
            cells.append(f"{one.ratio:.2f}" if pd.isna(one.goal) else f"{one.ratio:.2f} (goal {one.goal:g})")
        rows.append(cells)
    return table(["time over F.cross_entropy's", *shapes], rows)
