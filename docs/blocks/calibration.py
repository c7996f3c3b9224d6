"""The tables and the figure of docs/results/calibration.md and a sentence on each card, from results/calibration/.

python docs/blocks/calibration.py STORE NAME HARDWARE    writes a store's results to NAME.{parquet,json} there
python docs/blocks/calibration.py STORE NAME WEIGHTS DATA_DIR    adds what kept weights say of each test image
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import quantile_test

from crossfade.lab import frames
from crossfade.lab.store import Store
from crossfade.stats import mean_interval, new_figure, to_svg
from crossfade.stats.calibration import MEASURES

FOLDER = Path(__file__).parents[2] / "results" / "calibration"
_AFTER = [f"{name}_calibrated" for name in MEASURES]
_COLUMNS = ["net", "dataset", "method", "repeat", "accuracy", *MEASURES, "temperature", "temperature_bounded", *_AFTER]
_BINS = 15
# The methods that stand for a card's loss.
CARDS = {
    "cross-entropy": ("ce",), "crossfade": ("f0", "gradual"), "expectation": ("el",), "focal": ("focal",),
    "mae": ("mae",), "generalized-cross-entropy": ("gce", "gce-rising"), "truncated-cross-entropy": ("tgce",),
    "tamed-cross-entropy": ("tce",), "poly": ("poly",), "complement-entropy": ("cot",), "mpce": ("mpce",),
    "max-mahalanobis": ("mmc",),
}  # fmt: skip


def collect(store: str, name: str, hardware: str) -> None:
    """Write the finished trials of a store, and where they come from."""
    with Store(store, mode="read") as opened:
        found, rows, run = frames.results(opened), list(opened.rows()), opened.runs()[0]
        failed = frames.failure_lines(frames.failures(opened))
    found = found[_COLUMNS].sort_values(["net", "dataset", "repeat", "method"], kind="stable")
    FOLDER.mkdir(parents=True, exist_ok=True)
    scores = found.select_dtypes("float64").columns
    found.astype(dict.fromkeys(scores, "float32")).to_parquet(
        FOLDER / f"{name}.parquet", index=False, compression="zstd"
    )
    command = re.sub(r"(--(data-dir|store|report|keep-weights|sets|net)) \S+ ?", "", run.request["meta"]["command"])
    made = Counter((row.provenance["commit"], row.provenance["time"][:10]) for row in rows if row.outcome.error is None)
    recipes = {json.dumps(row.content["recipe"], sort_keys=True) for row in rows}
    about = {
        "command": " ".join(command.replace(" --overwrite", "").split()),
        "runs": [{"trials": n, "commit": commit, "date": date} for (commit, date), n in made.items()],
        "hardware": hardware,
        "failed": failed,
        "scale": run.request["meta"]["scale"],
        "recipe": [json.loads(one) for one in sorted(recipes)],
        "versions": rows[0].provenance["versions"],
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def collect_images(store: str, name: str, weights: str, data_dir: str) -> None:
    """Write what each kept network says of CIFAR-100's test images: bins of confidence, and means with intervals.

    An interval is over the test images, for these networks; the seeds of an image are averaged first.
    """
    import torch

    from crossfade.lab.data.image_sets import load_images
    from crossfade.lab.nets import load_model

    test = load_images("cifar100", Path(data_dir)).test
    with Store(store, mode="read") as opened:
        results = frames.results(opened)
    scores: dict[tuple[str, str], list[np.ndarray]] = {}
    bins = []
    for row in results.itertuples():
        net = load_model(Path(weights) / f"{row.key}.safetensors")
        mean, std = (torch.tensor(net.provenance[part]).view(3, 1, 1) for part in ("mean", "std"))
        with torch.no_grad():
            logits = torch.cat([net(((part / 255 - mean) / std).float()) for part in test.images.split(500)]).double()
        y = test.labels
        for when, temperature in (("before", 1.0), ("after", net.provenance["temperature"])):
            z = logits / temperature
            p = z.softmax(1)
            sure, right = p.max(1).values.numpy(), (p.argmax(1) == y).double().numpy()
            brier = (p.square().sum(1) - 2 * p.gather(1, y[:, None])[:, 0] + 1).numpy()
            nll = torch.nn.functional.cross_entropy(z, y, reduction="none").numpy()
            scores.setdefault((row.method, when), []).append(np.stack([nll, brier, sure, right]))
            place = np.clip(np.ceil(sure * _BINS).astype(int) - 1, 0, _BINS - 1)
            sums = [np.bincount(place, values, _BINS) for values in (np.ones(len(sure)), sure, right)]
            cells = zip(*sums, strict=True)
            bins += [(row.method, row.repeat, when, k, *cell) for k, cell in enumerate(cells) if cell[0]]
    names = ["method", "repeat", "when", "bin", "images", "confidence", "right"]
    pd.DataFrame(bins, columns=names).to_csv(FOLDER / f"{name}-bins.csv", index=False, float_format="%.6g")
    lines = []
    for method, when in scores:
        own, base = np.stack(scores[method, when]), np.stack(scores["ce", when])
        for at, score in enumerate(("nll", "brier")):
            gap = (own - base)[:, at].mean(0)
            half = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
            lines.append((method, when, score, gap.mean(), gap.mean() - half, gap.mean() + half))
        draws = np.random.default_rng(0).integers(len(test.labels), size=(300, len(test.labels)))
        gaps = [_ece(own[:, 2:][:, :, draw]) - _ece(base[:, 2:][:, :, draw]) for draw in draws]
        lines.append((method, when, "ece", _ece(own[:, 2:]) - _ece(base[:, 2:]), *np.quantile(gaps, [0.025, 0.975])))
    columns = ["method", "when", "score", "mean", "low", "high"]
    pd.DataFrame(lines, columns=columns).to_csv(FOLDER / f"{name}-gaps.csv", index=False, float_format="%.6g")


def _ece(values: np.ndarray) -> float:
    """Return the mean over networks of the ECE, from (network, confidence and hit, image)."""
    found = []
    for sure, right in values:
        place = np.clip(np.ceil(sure * _BINS).astype(int) - 1, 0, _BINS - 1)
        found.append(np.abs(np.bincount(place, right - sure, _BINS)).sum() / len(sure))
    return float(np.mean(found))


def gaps(frame: pd.DataFrame, over: str) -> pd.DataFrame:
    """Return each method's differences to CE, before and after, with 95 % intervals over the values of a column.

    Of NLL, which has no upper bound, it is the median and its exact interval from the order of the differences.
    """
    means = frame.groupby([over, "method"])[[*MEASURES, *_AFTER]].mean().unstack("method")
    lines = []
    for method in dict.fromkeys(frame["method"]):
        for column in (*MEASURES, *_AFTER):
            score, _, when = column.partition("_")
            # A set on which the method failed is left out.
            own, base = means[column].loc[means[column][method].notna(), [method, "ce"]].to_numpy().T
            if method == "ce":
                found = (0.0, 0.0, 0.0)
            elif score == "nll" and len(own) > 9:
                test = quantile_test(own - base, p=0.5)
                found = (float(np.median(own - base)), *test.confidence_interval(0.95))
            else:
                span = mean_interval(own, base)
                found = (float((own - base).mean()), *((span.low, span.high) if span else (np.nan, np.nan)))
            lines.append((method, "after" if when else "before", score, *found))
    return pd.DataFrame(lines, columns=["method", "when", "score", "mean", "low", "high"])


def _cell(found: pd.DataFrame, method: str, score: str, when: str) -> str:
    row = found[(found["method"] == method) & (found["score"] == score) & (found["when"] == when)].iloc[0]
    return _span(row, score)


def _span(row: pd.Series, score: str) -> str:
    """Write a difference with its interval: ECE in points."""
    scale, digits = (100, 1) if score == "ece" else (1, 3)
    mean, low, high = (f"{scale * row[part]:+.{digits}f}".replace("-", "−") for part in ("mean", "low", "high"))
    return mean if np.isnan(row["low"]) else f"{mean} ({low} to {high})"


def table(frame: pd.DataFrame, found: pd.DataFrame) -> str:
    """Return CE's scores and every other method's differences to it, before and after one temperature each."""
    heads = ["temperature", "ECE, points", "after", "NLL, nats", "after", "Brier", "after"]
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    own = frame[frame["method"] == "ce"]
    scores = []
    for score in ("ece", "nll", "brier"):
        for column in (score, f"{score}_calibrated"):
            value = own[column].median() if score == "nll" else own[column].mean()
            scores.append(f"{100 * value:.1f}" if score == "ece" else f"{value:.3f}")
    lines.append(f"| ce | {own['temperature'].median():.2f} | {' | '.join(scores)} |")
    for method in dict.fromkeys(frame["method"]):
        if method != "ce":
            cells = [
                _cell(found, method, score, when) for score in ("ece", "nll", "brier") for when in ("before", "after")
            ]
            warm = frame.loc[frame["method"] == method, "temperature"].median()
            lines.append(f"| {method} | {warm:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def head(name: str, frame: pd.DataFrame) -> str:
    about = json.loads((FOLDER / f"{name}.json").read_text())
    made = "; ".join(f"{one['trials']} at commit {one['commit']}, {one['date']}" for one in about["runs"])
    bounded = int(frame["temperature_bounded"].sum())
    failed = "".join(f" Failed: {line}." for line in about.get("failed", ()))
    return (
        f"`{about['command']}`: {len(frame)} networks ({made}; {about['hardware']}). In {bounded} of them NLL has no "
        f"minimum.{failed} Everything else: `results/calibration/{name}.json`, and the files beside it.\n"
    )


def _verdict(own: pd.DataFrame) -> str:
    """Return what becomes of a cost in ECE and NLL: the rows are the differences before and after, by score."""
    before, after = (own.loc[when].loc[["ece", "nll"]] for when in ("before", "after"))
    cost = before["low"] > 0
    if not cost.any():
        return "no reliable cost"
    left = cost & (after["low"] > 0)
    if not left.any():
        return "no reliable cost is left"
    mostly = (after["mean"] < before["mean"] / 2)[left]
    return (
        "most of the cost is gone"
        if mostly.all()
        else f"most of the {' and '.join(mostly[~mostly].index).upper()} stays"
    )


def sentence(card: str, own: pd.DataFrame, found: pd.DataFrame) -> str:
    """Return what a card says of calibration, from trials on the UCI sets and the differences to CE."""
    where = f"**Calibration.** On {own['dataset'].nunique()} UCI sets, one hidden layer:"
    if card == "cross-entropy":
        means = own.loc[own["method"] == "ce", ["ece", "ece_calibrated"]].mean()
        before, after = (f"{100 * value:.1f} %" for value in means)
        return f"{where} ECE {before}, after [one temperature](../results/calibration.md) {after}."
    return f"{where} {'. '.join(_told(found, method) for method in CARDS[card])}. [More](../results/calibration.md)."


def _told(found: pd.DataFrame, method: str) -> str:
    """Return a method's cost in ECE and NLL, what one temperature leaves of it, and what that means."""
    rows = found[found["method"] == method].set_index(["when", "score"])
    before, after = (
        f"ECE {_span(rows.loc[when, 'ece'], 'ece')} points, NLL {_span(rows.loc[when, 'nll'], 'nll')} nats"
        for when in ("before", "after")
    )
    return f"`{method}` against CE {before}; after one temperature for each {after}: {_verdict(rows)}"


