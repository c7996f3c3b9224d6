"""Tables read from files of every kind, and what is no table."""

import gzip
import importlib.util
import io
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.lab.data.reading import STDIN, read_frame
from crossfade.lab.data.table import TableTask, content_digest, from_arrays, from_file
from tests.examples import examples
from tests.lab.table_cases import ROWS, passengers, refuse, suppress_one_line, two_classes


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


def test_blank_lines_before_the_header(write):
    assert len(from_file(write("\n  \n\t\na,b\n" + two_classes(40)), "b").labels) == 40
    unnamed = from_file(
        write("\n\ta\tb\n" + "".join(f"{n % 3}\t{n % 5}\t{'xy'[n % 2]}\n" for n in range(40)), "a.tsv"), "b"
    )
    assert [column.name for column in unnamed.columns] == ["column 1", "a"]


def test_a_header_with_line_breaks(write):
    table = from_file(write('"price\n(USD)",b\n' + two_classes(40)), "b")
    assert [column.name for column in table.columns] == ["price (USD)"]


def test_a_name_that_occurs_again_gets_one_that_is_free(write):
    rows = "".join(f"{n % 3},{n % 4},{n % 5},{'xy'[n % 2]}\n" for n in range(60))
    table = from_file(write("a,a,a.2,b\n" + rows), "b")
    assert [column.name for column in table.columns] == ["a", "a.3", "a.2"]
    assert "column name 'a' occurs again: called a.3" in table.notes


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
        ("a,b\n" + two_classes(40) + "inf,x\n", "'a' has 1 infinite or huge number (first: inf in row 41)"),
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


def test_two_columns_of_one_name_in_a_parquet_file(tmp_path):
    pd.DataFrame({"a": [1], " a": [2], "b": ["x"]}).to_parquet(tmp_path / "a.parquet")
    assert refuse(tmp_path / "a.parquet") == f"{tmp_path / 'a.parquet'}: two columns are called 'a'; rename one"


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
