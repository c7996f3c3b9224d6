"""Calibration of the compared methods, before and after one temperature that the validation part chooses."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from crossfade.stats.words import count, decimal, percent

MEASURES = ("nll", "ece", "brier")
HEADINGS = ("Temperature", "NLL", "after", "ECE, %", "after", "Brier", "after")


def middle(part: pd.Series[float], medians: tuple[str, ...] = ("temperature", "nll")) -> float:
    """Return the median of a column whose name begins with one of ``medians``, else the mean; NaN if one is missing."""
    robust = str(part.name).startswith(medians)
    return float(part.median(skipna=False) if robust else part.mean(skipna=False))


def calibration_means(results: pd.DataFrame) -> pd.DataFrame:
    """Return a row a method, the temperature and each measure before and after it: means over repeats, then data sets.

    Of temperature and NLL, which have no upper bound, it is the medians. Where a result lacks a score, it is NaN.
    Before the temperature a measure is that of the network whose weights are kept, which the temperature belongs to:
    where a result is the mean over equally good epochs, ``nll_kept`` and the like.
    """
    scores = ["temperature", *MEASURES, *(f"{name}_calibrated" for name in MEASURES)]
    found = results.reindex(columns=["dataset", "method", *scores])
    for name in MEASURES:
        if f"{name}_kept" in results:
            found[name] = results[f"{name}_kept"].fillna(found[name])
    found = found.astype(dict.fromkeys(scores, "float64"))

    within = found.groupby(["dataset", "method"], sort=False).agg(middle)
    return within.groupby(level="method", sort=False).agg(middle)


def calibration_cells(results: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return the cells under ``HEADINGS`` by method, with a dash for what isn't known."""
    cells = {}
    for method, row in calibration_means(results).iterrows():
        found = [decimal(float(row["temperature"]), 2)]
        for name in MEASURES:
            write = percent if name == "ece" else decimal
            found += [write(float(row[column])) for column in (name, f"{name}_calibrated")]
        cells[str(method)] = tuple(found)
    return cells


def calibration_notes(results: pd.DataFrame) -> Iterator[str]:
    """Yield how the temperature is fitted, and in how many trials there was none; nothing where none was fitted."""
    fits = results.reindex(columns=["temperature", "temperature_bounded"])
    known, bounded = int(fits["temperature"].count()), int(fits["temperature_bounded"].sum())
    if not known:
        return
    yield (
        "One temperature a network, which its logits are divided by, with the least NLL on the validation part: no "
        "answer changes. Test scores, of temperature and NLL the medians, of the networks whose weights are kept."
    )
    if bounded:
        yield (
            f"In {bounded} of {count(known, 'trial')} NLL has no minimum: without a mistake on the validation part the "
            "temperature is 1/2, and where a guess does better, all classes become equally probable."
        )
