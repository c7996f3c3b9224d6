import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris, load_wine

from crossfade.errors import UserError
from crossfade.lab.data.columns import MAX_CATEGORIES, Column, Rare, convert
from crossfade.lab.data.table import BUILTIN, TableTask, content_digest, from_arrays, from_file, load_builtin
from crossfade.lab.data.texts import load_texts
from tests.examples import examples
from tests.lab.table_cases import refuse, two_classes

RARE = (
    "a,b\n" + "".join(f"{n},{['1', '2', '3.0', '3'][n % 4]}\n" for n in range(40)) + "7,4\n8,5\n9,5.0\n6,6\n6,6\n6,6\n"
)


def test_rare_classes_are_merged_or_left_out(write):
    assert "class '4' has 1 row, the split needs at least 3 (2 classes are that small)" in refuse(write(RARE))
    assert "--merge-rare 3 or --drop-rare 3" in refuse(write(RARE))
    merged, dropped = (from_file(write(RARE), "b", rare=Rare(3, merge)) for merge in (True, False))
    assert merged.classes == ("1", "2", "3", "6", "other")
    assert dropped.classes == ("1", "2", "3", "6")
    assert np.bincount(merged.labels).tolist() == [10, 10, 20, 3, 3]
    assert np.bincount(dropped.labels).tolist() == [10, 10, 20, 3]
    assert "2 classes with fewer than 3 rows merged into 'other': 4, 5" in merged.notes
    assert "2 classes with fewer than 3 rows left out: 4, 5" in dropped.notes
    assert "class '5' has 2 rows" in refuse(write(RARE), rare=Rare(2, False))
    assert "every class has fewer than 99 rows; lower --drop-rare" in refuse(write(RARE), rare=Rare(99, False))
    assert "(2 classes are that small)" in refuse(write(RARE), rare=Rare(2, True))  # '5' and 'other'


def test_rare_classes_of_the_training_rows_go_from_the_test_rows(write):
    test = write("a,b\n1,1\n2,4\n3,other\n", "test.csv")
    other = write(RARE + "".join(f"{n},other\n" for n in range(5)), "a.csv")
    merged = from_file(other, "b", test=test, rare=Rare(3, True))
    assert merged.classes == ("(other)", "1", "2", "3", "3.0", "6", "other")  # not all are numbers
    assert [merged.classes[code] for code in merged.test[1]] == ["1", "(other)", "other"]
    assert len(from_file(other, "b", test=test, rare=Rare(3, False)).test[1]) == 2


@pytest.mark.parametrize("merge", [True, False])
def test_a_class_of_texts_is_rare_by_its_rows_with_a_text(write, merge):
    path = write("t,b\n" + "".join(f"text {n},{'xyz'[n % 3]}\n" for n in range(30)) + "a,p\nb,p\n,p\nc,q\n")
    data = load_texts(path, ["t"], "b", rare=Rare(3, merge))
    assert data.classes == (("other", "x", "y", "z") if merge else ("x", "y", "z"))
    assert "1 of 34 rows without a text are left out" in data.notes


def test_test_texts_that_are_training_texts_are_counted(write):
    train = write("t,b\n" + "".join(f"text {n},{'xy'[n % 2]}\n" for n in range(30)))
    for rows, copies in (("text 1,x\ntext 2,y\nnew,x\n", 2), ("newer,y\nnew,x\n", 0)):
        notes = load_texts(train, ["t"], "b", test=write("t,b\n" + rows, "test.csv")).notes
        said = [note for note in notes if "are training texts, too" in note]
        assert said == [f"{copies} of 3 test texts are training texts, too: scores there are too good"][:copies]


def test_what_is_dropped_must_not_be_the_target(write):
    assert "--drop 'b' is the target" in refuse(write(RARE), drop=["b"])


