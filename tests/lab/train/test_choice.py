"""Which rate and epoch count, by which score, and what is scored where several are equally good."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from crossfade.lab.methods import method
from crossfade.lab.scores import brier_score, expected_calibration_error, majority_score, tally
from crossfade.lab.train import History, Member, Recipe, Split, train_stack
from crossfade.lab.train.tables import run
from crossfade.lab.trial import Trial
from tests.examples import examples

ENGINES = ("kernel", "batched", "plain")


@examples(100)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label")
def test_the_tally_is_scikit_learns(classes, rows, seed):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.full(classes, 0.5), rows).astype(np.float32)
    y, said, scores = generator.integers(0, classes, rows), p.argmax(1), np.empty(4)
    tally(p, y, scores)
    expected = [balanced_accuracy_score(y, said), f1_score(y, said, average="macro", zero_division=0.0)]
    expected += [expected_calibration_error(p, y), brier_score(p, y)]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)
    tally(p[:0], y[:0], scores)
    assert np.isnan(scores).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", ["accuracy", "balanced", "f1"])
def test_every_engine_is_judged_by_the_metric(make_split, engine, metric):
    split = make_split(val=23, seed=4)
    rare = Split(*(part for x, y in split.parts for part in (x, np.where(y == 2, 0, y))), 3)  # class 2 never occurs
    for chosen in (split, rare):
        recipe = Recipe(epochs=12, metric=metric, tie="expected")
        members = [Member(chosen, method("gradual"), rate, 3) for rate in (0.1, 0.01)]
        for h, plain in zip(
            train_stack(members, recipe, engine=engine), train_stack(members, recipe, engine="plain"), strict=True
        ):
            assert h.chosen == int(np.nanargmax(h.curves[f"val_{metric}"]))
            said = h.probabilities.argmax(1)
            assert h.curves["test_accuracy"][h.chosen] == accuracy_score(chosen.y_test, said)
            balanced, f1 = (h.curves[f"test_{name}"][h.chosen] for name in ("balanced", "f1"))
            assert balanced == pytest.approx(balanced_accuracy_score(chosen.y_test, said), abs=1e-11)
            assert f1 == pytest.approx(f1_score(chosen.y_test, said, average="macro"), abs=1e-11)
            ece = expected_calibration_error(h.probabilities, chosen.y_test)
            assert h.curves["test_ece"][h.chosen] == pytest.approx(ece, abs=1e-5)
            assert h.curves["test_brier"][h.chosen] == pytest.approx(
                brier_score(h.probabilities, chosen.y_test), abs=1e-5
            )
            np.testing.assert_allclose(h.curves["test_brier"], plain.curves["test_brier"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_last_epoch_counts_if_none_is_to_be_chosen(make_split, engine):
    members = [Member(make_split(val=5), method("gradual"), 0.05, seed) for seed in range(3)]
    ended = train_stack(members, Recipe(epochs=9, select="last"), engine=engine)
    for h, best in zip(ended, train_stack(members, Recipe(epochs=9), engine=engine), strict=True):
        assert h.chosen == 8
        np.testing.assert_array_equal(h.curves["test_nll"], best.curves["test_nll"])
        right = (h.probabilities.argmax(1) == members[0].split.y_test).mean()
        assert right == h.curves["test_accuracy"][-1]


def history(val, test=None, nll=None):
    """A training with these accuracies; NaN where it diverged."""
    val = np.array(val, float)
    test = np.arange(len(val)) / 10 if test is None else np.array(test, float)
    one = np.where(np.isnan(val), np.nan, 1.0)
    curves = {"epoch": np.arange(1.0, len(val) + 1), "val_accuracy": np.nan_to_num(val), "test_accuracy": test}
    curves |= {"val_nll": one, "test_nll": one if nll is None else np.array(nll, float), "train_loss": one}
    for name in ("balanced", "f1", "ece", "brier"):
        curves |= {f"val_{name}": val * 0.5, f"test_{name}": test * 0.5}
    chosen = -1 if np.isnan(val).all() else int(np.nanargmax(val))
    p = np.full((10, 2), 0.5, np.float32)
    weights = {"0.weight": np.zeros((2, 1), np.float32), "0.bias": np.zeros(2, np.float32)}
    return History(
        curves, chosen, weights=weights, probabilities=p, finite=bool(np.isfinite(val[-1])), engine="by hand"
    )


class ByHand:
    """A task whose trainings are given: a history for each rate."""

    name, content, shape = "by hand", {"data": "by hand"}, (20, 2, 2)

    def split(self, repeat):
        x, y = np.zeros((10, 1)), np.array([0] * 7 + [1] * 3)
        return Split(x, y, x, y, x, y, 2)


@pytest.fixture
def outcome_of(monkeypatch):
    """Return a function from the histories at each rate to a trial's outcome and the rates that were trained."""

    def outcome(histories, **recipe):
        trained = []

        def train_stack(members, recipe, **_):
            trained.extend(member.learning_rate for member in members)
            return [histories[member.learning_rate] for member in members]

        monkeypatch.setattr(run, "train_stack", train_stack)
        usual = {"learning_rates": (0.1, 0.01, 0.001), "tie": "expected", "epochs": 3}
        trial = Trial("test", ByHand(), method("ce"), Recipe(**{**usual, **recipe}), 0)
        (found,) = run.compute([trial])
        return found, trained

    return outcome


