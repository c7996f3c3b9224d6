import gzip
import importlib.util
import io
import json
import os
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.datasets import load_iris, load_wine

from crossfade.errors import UserError
from crossfade.lab.data.columns import MAX_CATEGORIES, Rare
from crossfade.lab.data.reading import STDIN, read_frame
from crossfade.lab.data.table import BUILTIN, TableTask, content_digest, from_arrays, from_file, load_builtin
from tests.examples import examples

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


@pytest.fixture
def write(tmp_path):
    def write(text, name="data.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write


def test_every_way_to_write_a_table_gives_the_same_numbers(tmp_path, write):
    frame = passengers()
    text = frame.to_csv(index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inside.csv", text)
    paths = [
        write(text, "a.csv"),
        write(text, "bom.csv", "utf-8-sig"),
        write(text, "wide.csv", "utf-16"),
        write(text.replace("\n", "\r\n"), "dos.csv"),
        write(frame.to_csv(index=False, sep="\t"), "a.tsv"),
        write(frame.to_csv(index=False, sep=";"), "semicolon.csv"),
        write(frame.to_csv(index=False, sep=";", decimal=","), "comma.csv"),
        write(frame.to_csv(index=False, sep="|"), "pipe.txt"),
        write(gzip.compress(text.encode()), "a.csv.gz"),
        write(frame.to_csv(index=False, na_rep="?"), "holes.csv"),
        write(frame.to_csv(index=False, na_rep=" NA "), "spaces.csv"),
        tmp_path / "a.zip",
        tmp_path / "a.parquet",
    ]
    tables = [from_file(path, "Survived") for path in paths]
    tables.append(from_arrays(frame.drop(columns="Survived"), frame["Survived"]))
    assert len({content_digest(table) for table in tables}) == 1
    kinds = {column.name: column.kind for column in tables[0].columns}
    assert kinds == {
        "PassengerId": "number", "Sex": "category", "Age": "number", "Fare": "number", "Embarked": "category",
        "Boarded": "date", "Alone": kinds["Alone"],
    }  # fmt: skip
    notes = " ".join(tables[0].notes)
    assert "'Name' is free text" in notes
    assert "'PassengerId' looks like an identifier" in notes
    assert "'Boarded' holds dates" in notes
    splits = [TableTask(table).split(3) for table in (tables[0], tables[-1])]
    np.testing.assert_array_equal(splits[0].x_test, splits[1].x_test)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        (" \n \n", "the file is empty"),
        ("a,b\n", "a header but no rows"),
        ("a\n1\n2\n", "only one column"),
        ("a,b\n1,x\n2,y,3\n", "Expected 2 fields in line 3, saw 3"),
        ("a,b\n1,x,\n2,y,\n", "more cells than the header"),
        ('a,b\n1,"x\n2,y\n', "EOF inside string"),
        (b"a,b\n\x00\x01\x02", "not a text file"),
        ("a,c\n1,x\n", "--target 'b' is no column (columns: a, c)"),
        ("a,b,b\n1,x,y\n", "two columns"),
        ("a,b\n" + "1,x\n" * 20, "every row has class 'x'"),
        ("a,b\n" + "1,\n" * 20, "every cell is empty"),
        ("a,b\n" + two_classes(40) + "3,z\n4,z\n", "class 'z' has 2 rows, the split needs at least 3"),
        ("a,b\n" + two_classes(40) + "inf,x\n", "'a' has 1 infinite value (first in row 41)"),
        ("a,b\n" + two_classes(40) + "1e999,x\n", "infinite"),
        ("a,b\n" + two_classes(40) + "12abc,x\n", "1 cell can't be read as such (first: '12abc' in row 41)"),
        ("a,b\n" + two_classes(60, lambda n: f"2020-01-{n % 28 + 1:02}") + "soon,x\n", "holds dates, but 1 cell"),
        ("a,b\n" + two_classes(40, lambda n: ""), "no column is left to learn from"),
        ("a,b\n" + "".join(f"{n},{n * 1.37}\n" for n in range(60)), "look like a quantity"),
        ("a,b\n" + "".join(f"{n},{n * 7919 % 100}\n" for n in range(160)), "look like a quantity"),
        ("a,b\n" + "".join(f"{n},c{n % 9}\n" for n in range(27)), "can't be divided"),
    ],
)
def test_unusable_tables_are_one_clear_line(write, text, says):
    assert says in refuse(write(text))


