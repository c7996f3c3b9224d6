"""Numbers within sentences, from results/: for each page a function that returns them by the names of their marks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from scipy.stats import beta, ttest_1samp
from table4 import WIDE, part

from crossfade.lab.paper import figure2
from crossfade.lab.paper.image_studies import IMAGE_STUDIES, MOTIVATING
from crossfade.lab.paper.page import beside_paper, signed
from crossfade.lab.paper.table3 import STUDY as TABLE3
from crossfade.lab.paper.table4_page import PAPER
from crossfade.stats import analyze, paired_t

RESULTS = Path(__file__).parents[2] / "results"
NETS = ("linear", "mlp")
GROUPS = ("right", "near", "far")


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / name)


def _span(values: Iterable[float], digits: int = 1) -> str:
    """Return the smallest and the largest value in words, or the one value that both are."""
    found = list(values)
    ends = [f"{value:.{digits}f}" for value in (min(found), max(found))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _marked(source: str, found: dict[str, str]) -> dict[str, str]:
    return {f"{source} {name}": text for name, text in found.items()}


def _table4() -> dict[str, str]:
    frame = pd.read_parquet(RESULTS / "table4" / "results.parquet")
    wide = pd.read_parquet(RESULTS / "table4_wide" / "results.parquet")

    def gaps(name: str, momentum: float = 0.9) -> list[float]:
        own = frame[frame["momentum"] == momentum]
        table = own.pivot_table(index=["net", "dataset", "seed"], columns="method", values="accuracy")
        return [100 * float((table[name] - table["ce"]).loc[net].mean()) for net in NETS]

    tests = {net: analyze(part(wide, net, 0.9, WIDE), repeat="seed", control="ce") for net in NETS}
    means = {net: {row.method: 100 * (row.mean_delta or 0) for row in tests[net].summary} for net in NETS}
    p = {net: {one.method: one.p_adjusted for one in tests[net].against_control} for net in NETS}
    span = tests["mlp"].intervals["gradual"]
    assert span is not None
    found = {name: " and ".join(map(signed, gaps(name))) for name in ("gradual", "ce-matched")}
    for name in ("el", "focal"):
        found[f"{name} lost"] = " and ".join(f"{-gap:.1f}" for gap in gaps(name)) + " points"
        found[f"{name} lost without momentum"] = " and ".join(f"{-gap:.1f}" for gap in gaps(name, 0.0)) + " points"
    for name in ("gradual", "el", "focal"):
        found[f"{name}, the paper"] = " and ".join(signed(PAPER[net][name].delta) for net in NETS)
    return _marked("results/table4", found) | _marked(
        "results/table4_wide",
        {
            "linear": f"{signed(means['linear']['gradual'])} points, p {p['linear']['gradual']:.2g}",
            "mlp": f"{signed(means['mlp']['gradual'])}, interval {signed(100 * span.low)} to {signed(100 * span.high)}",
            "cosine": f"{signed(means['mlp']['ce-cosine'])}, p {p['mlp']['ce-cosine']:.2g}",
        },
    )


def _images() -> dict[str, str]:
    rows = _read("images/table1-paper-resnet20.csv")
    ours = beside_paper(IMAGE_STUDIES["table1"].cells, rows)
    ours = ours[ours["seeds"] > 0].set_index("method")
    row, three = rows.set_index("method"), ("ce", "f0", "gradual")
    below = ours["paper"] - ours["ours"]
    best, nll, ece = (
        [f"{scale * row[score][one]:.2f}" for one in three]
        for score, scale in (("best_test_accuracy", 100), ("nll", 1), ("ece", 1))
    )
    found = _marked(
        "results/images/table1-paper-resnet20",
        {
            "below": f"{_span(below, 2)} points",
            "spread": f"{_span(ours['paper_std'], 2)} points",
            "ce": f"{ours['ours']['ce']:.2f} %",
            "deviations": f"{below['ce'] / ours['paper_std']['ce']:.1f}",
            "ce, the paper": f"{ours['paper']['ce']:.2f} %",
            "best": f"{best[0]} (CE), {best[1]} (F = 0) and {best[2]} % (F = 0–0.5)",
            "nll": f"{nll[0]} (CE) to {nll[1]} (F = 0) and {nll[2]} (F = 0–0.5)",
            "ece": f"{ece[0]} to {ece[1]} and {ece[2]}",
            "last phase": f"{ours['ours']['f0-late'] - ours['ours']['f0']:.2f} points",
        },
    )
    counted, whole = MOTIVATING.counted, _read("images/motivating-paper.csv").set_index("method")
    here = {one: {g: 100 * whole[f"end_{g}"][one] / whole[f"watch_{g}"][one] for g in GROUPS} for one in whole.index}
    there = {g: 100 * counted[f"end_{g}"] / counted[f"watch_{g}"] for g in GROUPS}
    sizes = [abs(whole[f"watch_{g}"]["ce"] / counted[f"watch_{g}"] - 1) for g in GROUPS]
    ce, fade = here["ce"], here["gradual"]
    found |= _marked(
        "results/images/motivating-paper",
        {
            "sizes": f"{100 * max(sizes):.0f} %",
            "lost": f"{100 - there['right']:.1f} % of the right images are lost (here {100 - ce['right']:.2f} %)",
            "won": f"{there['near']:.0f} % of the near ones won (here {ce['near']:.0f} %), {there['far']:.2f} % of the "
            f"far ones (here {ce['far']:.2f} %)",
            "fade": f"{fade['near']:.1f} against {ce['near']:.1f} %",
            "gain": f"{100 * (whole['accuracy']['gradual'] - whole['accuracy']['ce']):.1f} points",
        },
    )
    control = 100 * _read("images/normmatched-short.csv").pivot_table("accuracy", "repeat", "method")
    ahead = []
    for name, scaled in (("ce-rate-matched", "the rate"), ("ce-matched", "the loss")):
        test = paired_t(control[name] - control["gradual"])
        assert test.interval is not None
        low, high = signed(test.interval.low), signed(test.interval.high)
        ahead.append(f"{signed(test.mean)} ({low} to {high}) points with {scaled} scaled")
    found |= {"results/images/normmatched-short fade": " and ".join(ahead)}
    shuffle = 100 * _read("images/table1-own-shufflenetv2.csv").pivot_table("accuracy", "repeat", "method")
    mixtures = {"the fade": "gradual", "F = 0": "f0", "F = 0, 0.5": "f0-late"}
    by_seed = []
    for name, column in mixtures.items():
        *first, last = (signed(gap) for gap in shuffle[column] - shuffle["ce"])
        by_seed.append(f"{name} {', '.join(first)} and {last}")
    found |= {"results/images/table1-own-shufflenetv2 by seed": "; ".join(by_seed)}
    own = _read("images/table1-own-resnet20.csv")
    both = own.merge(_read("images/repeated/table1-own-resnet20.csv"), on=["method", "repeat"])
    apart = 100 * (both["accuracy_x"] - both["accuracy_y"])
    sums = own.groupby("method")[[f"{when}_{g}" for when in ("watch", "end") for g in GROUPS]].sum()
    share = {g: 100 * sums[f"end_{g}"] / sums[f"watch_{g}"] for g in GROUPS}
    return (
        found
        | _marked(
            "results/images/table1-own-resnet20",
            {
                "apart": f"{signed(apart.min())} to {signed(apart.max())} points",
                "far": f"{share['far']['ce']:.2f} and {share['far']['gradual']:.2f} %",
                "near": f"{share['near']['gradual']:.1f} against {share['near']['ce']:.1f} %",
            },
        )
        | {
            "results/images/table1-short-resnet20 accuracies": _span(
                100 * _read("images/table1-short-resnet20.csv")["accuracy"], 0
            )
            + " %"
        }
    )


def _glue(name: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return a GLUE study's results, and how often each of CE and the fade is best."""
    frame = _read(f"text/{name}.csv")
    best = {}
    for score in ("score", "accuracy"):
        matrix = figure2.experiments(frame, score)
        best[score] = matrix.eq(matrix.max(axis=1), axis=0).sum()
    count = len(matrix)
    said = f"{best['score']['ce']} of {count} experiments, the fade in {best['score']['gradual']}"
    return frame, {"best": said, "best accuracy": f"{best['accuracy']['ce']} and {best['accuracy']['gradual']}"}


