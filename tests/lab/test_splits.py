"""Random splits and folds: stratified, disjoint, complete, the same every time."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crossfade.errors import UserError
from crossfade.lab.data.table import TableTask, from_arrays, from_file, load_builtin
from tests.examples import examples
from tests.lab.table_cases import two_classes


@examples(25)
@given(st.integers(2, 5), st.integers(8, 60), st.integers(0, 50), st.floats(0.1, 0.4))
def test_a_split_is_stratified_disjoint_complete_and_the_same_every_time(classes, rows, repeat, test_size):
    draw = np.random.default_rng(rows)
    y = np.concatenate([np.arange(classes).repeat(3), draw.integers(0, classes, rows * 2)])
    X = np.arange(len(y), dtype=float)[:, None] * [1.0, -1.0]
    size = int(np.ceil(test_size * len(y)))
    counts = np.bincount(y)
    assume(size >= classes and (counts * (len(y) - 2 * size) >= 2 * len(y)).all())
    task = TableTask(from_arrays(X, y), test_size)
    parts = task._parts(repeat)
    numbers = np.concatenate([features["x0"] for features, _ in parts])
    assert sorted(numbers) == list(range(len(y)))
    assert [len(labels) for _, labels in parts] == [len(y) - 2 * size, size, size]
    shares = np.bincount(y, minlength=classes) / len(y)
    for features, labels in parts:
        np.testing.assert_array_equal(labels, y[features["x0"].astype(int)])
        assert (np.abs(np.bincount(labels, minlength=classes) - shares * len(labels)) < 2).all()
    assert set(parts[0][1]) == set(range(classes))
    again = TableTask(from_arrays(X, y), test_size)._parts(repeat)
    assert all(np.array_equal(one[1], two[1]) for one, two in zip(parts, again, strict=True))


@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.3, 0.4, 0.45])
def test_every_class_is_trained_on_or_the_split_is_refused(test_size):
    refused = 0
    for few in range(3, 12):
        y = np.r_[np.zeros(60), np.ones(few), np.full(40, 2)]
        table = from_arrays(np.arange(len(y), dtype=float)[:, None] % 50, y)
        try:
            task = TableTask(table, test_size)
        except UserError as error:
            refused += 1
            assert f"class '1' has {few} rows, too few to leave one to train on" in str(error)  # noqa: PT017
            continue
        assert all(set(task._parts(repeat)[0][1]) == {0, 1, 2} for repeat in range(8))
    assert (refused > 0) == (test_size >= 0.4)


@examples(25)
@given(st.integers(2, 5), st.integers(8, 60), st.integers(0, 20), st.floats(0.1, 0.4))
def test_folds_test_every_row_once_in_a_round(classes, rows, around, test_size):
    draw = np.random.default_rng(rows)
    y = np.concatenate([np.arange(classes).repeat(3), draw.integers(0, classes, rows * 2)])
    size, number = int(np.ceil(test_size * len(y))), int(np.ceil(1 / test_size))
    counts = np.bincount(y)
    assume(size >= classes and (counts * (len(y) - 2 * size) >= 2 * len(y)).all() and counts.max() >= number)
    task = TableTask(from_arrays(np.arange(len(y), dtype=float)[:, None], y), test_size, folds=True)
    splits = [task._rows(repeat) for repeat in range(around * number, (around + 1) * number)]
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, _, test in splits])), np.arange(len(y)))
    for train, validation, test in splits:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, validation, test])), np.arange(len(y)))
        assert len(validation) == size
        assert len(test) <= size
        assert set(y[train]) == set(range(classes))
        assert (np.abs(np.bincount(y[test], minlength=classes) - counts / number) < 2).all()


def test_more_folds_than_rows_of_any_class_are_refused():
    table = from_arrays(np.arange(28.0)[:, None], np.arange(4).repeat(7))
    with pytest.raises(UserError, match=r"10 folds .* need a class of at least 10 rows, and the largest has 7"):
        TableTask(table, 0.11, folds=True)
    assert len(TableTask(table, 0.11)._rows(0)[2]) == 4


def test_another_round_has_other_folds_and_folds_have_their_own_keys():
    table = load_builtin("iris")
    task = TableTask(table, folds=True)
    assert set(task._rows(0)[2]) != set(task._rows(5)[2])
    assert {**task.content, "split": "folds"} == task.content
    assert "split" not in TableTask(table).content  # trials stored before stay valid


@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.3, 0.4, 0.45])
def test_every_class_is_trained_on_in_every_fold_or_the_split_is_refused(test_size):
    for few in range(3, 12):
        y = np.r_[np.zeros(60), np.ones(few), np.full(40, 2)]
        table = from_arrays(np.arange(len(y), dtype=float)[:, None] % 50, y)
        try:
            task = TableTask(table, test_size, folds=True)
        except UserError:
            continue
        assert all(set(task._parts(repeat)[0][1]) == {0, 1, 2} for repeat in range(12))


def test_fixed_test_rows_have_no_folds(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("a,b\n" + two_classes(40))
    table = from_file(tmp_path / "train.csv", "b", test=tmp_path / "test.csv")
    with pytest.raises(UserError, match="fixed test rows, --group and --time leave no folds"):
        TableTask(table, folds=True)
    assert TableTask(table).split(0).test_rows.tolist() == list(range(40, 80))  # numbered after the others