def test_files_that_are_no_tables(tmp_path, write):
    near = write("a,b\n1,x\n", "titanic.csv")
    assert f"did you mean {near}" in refuse(tmp_path / "titanik.csv")
    assert "a folder" in refuse(tmp_path)
    assert "save the table as CSV" in refuse(write("x", "a.sav"))
    assert "not a readable Parquet file" in refuse(write("a,b\n1,2\n", "a.parquet"))
    assert "damaged .gz" in refuse(write(b"\x1f\x8bnothing", "a.csv.gz"))
    assert "damaged .zip" in refuse(write("nothing", "a.zip"))
    assert "did you mean 'label'" in refuse(write("a,label\n1,x\n", "c.csv"), "labl")
    packed = gzip.compress(b"a,b\n" + b"1,2\n3,4\n" * 1000)
    for place in range(10, len(packed), 3):  # after the header, which says that it is gzip
        changed = bytes([*packed[:place], packed[place] ^ 0xFF, *packed[place + 1 :]])
        assert "damaged .gz" in refuse(write(changed, "a.csv.gz"))
        assert "damaged .gz" in refuse(write(packed[:place], "a.csv.gz"))


def test_a_zip_with_a_password(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "a,b\n1,2\n")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1  # the flag that says so
    (tmp_path / "a.zip").write_bytes(content)
    assert "is encrypted" in refuse(tmp_path / "a.zip")


def workbook(rows, sheets=("one",)) -> bytes:
    """Return an Excel file with these cells in the first of its sheets; the others are empty."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    packages = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"

    def cell(value):
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
        return "<c/>" if value is None else f"<c><v>{value}</v></c>"

    data = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    files = {
        "[Content_Types].xml": f'<Types xmlns="{packages}/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{packages}/relationships">'
        f'<Relationship Id="r" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{at}" r:id="s{at}"/>' for at, name in enumerate(sheets, 1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{packages}/relationships">'
        + "".join(
            f'<Relationship Id="s{at}" Type="{office}/worksheet" Target="worksheets/sheet{at}.xml"/>'
            for at in range(1, len(sheets) + 1)
        )
        + "</Relationships>",
    }
    for at in range(1, len(sheets) + 1):
        cells = data if at == 1 else ""
        files[f"xl/worksheets/sheet{at}.xml"] = f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


excel = pytest.mark.skipif(importlib.util.find_spec("python_calamine") is None, reason="needs crossfade[excel]")


@excel
def test_a_spreadsheet_gives_the_numbers_of_the_csv(tmp_path, write):
    frame = passengers().drop(columns="Alone")
    rows = [list(frame), *frame.astype("object").where(frame.notna(), None).values.tolist(), [None] * frame.shape[1]]
    path = write(workbook(rows, sheets=("data", "notes")), "p.xlsx")
    frame.to_csv(tmp_path / "p.csv", index=False)
    table = from_file(path, "Survived")
    assert content_digest(table) == content_digest(from_file(tmp_path / "p.csv", "Survived"))
    assert "sheet 'data' is read, not 'notes'" in table.notes


def test_what_a_spreadsheet_needs_is_said(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    assert "pip install 'crossfade[excel]'" in refuse(write(workbook([["a", "b"], [1, "x"]]), "a.xlsx"))


@excel
def test_a_damaged_spreadsheet_is_one_line(write):
    assert "not a readable spreadsheet" in refuse(write("nothing", "a.xlsx"))
    assert "not a readable spreadsheet" in refuse(write(b"\xd0\xcf\x11\xe0nothing", "a"))


class Stdin:
    """Standard input that can be read once, as a pipe."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "json", "parquet", "feather"])