def summary(measured: dict[str, pd.DataFrame]) -> str:
    """Return what becomes of the fade's cost where it was measured, and of the other methods'."""
    lines = []
    for title, found in measured.items():
        ends: dict[str, list[str]] = {}
        for method in dict.fromkeys(found["method"]):
            if method not in ("ce", "gradual"):
                rows = found[found["method"] == method].set_index(["when", "score"])
                ends.setdefault(_verdict(rows), []).append(method)
        others = "; ".join(f"{end}: {', '.join(names)}" for end, names in ends.items())
        lines.append(f"* {title}: {_told(found, 'gradual')}." + (f" Others: {others}." if others else ""))
    return "\n".join(lines)


def reliability() -> str:
    """Return a reliability diagram of CIFAR-100's test images: the share of right answers over the confidence."""
    bins = pd.read_csv(FOLDER / "images-bins.csv")
    sums = bins.groupby(["method", "when", "bin"], sort=False)[["images", "confidence", "right"]].sum()
    figure, panels = new_figure(2, height=3.4, share_y=True)
    for panel, when in zip(panels, ("before", "after"), strict=True):
        panel.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
        for method in dict.fromkeys(bins["method"]):
            own = sums.loc[method, when]
            own = own[own["images"] >= 30]  # of fewer the share is noise
            panel.plot(own["confidence"] / own["images"], own["right"] / own["images"], "o-", ms=3, label=method)
        panel.set(xlabel="confidence", title=f"{when} one temperature")
    panels[0].set_ylabel("share of right answers")
    panels[0].legend(frameon=False)
    return to_svg(figure)


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks, and draw the figure."""
    tables, reviews, others, images = (
        pd.read_parquet(FOLDER / f"{name}.parquet") for name in ("tables", "reviews", "reviews_others", "images")
    )
    linear, mlp = (tables[tables["net"] == net] for net in ("linear", "mlp"))
    pairs = others.assign(pair=others["dataset"] + others["repeat"].astype(str))
    of_images = pd.read_csv(FOLDER / "images-gaps.csv")
    measured = {
        "UCI sets, linear classifier": ("tables", "tables linear", linear, gaps(linear, "dataset")),
        "UCI sets, one hidden layer": ("tables", "tables mlp", mlp, gaps(mlp, "dataset")),
        "Clothing reviews, the first LSTM": ("reviews", "reviews", reviews, gaps(reviews, "repeat")),
        "Clothing reviews, the other four LSTMs": ("reviews_others", "reviews_others", others, gaps(pairs, "pair")),
        "CIFAR-100, ResNet20": ("images", "images", images, of_images),
    }
    header = '<?xml version="1.0" encoding="utf-8"?>\n'
    (FOLDER.parents[1] / "docs" / "results" / "calibration-reliability.svg").write_text(header + reliability())
    found = {
        f"results/calibration/{mark}": f"{head(name, frame)}\n{table(frame, own)}"
        for name, mark, frame, own in measured.values()
    }
    found["results/calibration/summary"] = summary({title: own for title, (*_, own) in measured.items()})
    of_cards = measured["UCI sets, one hidden layer"][-1]
    cards = {f"docs/cards/{card}.md": {f"results/calibration {card}": sentence(card, mlp, of_cards)} for card in CARDS}
    return {"docs/results/calibration.md": found, **cards}


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    elif Path(sys.argv[3]).is_dir():
        collect_images(*sys.argv[1:5])
    else:
        collect(sys.argv[1], sys.argv[2], " ".join(sys.argv[3:]))
