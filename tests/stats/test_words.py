"""Numbers, lists and tables as the terminal, the sentences and the page write them."""

import json
import math

import numpy as np
import pytest

from crossfade.stats import Interval, WinTieLoss
from crossfade.stats.words import (
    count,
    decimal,
    level,
    listed,
    p_value,
    percent,
    plain,
    points,
    points_range,
    text_table,
)


def test_numbers():
    assert [decimal(x, 2) for x in (1.005, -0.004, -1.25, 12345.6)] == ["1.00", "0.00", "−1.25", "12\u202f345.60"]
    assert [decimal(x) for x in (None, math.nan, math.inf, -math.inf)] == ["—", "—", "∞", "−∞"]
    assert [points(x) for x in (0.004, -0.004, 0.000001, -0.000001)] == ["+0.40", "−0.40", "0.00", "0.00"]
    assert points_range(-0.01, 0.02, 1) == "−1.0 to +2.0"
    assert (percent(0.8667), percent(None), level(0.95)) == ("86.67", "—", "95 %")
    assert [p_value(p) for p in (0.0, 0.00099, 0.0123)] == ["p < 0.001", "p < 0.001", "p = 0.012"]


def test_counts_and_lists():
    assert [count(1, "loss"), count(2, "loss"), count(2000, "repeat")] == ["1 loss", "2 losses", "2\u202f000 repeats"]
    assert [count(3, noun) for noun in ("day", "entry", "epoch")] == ["3 days", "3 entries", "3 epochs"]
    assert listed("abc") == "a, b, c"
    assert listed(range(10), 3) == "0, 1, 2 and 7 more"


def test_tables_stand_in_columns():
    table = text_table(["Method", "%"], [["ce", "9.5"], ["a long name", "10.25"]])
    assert table.splitlines() == ["Method           %", "ce             9.5", "a long name  10.25"]
    with pytest.raises(ValueError, match="zip"):
        text_table(["Method"], [["ce", "1"]])


def test_plain_data_is_strict_json():
    found = plain({1: Interval(0.0, math.inf, 0.95, "t"), "n": (np.int64(3), np.float64("nan"), np.bool_(True), None)})
    interval = {"low": 0.0, "high": None, "confidence": 0.95, "kind": "t"}
    assert json.loads(json.dumps(found, allow_nan=False)) == {"1": interval, "n": [3, None, True, None]}
    assert plain(WinTieLoss(1, 2, 3)) == {"wins": 1, "ties": 2, "losses": 3}
    with pytest.raises(TypeError, match="plain data expected, got object"):
        plain(object())