@pytest.mark.parametrize("stream", [False, True])
def test_every_format_by_name_and_as_a_stream_gives_the_same_table(tmp_path, monkeypatch, kind, stream):
    frame, path = passengers(), tmp_path / f"p.{kind}"
    frame.to_csv(tmp_path / "plain.csv", index=False)
    if kind.startswith("csv"):
        frame.to_csv(path, index=False)
    elif kind.startswith("json"):
        frame.to_json(path, orient="records", lines=kind == "jsonl")
    else:
        getattr(frame, f"to_{kind}")(path)
    expected = from_file(tmp_path / "plain.csv", "Survived")
    if stream:
        monkeypatch.setattr(sys, "stdin", Stdin(path.read_bytes()))
        path = STDIN
    table = from_file(path, "Survived")
    assert content_digest(table) == content_digest(expected)
    assert len(read_frame(path).frame) == ROWS  # a second time
    assert table.name == ("stdin" if stream else "p")
    assert len(table.sha256) == 64


def test_a_pipe_is_read_like_a_file(tmp_path):
    read, written = os.pipe()
    with os.fdopen(written, "wb") as file:
        file.write(b"a,b\n" + two_classes(40).encode())
    path = Path(f"/dev/fd/{read}")
    assert len(from_file(path, "b").labels) == 40
    os.close(read)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": "x"}\n{"a": 1, "b": \n', "line 2: not JSON"),
        ('[{"a": 1},\n oops]', "line 2: not JSON"),
        ("[1, 2]", "expected records"),
        ("3\n4\n", "expected records"),
        ("", "the file is empty"),
        ("[]", "a header but no rows"),
    ],
)
def test_json_that_is_no_table_is_one_line(write, text, says):
    assert says in refuse(write(text, "a.jsonl"))


def test_records_may_lack_fields_and_hold_more_than_cells(write):
    records = [{"a": n, "b": "xy"[n % 2], "tags": [1, 2], **({"c": 1.5} if n % 3 else {})} for n in range(40)]
    rows = "\n".join(map(json.dumps, records))
    table = from_file(write(rows, "a.ndjson"), "b")
    assert [column.name for column in table.columns] == ["a", "c"]
    assert any("'tags' holds lists or records" in note for note in table.notes)


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
    ],
)
def test_dates_as_people_write_them(write, cell, days):
    table = from_file(write("a,b\n" + "".join(f"{cell(n)},{'xy'[n % 2]}\n" for n in range(60))), "b")
    assert table.columns[0].kind == "date"
    np.testing.assert_allclose(table.features["a"], [days(n) for n in range(60)])


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
    assume(size >= classes and (counts * (len(y) - 2 * size) >= 2 * len(y)).all())
    task = TableTask(from_arrays(np.arange(len(y), dtype=float)[:, None], y), test_size, folds=True)
    splits = [task._rows(repeat) for repeat in range(around * number, (around + 1) * number)]
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, _, test in splits])), np.arange(len(y)))
    for train, validation, test in splits:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, validation, test])), np.arange(len(y)))
        assert len(validation) == size
        assert len(test) <= size
        assert set(y[train]) == set(range(classes))
        assert (np.abs(np.bincount(y[test], minlength=classes) - counts / number) < 2).all()


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


def test_the_four_sets_of_scikit_learn():
    rows = {name: len(load_builtin(name).labels) for name in BUILTIN}
    assert rows == {"iris": 150, "wine": 178, "breast_cancer": 569, "digits": 1797}
    assert TableTask(load_builtin("iris")).describe()["n_train"] == 90


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("\ud800"),
    lambda cell: st.lists(cell, max_size=2) | st.dictionaries(st.text(max_size=2), cell, max_size=2),
    max_leaves=4,
)


@examples(50)
@given(
    st.lists(st.fixed_dictionaries({"a": CELLS, "b": CELLS}) | CELLS, min_size=1, max_size=9),
    st.none() | st.integers(1, 40),
)
def test_no_json_makes_reading_fail_in_another_way(tmp_path_factory, records, cut):
    path = tmp_path_factory.mktemp("json") / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, records))[:cut])
    with suppress_one_line():
        TableTask(from_file(path, "b"))


@examples(60)
@given(st.binary(max_size=300))
def test_no_bytes_make_reading_fail_in_another_way(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "data.csv"
    path.write_bytes(content)
    with suppress_one_line():
        frame = read_frame(path, "b").frame
        from_file(path, str(frame.columns[-1]))


@examples(25)
@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), min_size=1, max_size=12))
def test_no_cells_make_it_fail_in_another_way(cells):
    frame = pd.DataFrame(cells, columns=["a", "b"])
    with suppress_one_line():
        TableTask(from_arrays(frame[["a"]], frame["b"])).split(0)