def _texts() -> dict[str, str]:
    reviews = beside_paper(TABLE3.cells, _read("text/table3-paper.csv"))
    ce = reviews[reviews["method"] == "ce"]
    one = ce[ce["title"].str.startswith("1")]
    found = _marked(
        "results/text/table3-paper",
        {
            "ce": f"{_span(ce['ours'])} %",
            "lower": f"{_span(one['ours'] - one['paper'])} points",
            "gains": f"{reviews['paper_delta'].max():.1f}",
        },
    )
    frame, best = _glue("figure2-protocol")
    scores = figure2.glue_scores(frame)
    own = scores[scores["task"] != "WNLI"]
    table = 100 * own.pivot_table(index=["dataset", "repeat"], columns="method", values="score")
    gaps = table.drop(columns="ce").sub(table["ce"], axis=0)
    p = [ttest_1samp(gaps[method].groupby("dataset").mean(), 0).pvalue for method in gaps]
    mean = own.groupby("method")[["nll", "ece"]].mean()
    rest = mean.drop("ce")
    found |= _marked(
        "results/text/figure2-protocol",
        best
        | {
            "behind": f"{_span(-gaps.mean(), 2)} points behind CE (p {_span(p, 2)}, t test over tasks)",
            "nll": f"{mean['nll']['ce']:.2f} against {_span(rest['nll'], 2)} nats",
            "ece": f"{100 * mean['ece']['ce']:.1f} against {_span(100 * rest['ece'])} %",
        },
    )
    frame, best = _glue("figure2-short")
    rte = int(frame[frame["dataset"].str.startswith("RTE")]["n_test"].max())
    found |= _marked(
        "results/text/figure2-short",
        {
            "best": best["best"].partition(",")[0],
            "cola": f"{100 * frame[frame['dataset'].str.startswith('CoLA')]['accuracy'].mean():.2f} %",
            "rte": f"{rte} examples, so that one is worth {100 / rte:.2f} points",
        },
    )
    frame, best = _glue("figure2-full")
    means = frame.assign(task=frame["dataset"].str.split(" ").str[0]).groupby(["task", "method"])[["accuracy", "mcc"]]
    percent = 100 * means.mean()
    accuracy, mcc = percent["accuracy"].unstack(), percent["mcc"].unstack()
    ratios = _read("benchmarks/lstm/kernel.csv")["ratio_by_cpu"]
    return (
        found
        | _marked(
            "results/text/figure2-full",
            {
                "best": best["best"],
                "cola": f"{mcc['f0']['CoLA'] - mcc['ce']['CoLA']:.1f} points",
                "mrpc": f"{_span(accuracy['ce']['MRPC'] - accuracy.loc['MRPC'].drop('ce'))} points",
                "rte": f"{accuracy.loc['RTE'].mean():.0f} %",
            },
        )
        | {"results/benchmarks/lstm/kernel.csv": f"{_span(ratios)} times"}
    )