def test_tied_rates_and_epochs_are_scored_by_their_mean(outcome_of):
    histories = {
        0.1: history([0.8, 0.9, 0.9], [0.1, 0.2, 0.4], [9, 1, 1]),
        0.01: history([0.9, 0.5, 0.6], [0.6, 0.7, 0.7], [1e30, 1, 1]),
        0.001: history([0.8, 0.8, 0.8], [1.0, 1.0, 1.0]),
    }
    found, _ = outcome_of(histories)
    assert found.result["accuracy"] == pytest.approx((0.2 + 0.4 + 0.6) / 3)
    assert found.result["f1"] == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    assert found.result["nll"] == 1.0  # the median: one network that explodes has no mean
    assert (found.result["learning_rate"], found.result["epoch"], found.result["tied"]) == (0.1, 2, 3)
    assert found.result["majority"] == 0.7
    assert found.curves["test_accuracy"] == [0.1, 0.2, 0.4]
    first, _ = outcome_of(histories, tie="first")
    assert (first.result["accuracy"], first.result["epoch"]) == (0.2, 2)
    assert "f1" not in first.result
    assert list(first.curves) == ["val_accuracy", "test_accuracy", "val_nll", "test_nll", "train_loss"]
    first, _ = outcome_of(histories, tie="first", metric="f1")
    assert (first.result["accuracy"], first.result["f1"]) == (0.2, 0.1)
    assert first.curves["val_f1"] == pytest.approx([0.4, 0.45, 0.45])


def test_of_equal_rates_the_first_is_taken_at_the_epoch_of_its_own_rule():
    better, worse, also = history([0.5, 0.9, 0.9]), history([0.8, 0.8, 0.8]), history([0.9, 0.1, 0.1])
    assert run.tied({0.1: worse, 0.01: better, 0.001: also}, Recipe()) == [(0.01, 1), (0.01, 2), (0.001, 0)]
    later = replace(better, chosen=2)  # as Recipe(tie="last") chooses
    assert run.tied({0.01: later, 0.1: also}, Recipe(tie="last")) == [(0.01, 2), (0.01, 1), (0.1, 0)]
    nan = history([np.nan] * 3)
    assert run.tied({0.1: nan, 0.01: worse}, Recipe())[0] == (0.01, 0)
    assert run.tied({0.1: nan}, Recipe()) == []


def test_what_diverged_is_never_tied(outcome_of):
    nothing, nan = history([0.0, 0.0, 0.0], [0.3, 0.3, 0.6]), np.nan
    gone = history([0.0, nan, nan], [0.9, 0.0, 0.0])
    found, _ = outcome_of({0.1: gone, 0.01: nothing, 0.001: history([nan, nan, nan])})
    assert found.result["accuracy"] == pytest.approx((0.9 + 0.3 + 0.3 + 0.6) / 4)
    ended, _ = outcome_of({0.1: gone, 0.01: nothing, 0.001: history([nan, nan, nan])}, select="last")
    assert ended.result["accuracy"] == pytest.approx(0.3)  # nothing's chosen epoch, as it was made by hand
    lost, _ = outcome_of({0.1: gone, 0.01: gone, 0.001: gone}, select="last")
    assert "weights diverge at every learning rate (0.1, 0.01, 0.001)" in lost.error


def test_the_grid_widens_while_the_best_rate_lies_on_its_edge(outcome_of):
    low, high = history([0.5, 0.5, 0.5]), history([0.8, 0.9, 0.9])
    wider = {"wider_rates": (1.0, 0.3, 0.0003, 0.0001)}
    rates = dict.fromkeys((1.0, 0.3, 0.1, 0.01, 0.001, 0.0003, 0.0001), low)
    found, trained = outcome_of({**rates, 0.01: high}, **wider)
    assert trained == [0.1, 0.01, 0.001]
    assert not found.result["at_edge"]
    found, trained = outcome_of({**rates, 0.1: high}, **wider)
    assert trained == [0.1, 0.01, 0.001, 0.3]
    assert (found.result["learning_rate"], found.result["highest_rate"], found.result["at_edge"]) == (0.1, 0.3, False)
    best = history([0.8, 0.95, 1.0])
    found, trained = outcome_of({**rates, 0.1: high, 0.3: best, 1.0: history([1.0, 1.0, 1.0])}, **wider)
    assert trained == [0.1, 0.01, 0.001, 0.3, 1.0]
    assert not found.result["at_edge"]  # 0.3 is as good, and no edge any more
    found, trained = outcome_of({**rates, 0.001: high, 0.0003: best, 0.0001: best}, **wider)
    assert trained == [0.1, 0.01, 0.001, 0.0003, 0.0001]
    assert not found.result["at_edge"]
    found, trained = outcome_of({**rates, 0.001: low, 0.0003: low, 0.0001: low, 0.1: high, 0.3: high}, **wider)
    assert trained == [0.1, 0.01, 0.001, 0.3]
    found, trained = outcome_of({**rates, 0.1: high}, wider_rates=())
    assert trained == [0.1, 0.01, 0.001]
    assert found.result["at_edge"]
    nan = history([np.nan] * 3)
    found, trained = outcome_of({**dict.fromkeys(rates, nan), 0.0003: low}, **wider)
    assert trained == [0.1, 0.01, 0.001, 0.0003, 0.0001]
    assert found.result["learning_rate"] == 0.0003


@pytest.mark.parametrize("metric", ["accuracy", "balanced", "f1"])
def test_the_majority_class_is_scikit_learns(make_split, metric):
    split = make_split(rows=40, test=31)
    said = DummyClassifier(strategy="most_frequent").fit(split.x_train, split.y_train).predict(split.x_test)
    expected = {
        "accuracy": accuracy_score(split.y_test, said),
        "balanced": balanced_accuracy_score(split.y_test, said),
        "f1": f1_score(split.y_test, said, average="macro"),
    }
    assert majority_score(split.y_train, split.y_test, metric) == pytest.approx(expected[metric], abs=1e-11)