def test_what_is_decided_is_said(write):
    table = from_file(
        write(
            "id, size ,size,code,when,empty,same,b\n"
            + "".join(
                f"{n},{n % 7}.5,{n % 3},V{n % 60},{1 + n % 12:02}/{1 + n % 28:02}/2020,,7,"
                f"{['Yes', 'yes', 'no', ''][n % 4]}\n"
                for n in range(160)
            )
        ),
        "b",
    )
    assert [column.name for column in table.columns] == ["id", "size", "size.2", "code", "when"]
    assert table.classes == ("Yes", "no", "yes")
    said = " | ".join(table.notes)
    for expected in (
        "'size' occurs again: called size.2",
        "40 rows without a label",
        "'Yes'): kept apart",
        "'id' looks like an identifier of the row; if it is, use --drop 'id'",
        f"'code' has 45 categories: the {MAX_CATEGORIES - 1} most frequent",
        "'when' holds dates (%m/%d/%Y)",
        "'empty' is empty: left out",
        "'same' has the same value in every row: left out",
    ):
        assert expected in said


def test_a_file_without_a_header_gets_numbers(write):
    table = from_file(write("".join(f"{n / 7:.1f},{n % 3},{'xy'[n % 2]}\n" for n in range(40)), "iris.data"), "3")
    assert table.classes == ("x", "y")
    assert len(table.labels) == 40
    assert "no header: columns are called 1 to 3" in table.notes


def test_latin_1_is_read_and_named(write):
    table = from_file(write("größe,b\n" + two_classes(20, lambda n: n % 5), encoding="latin-1"), "b")
    assert table.columns[0].name == "größe"
    assert "not UTF-8" in table.notes[0]


def test_numbers_meant_as_names_and_columns_to_leave_out(write):
    path = write("kind,id,b\n" + "".join(f"{n % 4},{n},{'xy'[n % 2]}\n" for n in range(80)))
    table = from_file(path, "b", categorical=["kind"], drop=["id"])
    assert [(column.name, column.kind) for column in table.columns] == [("kind", "category")]
    assert TableTask(table).split(0).x_train.shape[1] == 4
    assert "did you mean 'kind'" in refuse(path, categorical=["knd"])
    assert "--drop 'nothing' is no column" in refuse(path, drop=["nothing"])


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        (lambda n: f"${n}.50", lambda n: n + 0.5),
        (lambda n: f"{1000 + n:,}.25 €", lambda n: 1000.25 + n),
        (lambda n: f"{n % 100}%", lambda n: n % 100),
        (lambda n: f"{n},5", lambda n: n + 0.5),
        (lambda n: f"1.{n:03},75", lambda n: 1000.75 + n),
        (lambda n: f"1 {n:03}", lambda n: 1000 + n),
        (lambda n: f"{n % 3},{n:03}", lambda n: n % 3 + n / 1000),  # no number begins 0,123 with a thousand's comma
        (lambda n: "999" if n < 116 else "1,200", lambda n: 999 if n < 116 else 1200),
    ],
)
def test_numbers_as_people_write_them(write, cell, values):
    text = "a;b\n" + "".join(f"{cell(n)};{'xy'[n % 2]}\n" for n in range(120))
    table = from_file(write(text), "b")
    np.testing.assert_allclose(table.features["a"], [values(n) for n in range(120)])
    assert "is read as numbers" in table.notes[0]
    test = write("a;b\n12;x\nmany;y\n", "test.csv")
    assert "holds numbers" in refuse(write(text), test=test)


def test_numbers_that_are_written_alike_are_noted_once(write):
    names = [f"n{i}" for i in range(6)]
    rows = (";".join([*(f"{n},{i}" for i in range(1, 7)), f"{n}%", "xy"[n % 2]]) for n in range(40))
    table = from_file(write(";".join([*names, "share", "y"]) + "\n" + "\n".join(rows)), "y")
    assert table.notes == (
        "column 'n0' is read as numbers: '0,1' is 0.1; n1, n2, n3 and 2 more likewise",
        "column 'share' is read as numbers: '0%' is 0",
    )


def test_the_target_divides_no_rows(write):
    for option in ("group", "time"):
        with pytest.raises(UserError, match=f"--{option} 'b' is the target"):
            from_file(write("a;b\n" + "1;x\n2;y\n" * 9), "b", **{option: "b"})


