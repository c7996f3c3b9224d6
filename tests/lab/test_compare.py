import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris, load_wine

import crossfade
from crossfade.errors import UserError
from crossfade.lab import compare
from crossfade.lab.comparison import execute, plan
from crossfade.lab.data.table import from_file, load_builtin
from crossfade.lab.methods import DEFAULT_METHODS, METHODS, Method
from crossfade.lab.provenance import same_schedules
from crossfade.lab.settings import Images, Settings, Texts, Training
from crossfade.lab.store import Store
from crossfade.lab.train import Recipe
from crossfade.schedules import constant, gradual, linear
from crossfade.stats import out_of_fold_t

pytestmark = pytest.mark.filterwarnings("ignore:.*is the same as f0")  # three epochs
USUAL = (*DEFAULT_METHODS, "ce-matched")
QUICK = {"repeats": 3, "epochs": 3, "learning_rates": (0.01,)}


@pytest.fixture(scope="module")
def answer():
    return compare(*load_wine(return_X_y=True, as_frame=True), **{**QUICK, "repeats": 4})


def scores(result):
    return result.results.drop(columns=["seconds", "key", "dataset", "engine"])


def test_the_answer_holds_every_trial_and_adds_up(answer):
    results = answer.results
    assert len(results) == 4 * len(USUAL)
    assert not results[["accuracy", "nll", "ece", "brier"]].isna().any(axis=None)
    means = results.groupby("method")["accuracy"].mean()
    table = answer.table
    assert list(table.index) == list(USUAL)
    for name in USUAL:
        assert table.loc[name, "accuracy"] == pytest.approx(means[name])
        if name != "ce":
            assert table.loc[name, "delta"] == pytest.approx(means[name] - means["ce"])
            assert table.loc[name, "low"] <= table.loc[name, "delta"] <= table.loc[name, "high"]
            assert table.loc[name, ["wins", "ties", "losses"]].sum() == 4
        for score in ("ece_calibrated", "brier_calibrated", "nll_calibrated"):
            assert table.loc[name, score] == pytest.approx(results.groupby("method")[score].mean()[name])
    assert "Temperature" in answer.details
    assert table["mean_rank"].sum() == pytest.approx(sum(range(1, len(USUAL) + 1)))
    assert len(answer.curves) == len(results) * 3


def test_what_happened_to_each_row_is_kept_and_judged(answer):
    hits = {(row.method, row.repeat): row.hits for row in answer.results.itertuples()}
    rows = len(load_wine().target)
    for method in USUAL:
        tested = np.array([hits[method, repeat] >= 0 for repeat in range(4)])
        assert tested.shape == (4, rows)
        assert tested.sum(0).max() == 1  # four of five folds
        assert list(tested.sum(1)) == list(answer.results.query("method == @method")["n_test"])
    for found in answer.comparison.paired:
        own, other = (np.stack([hits[name, repeat] for repeat in range(4)]) for name in (found.method, "ce"))
        assert found.interval == out_of_fold_t(found.differences, own, other).interval
    assert "hits" not in answer.to_dict()["results"][0]


def test_the_hits_are_those_of_the_accuracy():
    result = compare(*load_iris(return_X_y=True), **QUICK, methods=["gradual"], tie="first").results
    for row in result.itertuples():
        assert row.hits[row.hits >= 0].mean() == pytest.approx(row.accuracy)
    assert "hits" not in compare(*load_iris(return_X_y=True), **QUICK, methods=["gradual"], metric="f1").results


def test_splits_of_either_kind_are_read_back_from_the_settings():
    keys = {}
    for split in ("folds", "random"):
        planned = plan([load_builtin("iris")], Settings.of({"split": split}), "test")
        again = plan([load_builtin("iris")], Settings.of(planned.run.request["settings"]), "test")
        keys[split] = planned.trials[0].key
        assert again.trials[0].key == keys[split]
    assert keys["folds"] != keys["random"]
    assert plan([load_builtin("iris")], Settings.of({}), "test").trials[0].key == keys["folds"]


def test_an_answer_without_results_shows_itself_too(answer):
    nothing = replace(answer, results=answer.results[:0], pending=20)
    assert "20 trials not run yet" in repr(nothing)
    assert nothing._repr_html_() == f"<p>{nothing!r}</p>"


