"""No command replaces a file that isn't its own: no input, store or other output, however it is named."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from sklearn.datasets import load_iris

from crossfade.errors import UserError
from crossfade.lab.files import check_folder, check_outputs, is_ours, write_bytes

TRAIN = ["--target", "species", "--methods", "ce,el", "--repeats", "2", "--epochs", "1", "--learning-rates", "0.01"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_iris(as_frame=True).frame.rename(columns={"target": "species"}).to_csv("iris.csv", index=False)
    return tmp_path


def refused(result, files) -> str:
    """Return the one line of a refused command, which left every file as it was."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("crossfade: ")
    assert err.count("\n") == 1
    assert contents() == files
    return err


def contents():
    return {name: Path(name).read_bytes() for name in sorted(os.listdir()) if os.path.isfile(name)}


@pytest.mark.parametrize("option", ["--report", "--json", "--store"])
@pytest.mark.parametrize("way", ["plain", "dotted", "symbolic", "hard", "dangling"])
def test_compare_keeps_its_input_however_it_is_named(call, option, way):
    name = {"plain": "iris.csv", "dotted": "../" + os.path.basename(os.getcwd()) + "/iris.csv"}.get(way, "link")
    if way == "symbolic":
        os.symlink("iris.csv", "link")
    elif way == "hard":
        os.link("iris.csv", "link")
    elif way == "dangling":  # two names of one file that isn't there yet
        os.symlink("new.html", "link")
        assert "is what --report names" in refused(
            call("compare", "iris.csv", "--report", "new.html", "--json", "link", *TRAIN), contents()
        )
        return
    for more in ([], ["--overwrite"]):
        files = contents()
        assert "is an input as well" in refused(call("compare", "iris.csv", option, name, *TRAIN, *more), files)


def test_every_file_that_compare_reads_is_an_input(call):
    shutil.copy("iris.csv", "test.csv")
    Path("c.toml").write_text("epochs = 1\n")
    Path("mine.py").write_text("def g(ce):\n    return ce / (1 + ce)\n\ndef fade(t):\n    return 1, t\n")
    given = ["--test", "test.csv", "--config", "c.toml", "--loss", "mine.py:g", "--schedule", "mine.py:fade"]
    for name in ("test.csv", "c.toml", "mine.py"):
        files = contents()
        answer = call("compare", "iris.csv", *given, "--report", name, "--overwrite", *TRAIN)
        assert "is an input as well" in refused(answer, files)


def test_outputs_are_not_each_other(call):
    files = contents()
    assert "--report names" in refused(call("compare", "iris.csv", "--report", "a", "--json", "./a", *TRAIN), files)
    assert "--store names" in refused(call("compare", "iris.csv", "--report", "a", "--store", "a", *TRAIN), files)


def test_a_foreign_file_needs_overwrite_and_own_files_dont(call):
    for name in ("report.html", "numbers.json"):
        Path(name).write_text("mine")
    command = ["compare", "iris.csv", "--json", "numbers.json", *TRAIN]
    assert "report.html: is there, and not written by crossfade" in refused(call(*command), contents())
    os.remove("report.html")
    assert "numbers.json: is there, and not written by crossfade" in refused(call(*command), contents())
    assert call(*command, "--overwrite")[0] == 0
    first = json.loads(Path("numbers.json").read_text())
    assert call(*command)[0] == 0  # again
    assert json.loads(Path("numbers.json").read_text()) == first
    Path("report.html").write_text("")  # nothing to lose
    os.symlink("elsewhere.json", "link.json")
    assert call("report", "--json", "link.json")[0] == 0
    assert os.path.islink("link.json")
    assert json.loads(Path("elsewhere.json").read_text()) == first
    assert json.loads(call("report", "--json", "-")[1]) == first


def test_report_and_export_keep_the_store_and_replace_their_own(call):
    assert call("compare", "iris.csv", *TRAIN, "--store", "s.db")[0] == 0
    os.symlink("s.db", "s.csv")
    files = contents()
    for name in ("s.db", "s.csv"):
        assert "is an input as well" in refused(call("report", "s.db", "--report", name, "--overwrite"), files)
    assert "is an input as well" in refused(call("export", "s.csv", "--store", "s.db", "--overwrite"), files)
    assert "iris.csv: is there" in refused(call("export", "iris.csv", "--store", "s.db"), files)
    assert "iris.csv: is there" in refused(call("report", "s.db", "--report", "iris.csv"), files)
    for name in ("all.csv", "all.tsv", "all.parquet"):
        for more in ([], ["--curves"]):
            assert call("export", name, "--store", "s.db", *more)[0] == 0
    frame = pd.read_csv("iris.csv")
    frame.to_parquet("own.parquet")
    assert "own.parquet: is there" in refused(call("export", "own.parquet", "--store", "s.db"), contents())


def test_an_export_names_the_requests_of_a_row(call):
    assert call("compare", "iris.csv", *TRAIN)[0] == 0
    assert call("compare", "iris.csv", *TRAIN, "--repeats=3")[0] == 2  # given twice
    longer = [word if word != "2" else "3" for word in TRAIN]
    assert call("compare", "iris.csv", *longer)[0] == 0
    ids = [line.split()[0] for line in call("status")[1].splitlines() if not line.startswith(" ")]
    for more in ([], ["--curves"]):
        assert call("export", "all.csv", *more)[0] == 0
        table = pd.read_csv("all.csv")
        assert list(table.columns)[-1] == "request"
        assert set(table["request"][table["repeat"] == 2]) == {ids[0]}
        assert set(table["request"][table["repeat"] < 2]) == {f"{ids[1]} {ids[0]}"}