@pytest.mark.parametrize(
    ("cell", "days"),
    [
        (lambda n: f"2020-01-{n % 28 + 1:02}T12:00:00Z", lambda n: 18262.5 + n % 28),
        (lambda n: f"{n % 28 + 1:02}.01.2020", lambda n: 18262 + n % 28),
        (lambda n: f"{n % 28 + 1} Jan 2020", lambda n: 18262 + n % 28),
        (lambda n: f"01/{n % 28 + 1:02}/2020 06:00", lambda n: 18262.25 + n % 28),
        (lambda n: f"1700-01-{n % 28 + 1:02}", lambda n: -98615 + n % 28),
        (lambda n: f"2020-01-01 00:00:00.{n:03}", lambda n: 18262 + n / 86400e3),
    ],
)
def test_dates_as_people_write_them(write, cell, days):
    table = from_file(write("a,b\n" + "".join(f"{cell(n)},{'xy'[n % 2]}\n" for n in range(60))), "b")
    assert table.columns[0].kind == "date"
    np.testing.assert_allclose(table.features["a"], [days(n) for n in range(60)], rtol=1e-13)


def test_a_format_that_reads_all_dates_wins(write):
    """Nearly all of these begin with a month's first day, which may as well be a month."""
    days = [f"01.{n % 12 + 1:02}.{1990 + n // 12}".replace(".", "/") for n in range(240)] + ["15/02/2020", "31/12/2020"]
    table = from_file(write("a,b\n" + "".join(f"{day},{'xy'[n % 2]}\n" for n, day in enumerate(days))), "b")
    assert table.columns[0].spelling == "%d/%m/%Y"
    assert table.features["a"].iloc[1] - table.features["a"].iloc[0] == 31


@examples(60)
@given(st.lists(st.datetimes(pd.Timestamp("1600-01-01"), pd.Timestamp("2400-01-01")), min_size=1, max_size=9))
def test_days_of_whole_seconds_are_what_they_were_with_seconds(times):
    whole = pd.Series(np.array(times, dtype="datetime64[s]"))
    days = convert(whole, Column("t", "date"), "here")
    assert days.tolist() == [int(second) / 86400 for second in whole.to_numpy().astype(np.int64)]


def test_many_numbers_are_classes_if_the_user_says_so(write):
    path = write("a,b\n" + "".join(f"{n % 7},{n % 40}\n" for n in range(400)))
    assert "look like a quantity" in refuse(path)
    assert len(from_file(path, "b", categorical=["b"]).classes) == 40
    with pytest.raises(UserError, match="quantity"):
        from_arrays(np.arange(400.0)[:, None] % 7, np.arange(400) % 40)
    assert len(from_arrays(np.arange(400.0)[:, None] % 7, np.arange(400) % 40, categorical=["y"]).classes) == 40


def test_labels_none_and_numbers_with_and_without_a_point(write):
    assert from_file(
        write("a,b\n" + "".join(f"{n % 7},{['None', 'Mask'][n % 2]}\n" for n in range(40))), "b"
    ).classes == (
        "Mask",
        "None",
    )
    mixed = from_file(write("a,b\n" + "".join(f"{n % 7},{['1', '1.0', '10', '2'][n % 4]}\n" for n in range(40))), "b")
    assert mixed.classes == ("1", "2", "10")


@pytest.mark.parametrize("first", [10**16 + 1, 2**53])
def test_long_numbers_as_labels_stay_apart(write, first):
    path = write("a,b\n" + "".join(f"{n % 7},{first + n % 2}\n" for n in range(60)))
    table = from_file(path, "b")
    assert table.classes == (str(first), str(first + 1))
    assert np.bincount(table.labels).tolist() == [30, 30]
    X = np.arange(60.0)[:, None] % 7
    assert content_digest(from_arrays(X, first + np.arange(60) % 2)) == content_digest(
        from_arrays(X, [str(first + n % 2) for n in range(60)])
    )


def test_labels_that_differ_by_rounding_or_in_the_sign_of_zero_are_one_class():
    y = np.array([0.3, 0.1 + 0.2, 0.0, -0.0])[np.arange(60) % 4]
    table = from_arrays(np.arange(60.0)[:, None] % 7, y)
    assert table.classes == ("0", "0.3")
    assert np.bincount(table.labels).tolist() == [30, 30]


def test_ranges_are_categories_and_lists_are_not(write):
    rows = "".join(
        f'"[{n % 5}0-{n % 5 + 1}0)","({n % 4}, {n % 4 + 1}]","({n % 3}, 1)",{"xy"[n % 2]}\n' for n in range(60)
    )
    table = from_file(write("age,cut,pair,b\n" + rows), "b")
    assert [(column.name, column.kind) for column in table.columns] == [("age", "category"), ("cut", "category")]
    assert any("'pair' holds lists or records" in note for note in table.notes)