def _statistics() -> dict[str, str]:
    found = _read("benchmarks/verdict/verdict.csv")
    own = found[(found["estimator"] == "folds: rows and fits") & (found["repeats"] == 10) & (found["arm"] == "copy")]
    few = own[own["rows"] < 1000]
    false, total = round((own["found"] * own["samples"]).sum()), int(own["samples"].sum())
    most = 100 * beta.ppf(0.975, false + 1, total - false)
    alone = found[(found["estimator"] == "folds: rows alone") & (found["samples"] >= 20)]
    false_alone = 100 * alone[alone["arm"] == "copy"]["found"]
    missed = 100 * alone[alone["arm"] != "copy"].groupby(["rows", "repeats"])["missed"].mean()
    random = found[found["repeats"].isin([3, 5]) & (found["rows"] <= 1000)]
    power = random[random["arm"] != "copy"].groupby(["estimator", "repeats", "rows"])["found"].mean()
    more = power["random: rows and fits"] / power["random: Nadeau and Bengio"]
    copies = random[(random["arm"] == "copy") & (random["estimator"] == "random: rows and fits")]
    fixed = (
        100
        * found[(found["arm"] != "copy") & found["estimator"].str.startswith("fixed")]
        .groupby("estimator")["missed"]
        .mean()
    )
    cover = _read("benchmarks/intervals/coverage.csv")
    drawn = cover[(cover["n"] == 20) & (cover["distribution"] == "Student t, 3 degrees of freedom")]
    at20 = 100 * drawn.set_index("interval")["covered"]
    width = cover[cover["interval"] == "symmetric bootstrap-t"].groupby("n")["width"].mean()[[10, 20, 40, 120]]
    return _marked(
        "results/benchmarks/verdict",
        {
            "false": f"{false} false positives in {total} ({100 * false / total:.1f} %, at most {most:.1f} %",
            "few": f"{round((few['found'] * few['samples']).sum())} in {int(few['samples'].sum())}",
            "alone": f"{_span(false_alone, 0)} %",
            "missed": f"{_span(missed, 0)} %",
            "few repeats": f"{_span(more)} times",
            "few repeats, false": f"{round((copies['found'] * copies['samples']).sum())} false positives in "
            f"{int(copies['samples'].sum())}",
            "fixed": f"{fixed['fixed test rows: Student']:.0f} %",
            "fixed, rows and fits": f"{fixed['fixed test rows: rows and fits']:.0f} %",
        },
    ) | _marked(
        "results/benchmarks/intervals",
        {
            "bca": f"{at20['BCa']:.0f} % where Student's covers {at20['Student']:.0f} %",
            "width": f"{_span(100 * (width - 1), 0)} %",
        },
    )