def test_the_answer_shows_itself(answer, tmp_path):
    text = repr(answer)
    assert "Δ vs ce" in text
    headline, *rest = answer.verdict.splitlines()
    assert text.startswith(f"{headline}\n\nMethod")
    assert text.endswith("\n".join(rest))
    assert rest[-1].startswith("Next: ")
    assert len(rest) < len(USUAL)  # a sentence a kind, not a method
    assert answer._repr_html_().startswith(f"<p><strong>{headline}</strong></p><table")
    assert all(verdict.text in answer.details for verdict in answer.comparison.headlines)
    assert "gradual: CE+EL F=0-0.5. F = 0, 0.1, ... 0.5 in six equal phases" in answer.details
    page = answer.report(tmp_path / "page.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert 'name="generator" content="crossfade"' in page
    plain = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert len(plain["results"]) == len(answer.results)
    assert plain["comparison"]["control"] == "ce"
    assert plain["headline"] == headline
    with pytest.raises(UserError, match="can't be written"):
        answer.report(tmp_path / "nowhere" / "page.html")


def test_arrays_frames_and_files_give_the_same_numbers(tmp_path):
    X, y = load_iris(return_X_y=True, as_frame=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    frame = X.assign(species=names)
    frame.to_csv(tmp_path / "iris.csv", index=False)
    frame.to_parquet(tmp_path / "iris.parquet")
    expected = scores(compare(X, names, **QUICK))
    for path in ("iris.csv", "iris.parquet"):
        planned = plan([from_file(tmp_path / path, "species")], Settings.of(QUICK), "test")
        with Store(":memory:") as store:
            pd.testing.assert_frame_equal(scores(execute(planned, store)), expected)


def test_repeats_and_methods_can_be_added_and_nothing_moves(tmp_path):
    X, y = load_iris(return_X_y=True)
    store = tmp_path / "s.db"
    first = compare(X, y, methods=["ce", "el"], store=store, **{**QUICK, "repeats": 2})
    more = compare(X, y, methods=["ce", "gradual", "el"], store=store, **QUICK)
    both = more.results.merge(first.results, on="key", suffixes=("", "_before"))
    assert len(both) == len(first.results) == 4
    assert (both["seconds"] == both["seconds_before"]).all()  # read from the store, not computed again
    fresh = compare(X, y, methods=["ce", "gradual", "el"], **QUICK)
    pd.testing.assert_frame_equal(scores(fresh), scores(more))


def test_own_losses_as_functions_objects_and_files(tmp_path, monkeypatch):
    X, y = load_iris(return_X_y=True)

    def root(ce):
        return (1 + ce) ** 0.5

    (tmp_path / "mine.py").write_text("def bent(ce):\n    return ce / (1 + ce)\n")
    monkeypatch.chdir(tmp_path)
    own = [root, Method("half", "half way", schedule=constant(0.25))]
    named = compare(X, y, methods=own, **QUICK)
    assert list(named.table.index) == ["ce", "root", "half"]
    settings = Settings.of({**QUICK, "loss": ["mine.py:bent"], "methods": ["ce", "f0"]})
    planned = plan([load_builtin("iris")], settings, "test")
    with Store(":memory:") as store:
        assert list(execute(planned, store).table.index) == ["ce", "f0", "bent"]


def test_schedules_as_functions_and_one_method_without_a_list():
    data = load_iris(return_X_y=True)
    found = crossfade.compare(*data, methods=[linear(), lambda t: (1.0, 1.0)], **QUICK)
    assert list(found.table.index) == ["ce", "linear", "lambda"]
    named = crossfade.compare(*data, methods="f0", **QUICK)
    assert list(named.table.index) == ["ce", "f0"]
    assert named.table.loc["f0", "nll"] == found.table.loc["lambda", "nll"]
    alone = crossfade.compare(*data, methods=linear(), **QUICK)
    assert list(alone.table.index) == ["ce", "linear"]


def test_a_loss_that_is_cross_entropy_by_another_name_gives_its_numbers():
    X, y = load_iris(return_X_y=True)
    result = compare(X, y, methods=[lambda ce: ce], **QUICK)
    wide = result.results.pivot(index="repeat", columns="method", values="accuracy")
    assert (wide["ce"] == wide["lambda"]).all()
    assert "Identical to ce: lambda." in result.verdict


def test_a_failing_method_is_named_and_the_others_are_compared():
    X, y = load_iris(return_X_y=True)

    def broken(ce):
        return 1e30 * ce

    result = compare(X, y, methods=["ce", "f0", broken], **QUICK)
    assert list(result.table.index) == ["ce", "f0"]
    assert "No result of broken: 3 trials failed, the first with: weights diverge" in result.verdict
    assert len(result.meta["missing"]) == 3
    only = compare(X, y, methods=[broken], **QUICK)
    assert not only.comparable
    assert "weights diverge" in repr(only)

    def raises(ce):
        raise TypeError("not today")

    with pytest.raises(UserError, match=r"raises .*not today"):
        compare(X, y, methods=[raises], **QUICK)


def test_schedules_that_few_epochs_make_the_same_are_pointed_out():
    planned = plan([load_builtin("iris")], Settings.of({"epochs": 10, "methods": ["ce", "f0", "f0-late"]}), "test")
    assert "f0-late is the same as f0 at 10 epochs; use more epochs or --granularity step" in planned.notes
    same = [Method(name, name, schedule=constant(0.0)) for name in ("first", "second")]
    steps = Recipe(epochs=1, granularity="step")
    assert same_schedules(same, steps) == ["second is the same as first at 1 epoch"]
    assert not plan(
        [load_builtin("iris")], Settings.of({"epochs": 20, "methods": ["ce", "f0", "f0-late"]}), "test"
    ).notes
    step = Settings.of({"epochs": 10, "methods": ["ce", "f0", "f0-late"], "granularity": "step"})
    assert not plan([load_builtin("iris")], step, "test").notes


def test_fixed_test_rows_and_mixed_columns_from_python():
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": draw.normal(size=90),
            "kind": pd.Categorical(draw.choice(list("pqr"), 90)),
            "code": draw.integers(0, 9, 90),
        }
    )
    y = pd.Series(draw.choice(["no", "yes"], 90))
    result = compare(
        frame[:70], y[:70], test=(frame[70:], y[70:]), categorical=["code"], methods=["ce", "el"], net="linear", **QUICK
    )
    assert (result.results["n_test"] == 20).all()
    assert result.results["fixed_test"].all()
    assert result.meta["datasets"][0]["features"] == 3
    with pytest.raises(UserError, match="pair"):
        compare(frame, y, test=frame, **QUICK)