def test_the_row_of_an_error_is_the_files(write):
    rows = "a,b\n" + "1,\n" * 10 + two_classes(40)  # the first ten have no label
    for cell, says in (("inf", "inf in row 51"), ("1e200", "1e+200 in row 51"), ("w", "'w' in row 51")):
        assert f"(first: {says})" in refuse(write(f"{rows}{cell},x\n"))


def test_words_for_missing_make_no_category():
    frame = pd.DataFrame({"a": np.arange(60.0), "word": ["?"] * 60})
    table = from_arrays(frame, np.arange(60) % 2, categorical=["word"])
    assert "column 'word' is empty: left out" in table.notes
    assert TableTask(table).split(0).features == 1


def test_a_feature_called_label_counts_in_repeated_rows(write):
    notes = from_file(write("label,a,b\n" + "".join(f"{n},{n % 2},{'xyz'[n % 3]}\n" for n in range(60))), "b").notes
    assert not [note for note in notes if "repeat an earlier row" in note]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["true", "false", "maybe"], ["true", "false"]),
        (["01", "02", "x"], ["01", "02"]),
        (["1.0", "2.0", "x"], ["1.0", "2.0"]),
    ],
)
def test_categories_of_test_rows_are_those_of_the_training_rows(write, train, test):
    rows = "".join(f"{train[n % 3]},{n % 7},{'xy'[n % 2]}\n" for n in range(60))
    held = "".join(f"{test[n % 2]},1,{'xy'[n % 2]}\n" for n in range(4))
    table = from_file(write("a,c,b\n" + rows), "b", test=write("a,c,b\n" + held, "test.csv"))
    assert table.test[0]["a"].tolist() == test * 2


def test_yes_and_no_may_be_missing_in_test_rows_alone(write):
    rows = "".join(f"{n % 3 == 0},{n % 7},{'xy'[n % 2]}\n" for n in range(60))
    test = write("a,c,b\nTrue,1,x\n,2,y\nFalse,3,x\n", "test.csv")
    table = from_file(write("a,c,b\n" + rows), "b", test=test)
    np.testing.assert_array_equal(table.test[0]["a"], [1, np.nan, 0])


def test_plain_numbers_in_test_rows_of_a_column_with_decimal_commas(write):
    train = write("a;b\n" + "".join(f"{n % 9},5;{'xy'[n % 2]}\n" for n in range(60)))
    table = from_file(train, "b", test=write("a;b\n3.5;x\n4.25;y\n", "test.csv"))
    assert table.test[0]["a"].tolist() == [3.5, 4.25]


def test_fixed_test_rows(write):
    train = write("a,kind,b\n" + "".join(f"{n % 9},{'pq'[n % 2]},{'xy'[n % 2]}\n" for n in range(60)), "train.csv")
    test = write("b,more,kind,a\nx,1,p,3\ny,2,unseen,4\n,2,p,4\n", "test.csv")
    task = TableTask(from_file(train, "b", test=test))
    first, second = task.split(0), task.split(1)
    np.testing.assert_array_equal(first.y_test, [0, 1])
    assert len(first.y_train) == 48
    assert len(first.y_val) == 12
    assert not np.array_equal(first.x_train, second.x_train)
    assert task.content["fixed_test"]
    for text, says in (
        ("b,kind,a\nz,p,3\n", "label 'z' (row 1) doesn't occur"),
        ("b,a\nx,3\n", "no column 'kind'"),
        ("b,kind,a\nx,p,three\n", "holds numbers"),
        ("kind,a\np,3\n", "--target 'b' is no column"),
        ("b,kind,a\n,p,3\n", "no row has a label"),
        ("b,kind,a\nx,p,inf\n", "infinite"),
    ):
        assert says in refuse(train, test=write(text, "other.csv"))