def _escaping() -> dict[str, str]:
    along, minima, sharp = (_read(f"escape/{name}.csv") for name in ("along", "minima", "sharpness"))
    mixed = along[along["mixture"].isin(["f0", "f0.1", "f0.2", "f0.3", "f0.4"])]
    larger = 100 * (mixed["gain"] > 2 * mixed["gain_se"]).groupby(mixed["mixture"]).mean()

    def failed(frame: pd.DataFrame) -> pd.Series:
        bounded = frame[frame["printed_margin"].notna()]
        fails = bounded["printed_margin"] < -2 * bounded["printed_margin_se"]
        return 100 * fails.groupby(bounded["mixture"]).mean()

    table = sharp[sharp["loss"] == "ce"].pivot_table(
        index=["dataset", "seed"], columns="trained_with", values=["largest_eigenvalue", "test_accuracy"]
    )
    ratio = (table["largest_eigenvalue"]["gradual"] / table["largest_eigenvalue"]["ce"]).dropna()
    small = ratio[[name.startswith("CIFAR") for name, _ in ratio.index]]
    gain = 100 * (table["test_accuracy"]["gradual"] - table["test_accuracy"]["ce"]).mean()
    on_way, at_end = failed(along), failed(minima)
    return {
        "results/escape/along.csv larger": f"{_span(larger, 0)} %",
        "results/escape/along.csv failed": f"{on_way['f0']:.0f} % (F = 0) to {on_way['f0.4']:.0f} % (F = 0.4)",
        "results/escape/minima.csv failed": f"{at_end.max():.0f} %",
        "results/escape/minima.csv el": f"{minima[minima['mixture'] == 'el']['matched_ratio'].median():.1f} times",
        "results/escape/sharpness.csv ratio": f"{ratio.median():.1f} times",
        "results/escape/sharpness.csv cifar": f"{small.iloc[0]:.1f} times",
        "results/escape/sharpness.csv accuracy": f"{abs(gain):.1f} points",
    }


def _dynamics() -> dict[str, str]:
    moves = _read("dynamics/transitions.csv")
    moves["total"] = moves[[f"to {group}" for group in ("wrong and hopeless", "wrong and near", "right")]].sum(axis=1)
    test = moves[moves["part"] == "test"]
    small = next(name for name in test["dataset"].unique() if name.startswith("CIFAR"))
    own = test[(test["dataset"] == small) & (test["method"] == "ce")].groupby("from")[["to right", "total"]].sum()
    share = 100 * own["to right"] / own["total"]
    sums = test[test["from"] == "wrong and near"].groupby("method")[["to right", "total"]].sum()
    near = 100 * sums["to right"] / sums["total"]
    scores = _read("dynamics/calibration.csv")
    last = scores[(scores["part"] == "test") & (scores["epoch"] == scores["epochs"])]
    accuracy = 100 * last.pivot_table(index="dataset", columns="method", values="accuracy")
    gaps = accuracy.drop(columns=["ce", "el"]).sub(accuracy["ce"], axis=0)
    mass = _read("dynamics/mass.csv").query("dataset == @small and method == 'ce' and part == 'train' and loss == 'ce'")
    end = mass[mass["epoch"] == mass["epoch"].max()][["bin0", "bin1"]].sum(axis=1).mean()
    lost = _read("dynamics/forgetting.csv").query("dataset == @small and method == 'el' and part == 'train'")
    never = lost[lost["events"] == "never learnt"]["examples"].sum() / lost["examples"].sum()
    counted, whole = MOTIVATING.counted, _read("images/motivating-paper.csv").set_index("method").loc["ce"]
    printed, ours = (
        {g: 100 * one[f"end_{g}"] / one[f"watch_{g}"] for g in GROUPS} for one in (counted, whole.to_dict())
    )
    el, ce = accuracy.loc[small, "el"], accuracy.loc[small, "ce"]
    within = f"{gaps.mean().abs().max():.1f} points of CE's over all sets and {gaps.loc[small].abs().max():.1f}"
    return {
        "the paper far": f"{printed['far']:.2f} %",
        "the paper near": f"{printed['near']:.2f} %",
        "the paper right": f"{printed['right']:.2f} %",
        "results/dynamics/transitions.csv cifar": f"{share['wrong and near']:.0f} % against "
        f"{share['wrong and hopeless']:.1f} %",
        "results/dynamics/transitions.csv f0": f"{near['f0'] - near['ce']:.1f} points",
        "results/dynamics/mass.csv ce": f"{100 * end:.0f} %",
        "results/dynamics/calibration.csv gaps": within,
        "results/dynamics/forgetting.csv el": f"{el:.0f} % against {ce:.0f} %; {100 * never:.0f} %",
        "results/images/motivating-paper here": f"{ours['far']:.2f} and {ours['near']:.1f} %",
    }