def test_what_was_decided_about_the_data_is_said_and_kept():
    frame = pd.DataFrame({"Id": range(60), "a": np.arange(60) % 7, "empty": np.nan})
    with pytest.warns(UserWarning, match="'Id' looks like an identifier"):
        result = compare(frame, np.arange(60) % 2, methods=["el"], **QUICK)
    assert any("'empty' is empty: left out" in note for note in result.meta["notes"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ["gradal"]}, "gradual"),
        ({"methods": ["ce"]}, "only the control"),
        ({"methods": [3]}, "expected names, Method objects, functions g(ce) or schedules"),
        ({"methods": "gradal"}, "did you mean 'gradual'"),
        ({"methods": [gradual]}, "gradual makes a schedule and is none; call it, as in gradual()"),
        ({"methods": [lambda t: (1.0, -2.0)]}, "schedule lambda: alpha + beta p must be finite, at least 0"),
        ({"merge_rare": 1}, "--merge-rare must be a whole number of at least 2"),
        ({"drop_rare": 51}, "every class has fewer than 51 rows"),
        ({"methods": [lambda ce: ce, lambda ce: 2 * ce]}, "two different losses are called 'lambda'"),
        ({"methods": [Method("ce", "mine", g=lambda ce: ce), "ce"]}, "two different losses are called 'ce'"),
        ({"repeats": -3}, "repeats must be a whole number of at least 1, got -3"),
        ({"repeats": 2.5}, "repeats"),
        ({"repeats": True}, "repeats"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch-size"),
        ({"learning_rates": ()}, "learning-rates"),
        ({"learning_rates": (0.1, -1.0)}, "learning-rates"),
        ({"learning_rates": (float("nan"),)}, "learning-rates"),
        ({"momentum": 1.0}, "momentum"),
        ({"test_size": 0.5}, "test-size"),
        ({"net": "mpl"}, "net must be one of linear, mlp, got 'mpl'"),
        ({"net": "linear", "width": 5}, "no hidden layer"),
        ({"width": 0}, "width"),
        ({"seed": -1}, "seed"),
        ({"tie": "best"}, "tie"),
        ({"lr_schedule": "linear"}, "lr-schedule"),
        ({"lr_schedule": "cosine", "methods": ["ce-cosine"]}, "is the same as 'ce'"),
        ({"workers": 0}, "--workers must be a whole number of at least 1, got 0"),
        ({"workers": -1}, "--workers must be a whole number of at least 1, got -1"),
        ({"keep_weights": Path("weights")}, "--keep-weights needs a folder of images"),
        ({"drop": "colour"}, "--drop 'colour' is no column"),
        ({"methods": ["all", "gradal"]}, "did you mean 'gradual'"),
    ],
)
def test_requests_that_cannot_be_carried_out(options, says):
    with pytest.raises(UserError, match=re.escape(says)) as error:
        compare(*load_iris(return_X_y=True), **options)
    assert "\n" not in str(error.value)