def test_stats_keeps_its_input_and_foreign_figures(call):
    rows = [(f"d{n}", name, 0.5 + 0.01 * n * at) for n in range(5) for at, name in enumerate("ab")]
    pd.DataFrame(rows, columns=["dataset", "method", "accuracy"]).to_csv("scores.csv", index=False)
    assert "is an input" in refused(call("stats", "scores.csv", "--json", "scores.csv", "--overwrite"), contents())
    os.mkdir("figures")
    assert call("stats", "scores.csv", "--out", "figures")[0] == 0
    assert call("stats", "scores.csv", "--out", "figures")[0] == 0  # again
    assert json.loads(call("stats", "scores.csv", "--json", "-")[1])["generator"] == "crossfade"
    drawn = sorted(os.listdir("figures"))
    assert drawn
    Path(f"figures/{drawn[0]}").write_text("<svg>mine</svg>")
    assert f"figures/{drawn[0]}: is there" in refused(call("stats", "scores.csv", "--out", "figures"), contents())
    assert "expected a folder" in refused(call("stats", "scores.csv", "--out", "iris.csv"), contents())


def test_a_folder_of_somebody_elses_figures_is_left_alone(call):
    os.mkdir("figure1")
    Path("figure1/peaks.csv").write_text("mine")
    assert "peaks.csv in it isn't crossfade's" in refused(call("run", "figure1", "--scale", "smoke"), contents())
    assert call("run", "figure1", "--scale", "smoke", "--overwrite")[0] == 0
    assert call("run", "figure1", "--scale", "smoke")[0] == 0  # again


def test_the_page_of_a_study_is_replaced_and_a_foreign_one_is_not(call):
    from tests.kept.cases import INPUTS

    command = ["run", "table3", "--data-dir", str(INPUTS), "--scale", "smoke", "--nets", "arch1", "--methods", "f0"]
    command += ["--accelerator", "cpu", "--epochs", "1", "--repeats", "1"]
    Path("table3.md").write_text("my notes\n")
    assert "table3.md: is there" in refused(call(*command), contents())
    os.remove("table3.md")
    assert call(*command, "-q")[0] == 0
    code, _, err = call(*command, "-q")
    assert (code, err) == (0, "")


def test_an_output_that_cannot_be_written_is_found_before_training(call):
    files = contents()
    for option in ("--report", "--json"):
        assert "isn't there; make it first" in refused(call("compare", "iris.csv", option, "no/x", *TRAIN), files)
        assert "a folder, expected a file" in refused(call("compare", "iris.csv", option, ".", *TRAIN), files)
        assert "can't be written" in refused(call("compare", "iris.csv", option, "/proc/x", *TRAIN), files)
    images = ["--keep-weights", "iris.csv", "--epochs", "1"]
    from tests.kept.cases import INPUTS

    assert "a file, expected a folder" in refused(call("compare", INPUTS / "shapes", *images), files)


def test_inside_a_folder_of_inputs_only_own_files_are_replaced(folder):
    (folder / "photos").mkdir()
    photo, page = folder / "photos" / "1.png", folder / "photos" / "report.html"
    photo.write_bytes(b"\x89PNG...")
    with pytest.raises(UserError, match="lies in a folder of inputs"):
        check_outputs([("--report", photo)], [folder / "photos"], overwrite=True)
    page.write_text('<meta name="generator" content="crossfade">')
    check_outputs([("--report", page)], [folder / "photos"])


def test_pipes_and_devices_are_written_to(folder):
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    pipe = folder / "pipe"
    check_outputs([("--json", pipe)])
    write_bytes(pipe, b"numbers", "--json")
    assert os.read(reader, 99) == b"numbers"
    assert not pipe.is_file()
    os.close(reader)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everything")
def test_a_write_protected_file_stays(folder):
    (folder / "r.html").write_text('<meta name="generator" content="crossfade">')
    (folder / "r.html").chmod(0o444)
    with pytest.raises(UserError, match="write-protected"):
        check_outputs([("--report", folder / "r.html")])


def test_a_folder_that_cannot_be_made(folder):
    with pytest.raises(UserError, match=r"iris\.csv is a file, expected a folder"):
        check_folder(folder / "iris.csv" / "figures", "--out")
    with pytest.raises(UserError, match=r"^--out /proc/x: can't be written"):
        check_folder(Path("/proc/x"), "--out")


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("", True),
        ("study,dataset,method,repeat,accuracy,key,request\n1,2,3,4,5,6,7\n", True),
        ("dataset,method,repeat,epoch,val_accuracy,net,request\n", True),
        ("dataset,method,repeat,accuracy\niris,ce,0,0.9\n", False),
        ('{"generator": "crossfade", "meta": {}}', True),
        ('{"generator": "another", "meta": {}}', False),
        ("<p>crossfade</p>", False),
        ("PAR1 and no more", False),
    ],
)
def test_files_of_ours_are_known_by_their_marks(folder, text, ours):
    (folder / "file").write_text(text)
    assert is_ours(folder / "file") == ours