def _vocabularies() -> dict[str, str]:
    launch = _read("loss_gpu/launch.csv").groupby("kernel")["ms"].agg(["min", "max"])
    memory = _read("linear_loss_gpu/arms.csv").set_index("arm")
    plain = float(memory.filter(like="mib", axis=1).loc["linear + F.cross_entropy"].iloc[0])
    ends = {name: f"{low:.2f} to {high:.2f} ms {name}" for name, low, high in launch.itertuples()}
    return {
        "8192 x 128256 in bfloat16": f"{8192 * 128256 * 2 / 1e9:.1f} GB",
        "results/loss_gpu/launch.csv": f"{ends['forward']} and {ends['backward']}",
        "results/linear_loss_gpu/arms.csv memory": f"{plain / 1024:.0f} GB",
    }


def _calibration() -> dict[str, str]:
    found = pd.read_parquet(RESULTS / "calibration" / "tables.parquet")
    certain = found[found["temperature_bounded"].fillna(False).astype(bool) & (found["temperature"] < 1)]
    means = certain.groupby("method")[["ece_calibrated", "ece", "nll_calibrated", "nll"]].mean()
    counts = certain["method"].value_counts()

    def three(values: pd.Series, form: str, unit: str = "") -> str:
        """Return the values of CE, the fade and focal."""
        first, *others = (format(values[name], form) for name in ("ce", "gradual", "focal"))
        return f"{first}{unit} ({'; '.join(others)})"

    ece = [three(100 * means[name], ".0f", " %") for name in ("ece_calibrated", "ece")]
    nll = [three(means[name], ".2f") for name in ("nll_calibrated", "nll")]
    text = (
        f"{three(counts, 'd')} of CE (the fade; focal), mean ECE is {ece[0]} at 1/2 and {ece[1]} at 1, and mean test "
        f"NLL {nll[0]} and {nll[1]} nats"
    )
    return {"results/calibration/tables.parquet certain": text}


def _index() -> dict[str, str]:
    ours = beside_paper(IMAGE_STUDIES["table1"].cells, _read("images/table1-paper-resnet20.csv"))
    gaps = ours["delta"].dropna()
    return {"results/images/table1-paper-resnet20 gaps": f"{signed(gaps.min())} to {signed(gaps.max())} points"}


def _expectation() -> dict[str, str]:
    return {"the paper": " and ".join(signed(PAPER[net]["el"].delta) for net in NETS) + " points"}


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks."""
    return {
        "docs/results/table4.md": _table4(),
        "docs/results/images.md": _images(),
        "docs/results/text.md": _texts(),
        "docs/results/calibration.md": _calibration(),
        "docs/results/index.md": _index(),
        "docs/cards/expectation.md": _expectation(),
        "docs/statistics.md": _statistics(),
        "docs/why/escaping.md": _escaping(),
        "docs/why/dynamics.md": _dynamics(),
        "docs/large-vocabularies.md": _vocabularies(),
    }