def test_by_default_the_grid_is_wide_and_ties_are_averaged():
    planned = plan([load_builtin("iris")], Settings.of({}), "test")
    recipe = planned.trials[0].recipe
    assert recipe.learning_rates == (0.1, 0.03, 0.01, 0.003, 0.001)
    assert sorted(recipe.wider_rates) == [0.0001, 0.0003, 0.3, 1.0]
    assert (recipe.tie, recipe.metric, recipe.select) == ("expected", "accuracy", "best")
    assert [one.method.name for one in planned.trials[: len(USUAL)]] == list(USUAL)
    again = plan([load_builtin("iris")], Settings.of(planned.run.request["settings"]), "test")
    assert again.trials[0].key == planned.trials[0].key
    given = plan([load_builtin("iris")], Settings.of({"learning_rates": (0.1, 0.01)}), "test")
    assert given.trials[0].recipe.wider_rates == ()
    assert given.run.request["settings"]["learning_rates"] == [0.1, 0.01]


@pytest.mark.parametrize("tie", ["first", "last", "loss", "expected"])
def test_what_was_learned_is_said_whatever_ties_mean(tie):
    X = np.random.default_rng(0).normal(size=(100, 2))
    y = np.arange(100) % 5 == 0  # nothing in X says which
    answer = compare(X, y, methods=["el"], tie=tie, **QUICK)
    headings, cells = answer.display()
    assert headings[1:4] == ["Accuracy %", "Balanced %", "Macro-F1 %"]
    assert cells[-1][:2] == ["(majority class)", "80.00"]
    assert "Nothing was learned: data: ce at the majority class (80.0 %)" in answer.verdict
    assert not answer.results[["balanced", "f1", "majority"]].isna().any(axis=None)


def test_all_methods_of_the_library_run():
    planned = plan([load_builtin("iris")], Settings.of({"methods": ["all"], "repeats": 1, "epochs": 1}), "test")
    with Store(":memory:") as store:
        result = execute(planned, store)
    assert set(result.results["method"]) == {one.name for one in METHODS}


