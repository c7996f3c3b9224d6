"""Data that several tests share."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def demsar():
    """Table 6 of Demšar (2006): AUC of four variants of C4.5 on 14 data sets.

    On "voting" the printed values of the last two are equal but ranked 2 and 3 there, so they differed before rounding.
    """
    rows = """
        adult 0.763 0.768 0.771 0.798
        breast-cancer 0.599 0.591 0.590 0.569
        breast-cancer-wisconsin 0.954 0.971 0.968 0.967
        cmc 0.628 0.661 0.654 0.657
        ionosphere 0.882 0.888 0.886 0.898
        iris 0.936 0.931 0.916 0.931
        liver-disorders 0.661 0.668 0.609 0.685
        lung-cancer 0.583 0.583 0.563 0.625
        lymphography 0.775 0.838 0.866 0.875
        mushroom 1.000 1.000 1.000 1.000
        primary-tumor 0.940 0.962 0.965 0.962
        rheum 0.619 0.666 0.614 0.669
        voting 0.972 0.981 0.9751 0.975
        wine 0.957 0.978 0.946 0.970
    """
    cells = [line.split() for line in rows.split("\n") if line.strip()]
    return pd.DataFrame(
        [[float(value) for value in line[1:]] for line in cells],
        index=[line[0] for line in cells],
        columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
    )


@pytest.fixture
def runs():
    """A maker of results frames: ``runs({"el": -4}, sets=("iris",))`` shifts hits of el by −4 of ``n_test`` rows."""

    def make(shift=None, sets=("wine",), methods=("ce", "f0", "gradual", "el"), repeats=10, n_train=106, n_test=36):
        rng = np.random.default_rng(0)
        rows = []
        for name in sets:
            for repeat in range(repeats):
                hits = int(rng.binomial(n_test, 0.8))
                for method in methods:
                    moved = 0 if method == "ce" else int(rng.integers(-1, 2)) + (shift or {}).get(method, 0)
                    rows.append(
                        {
                            "dataset": name, "method": method, "repeat": repeat,
                            "accuracy": min(max(hits + moved, 0), n_test) / n_test, "nll": 0.5, "ece": 0.05,
                            "n_train": n_train, "n_test": n_test,
                        }
                    )  # fmt: skip
        return pd.DataFrame(rows)

    return make