def test_preprocessing_learns_from_the_training_part_alone():
    X, y = load_wine(return_X_y=True)
    task = TableTask(from_arrays(X, y))
    split = task.split(0)
    np.testing.assert_allclose(split.x_train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(split.x_train.std(0), 1, atol=1e-5)
    train = task._parts(0)[0][0].to_numpy()
    expected = (task._parts(0)[2][0].to_numpy() - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(split.x_test, expected, rtol=1e-4, atol=1e-4)


def test_holes_unseen_and_rare_categories_and_outliers():
    draw = np.random.default_rng(0)
    rows = 400
    frame = pd.DataFrame(
        {
            "number": np.where(draw.random(rows) < 0.3, np.nan, draw.normal(size=rows)),
            "kind": pd.Categorical(draw.choice(["a", "b", None], rows)),
            "code": [f"V{draw.zipf(1.5) % 150}" for _ in range(rows)],
            "amount": np.r_[1e30, draw.normal(size=rows - 1)],
        }
    )
    split = TableTask(from_arrays(frame, draw.integers(0, 2, rows))).split(0)
    for part in (split.x_train, split.x_val, split.x_test):
        assert np.isfinite(part).all()
        assert np.abs(part).max() <= 10
    assert split.x_train.shape[1] == 1 + 1 + 1 + 3 + MAX_CATEGORIES  # number, amount, "was missing", kind, code


def test_python_objects_of_many_kinds():
    X, y = load_iris(return_X_y=True, as_frame=True)
    base = content_digest(from_arrays(X, y))
    assert content_digest(from_arrays(X, y.to_numpy())) == base
    assert content_digest(from_arrays(X, y.to_frame())) == base
    assert content_digest(from_arrays(X.astype("Float64"), y)) == base
    assert content_digest(from_arrays(X.set_index(np.arange(150)[::-1]), y.to_numpy())) == base
    named = from_arrays(X.to_numpy(), np.array(["setosa", "versi", "virgi"])[y])
    assert named.classes == ("setosa", "versi", "virgi")
    assert from_arrays(X, y == 1).classes == ("False", "True")
    times = X.assign(
        t=pd.to_datetime("2020-01-01") + pd.to_timedelta(np.arange(150), "D"), d=pd.to_timedelta(X.iloc[:, 0], "h")
    )
    assert [column.kind for column in from_arrays(times, y).columns[-2:]] == ["date", "date"]
    zoned = times.assign(t=times["t"].dt.tz_localize("Asia/Tokyo"))
    assert np.isfinite(TableTask(from_arrays(zoned, y)).split(0).x_train).all()


@pytest.mark.parametrize(
    ("X", "y", "says"),
    [
        (np.zeros(10), np.zeros(10), "expected a table"),
        (np.zeros((10, 0)), np.zeros(10), "at least one row and one feature"),
        (np.zeros((10, 2)), np.zeros(9), "9 labels for 10 rows"),
        (np.zeros((10, 2)), np.zeros((10, 2)), "one class a row"),
        (np.full((10, 2), np.inf), np.arange(10) % 2, "infinite"),
        (np.full((10, 2), np.nan), np.arange(10) % 2, "no column is left"),
        (np.full((10, 2), 1j), np.arange(10) % 2, "complex"),
        (np.arange(20.0).reshape(10, 2), np.full(10, np.nan), "every cell is empty"),
        (np.arange(20.0).reshape(10, 2), np.zeros(10), "at least two classes"),
        (pd.DataFrame([[1, 2]] * 10, columns=["a", "a"]), np.arange(10) % 2, "two columns are called 'a'"),
    ],
)
def test_unusable_arrays_are_one_clear_line(X, y, says):
    with pytest.raises(UserError, match=says) as error:
        TableTask(from_arrays(X, y))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"categorical": [0]}, "--categorical 0 is no column (did you mean 'x0'?)"),
        ({"drop": [0]}, "--drop 0 is no column"),
        ({"test": (np.zeros((3, 4)), [0, 1, 0])}, "X_test: has 4 columns, and X has 2; they must be the same"),
    ],
)
def test_columns_that_arrays_lack(options, says):
    with pytest.raises(UserError) as error:
        from_arrays(np.arange(40.0).reshape(20, 2), np.arange(20) % 2, **options)
    assert says in str(error.value)


def test_the_four_sets_of_scikit_learn():
    rows = {name: len(load_builtin(name).labels) for name in BUILTIN}
    assert rows == {"iris": 150, "wine": 178, "breast_cancer": 569, "digits": 1797}
    assert TableTask(load_builtin("iris")).describe()["n_train"] == 90