def test_settings_from_toml_are_overridden_and_read_back(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('net = "linear"\nbatch-size = 16\nlearning_rates = [0.1, 1]\nmethods = ["ce", "el"]\n')
    settings = Settings.of(Settings.read(path).given() | {"batch_size": 32, "epochs": None})
    expected = Training(net="linear", batch_size=32, learning_rates=(0.1, 1.0), methods=("ce", "el"))
    assert settings == Settings(expected)
    stored = plan([load_builtin("iris")], settings, "test").run.request["settings"]
    assert plan([load_builtin("iris")], Settings.of(json.loads(json.dumps(stored))), "test").trials[0].key
    for text, says in (
        ("epoch = 3", "setting 'epoch' is unknown (did you mean 'epochs'?)"),
        ("epochs = ", "not valid TOML"),
        ("epochs = -1", "epochs must be a whole number"),
        ("methods = 3", "methods: expected names"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(says)):
            Settings.read(path)
    with pytest.raises(UserError, match="can't be read"):
        Settings.read(tmp_path / "none.toml")


def test_the_store_keeps_the_resolved_settings(tmp_path):
    compare(*load_iris(return_X_y=True), methods=["ce", "f0"], store=tmp_path / "s.db", **QUICK)
    with Store(tmp_path / "s.db", "read") as store:
        run = store.runs()[0]
    kept = Settings.of(run.request["settings"]).training
    assert (kept.repeats, kept.epochs, kept.methods, kept.momentum) == (3, 3, ("ce", "f0"), 0.9)


def test_paths_and_texts_from_python(tmp_path):
    X, y = load_iris(return_X_y=True, as_frame=True)
    X.assign(species=y).to_csv(tmp_path / "iris.csv", index=False)
    from_path = compare(tmp_path / "iris.csv", "species", methods=["el"], **QUICK)
    pd.testing.assert_frame_equal(scores(from_path), scores(compare(X, y, methods=["el"], **QUICK)))
    words = pd.DataFrame({"said": [f"so {name} it is" for name in ("red", "blue", "green") * 20], "n": range(60)})
    words["colour"] = words["said"].str.split().str[1]
    words.to_csv(tmp_path / "words.csv", index=False)
    options = {"texts": Texts(text=("said",)), "methods": ["el"], "epochs": 1, "repeats": 2, "width": 4, "workers": 1}
    from_frame = compare(words, words["colour"], **options)
    from_path = compare(str(tmp_path / "words.csv"), "colour", **options)
    same = ["dataset", "study", "seconds", "engine", "key"]
    expected = from_path.results.drop(columns=same)
    pd.testing.assert_frame_equal(from_frame.results.drop(columns=same), expected)
    assert set(from_frame.results["study"]) == {"compare-texts"}
    X.iloc[::2].assign(species=y).to_csv(tmp_path / "half.csv", index=False)
    both = compare([tmp_path / "iris.csv", str(tmp_path / "half.csv")], "species", methods=["el"], **QUICK)
    assert set(both.results["dataset"]) == {"iris", "half"}
    rare = {"methods": ["el"], "merge_rare": 51, **QUICK}
    common = np.where(np.arange(150) < 100, "common", y)
    assert compare(X, common, **rare).meta["datasets"][0]["classes"] == 2
    with pytest.raises(UserError, match="--drop needs a table without --text"):
        compare(tmp_path / "words.csv", "colour", drop=["n"], **options)
    for name, value in (("drop", ["n"]), ("group", words["n"]), ("time", words["n"])):
        with pytest.raises(UserError, match=f"--{name} needs a table without --text"):
            compare(words, words["colour"], **{name: value}, **options)
    with pytest.raises(UserError, match="--image-size needs a folder of images"):
        compare(X, y, images=Images(image_size=32))
    with pytest.raises(UserError, match="y, test: of a path"):
        compare(tmp_path / "iris.csv", y)


def test_numbers_of_numpy_and_one_column_by_its_name():
    X, y = load_iris(return_X_y=True, as_frame=True)
    numpys = {"repeats": np.int64(2), "epochs": np.int64(3), "momentum": np.float32(0.5), "seed": np.int64(1)}
    given = compare(X, y, methods=["el"], learning_rates=np.array([0.1]), drop=X.columns[0], **numpys)
    plain = {name: value.item() for name, value in numpys.items()}
    expected = compare(X, y, methods=["el"], learning_rates=[0.1], drop=[X.columns[0]], **plain)
    pd.testing.assert_frame_equal(scores(given), scores(expected))


def test_a_region_of_practical_equivalence_is_told_and_kept(tmp_path):
    data, store = load_iris(return_X_y=True), tmp_path / "s.db"
    plain = compare(*data, methods=["f0"], store=store, **QUICK)
    asked = compare(*data, methods=["f0"], store=store, equivalent=60, **QUICK)
    assert (plain.results["key"] == asked.results["key"]).all()  # the same trials
    assert asked.settings["equivalent"] == 60
    assert "Within 60, %" in repr(asked)
    assert "Within" not in repr(plain)
    assert 0 < asked.table.loc["f0", "equivalent"] <= 1
    assert "Within 60<small>probability, %" in asked.report(tmp_path / "page.html").read_text()
    with pytest.raises(UserError, match="equivalent"):
        compare(*data, equivalent=0, **QUICK)


def test_fixed_test_rows_are_judged_one_by_one_as_well():
    X, y = load_iris(return_X_y=True)
    test = X[::3], y[::3]
    answer = compare(X[1::3], y[1::3], methods=["el"], test=test, tie="first", **QUICK)
    for row in answer.results.itertuples():
        assert (row.hits >= 0).sum() == len(test[1])
        assert row.hits[-len(test[1]) :].mean() == pytest.approx(row.accuracy)
    assert answer.comparison.paired[0].by_row is not None
    assert "McNemar's exact test" in answer.verdict
