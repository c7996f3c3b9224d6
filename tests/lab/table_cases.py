"""Tables that tests write and read, and what a refusal looks like."""

from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from crossfade.errors import UserError
from crossfade.lab.data.table import TableTask, from_file

ROWS = 120


def passengers(seed=0):
    """The shape of a well-known competition's file: a row number, names, holes, categories, codes, dates."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "PassengerId": np.arange(1, ROWS + 1),
            "Survived": draw.integers(0, 2, ROWS),
            "Name": [f"Braund, Mr. Owen {number}" for number in range(ROWS)],
            "Sex": draw.choice(["male", "female"], ROWS),
            "Age": np.where(draw.random(ROWS) < 0.2, np.nan, draw.integers(1, 80, ROWS)),
            "Fare": draw.lognormal(3, 1, ROWS).round(4),
            "Embarked": draw.choice(["S", "C", "Q", None], ROWS),
            "Boarded": pd.date_range("2020-01-01", periods=ROWS).astype(str),
            "Alone": draw.choice([True, False], ROWS),
        }
    )


def two_classes(rows, cell=str):
    return "".join(f"{cell(number)},{'xy'[number % 2]}\n" for number in range(rows))


def refuse(path, target="b", **options) -> str:
    with pytest.raises(UserError) as error:
        TableTask(from_file(path, target, **options))
    assert "\n" not in str(error.value)
    return str(error.value)


@contextmanager
def suppress_one_line():
    """A clear refusal is fine; anything else that is raised isn't."""
    try:
        yield
    except UserError as refusal:
        lines = str(refusal).splitlines()
        if len(lines) != 1:
            pytest.fail(f"{len(lines)} lines: {lines}")
