import io
import json
import os
import re
import signal
import subprocess
import sys

import pandas as pd
import pytest
from sklearn.datasets import load_iris

from crossfade.cli import COMMANDS
from crossfade.cli.compare import _laid_out
from crossfade.cli.data import _Line
from crossfade.lab.methods import DEFAULT_METHODS

QUICK = ["--repeats", "2", "--epochs", "2", "--learning-rates", "0.01"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def iris(folder):
    frame = load_iris(as_frame=True).frame.rename(columns={"target": "species"})
    frame.to_csv(folder / "iris.csv", index=False)
    return folder / "iris.csv"


def refused(result) -> str:
    code, out, err = result
    assert code == 2, (code, out, err)
    assert not out
    assert re.fullmatch(r"crossfade: [^\n]+\n", err), err
    return err


def test_help_names_every_command_and_loads_nothing_heavy():
    script = (
        "import sys; from crossfade.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stopped: assert not stopped.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'sklearn', 'scipy', 'numba', 'matplotlib'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"│ {name} ", text) for name in COMMANDS)
    assert text.endswith("heavy: []\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_after_the_work_is_done_ends_the_process_as_one_before_and_says_nothing(name):
    script = (
        "import atexit, os, signal, sys; from crossfade.cli import main\n"
        "sys.argv = ['crossfade', 'list']\n"
        "try: main()\n"
        f"finally: atexit.register(os.kill, os.getpid(), signal.{name})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), "")
    assert done.stdout.startswith("Methods")


def test_standard_input_is_called_that(call, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a,b\n1,2\n")))
    assert refused(call("compare", "-")).startswith("crossfade: standard input: which column is the class?")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_takes_quiet_and_explains_it(call, name):
    assert "-q" in call(name, "--help")[1]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(call, name):
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: crossfade {name}" in out


def test_a_comparison_from_a_file_to_table_verdict_page_and_numbers(call, iris, folder):
    code, out, err = call("compare", iris, "--target", "species", "--json", "out.json", *QUICK)
    assert code == 0
    assert "Δ vs ce" in out
    assert "Next: " in out
    assert "On iris, " not in out
    assert "Page: report.html" in err
    numbers = json.loads((folder / "out.json").read_text())
    assert {row["method"] for row in numbers["results"]} == {*DEFAULT_METHODS, "ce-matched"}
    assert numbers["settings"]["epochs"] == 2
    assert "iris.csv" in (folder / "report.html").read_text()
    assert sorted(os.listdir(folder)) == ["crossfade.db", "iris.csv", "out.json", "report.html"]

    assert out.startswith(f"{numbers['headline']}\n\nMethod")
    verbose = call("compare", iris, "--target", "species", "--verbose", *QUICK)[1]
    assert verbose.startswith(out.rstrip("\n"))
    assert "On iris, gradual " in verbose

    again = call("compare", iris, "--target", "species", "--json", "-", *QUICK)
    assert json.loads(again[1])["comparison"] == numbers["comparison"]

    code, out, _ = call("status")
    assert (code, "14 of 14 done" in out) == (0, True)
    assert (
        call("export", "all.csv")[0] == call("export", "all.parquet")[0] == call("export", "c.tsv", "--curves")[0] == 0
    )
    table, binary = pd.read_csv("all.csv"), pd.read_parquet("all.parquet")
    assert len(table) == len(binary) == 14
    assert table["accuracy"].tolist() == pytest.approx(binary["accuracy"].tolist())
    assert len(pd.read_csv("c.tsv", sep="\t")) == 28
    before = (folder / "report.html").read_text()
    assert call("report", "--report", "second.html")[0] == 0
    assert (folder / "second.html").read_text() == before


def test_on_a_terminal_the_headline_is_bold_and_sentences_are_cut_at_words(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    text = "Some headline.\n\nMethod  1.2  3.4\n\n" + "A sentence of several words. " * 5
    first, *rest = _laid_out(text).splitlines()
    assert first == "\033[1mSome headline.\033[0m"
    assert rest[1] == "Method  1.2  3.4"
    assert max(map(len, rest)) <= 60
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert _laid_out(text) == text


def test_without_a_file_four_real_sets_are_compared(call, folder):
    code, out, err = call("compare", "--methods", "ce,gradual", "--repeats", "2", "--epochs", "1", "--net", "linear")
    assert code == 0
    assert "4 data sets are too few" in out
    for name in ("iris", "wine", "breast_cancer", "digits"):
        assert name in err
    assert " · 2 repeats · linear, 1 epoch, batch" in err


def test_settings_come_from_the_file_unless_the_command_says_otherwise(call, iris, folder):
    (folder / "c.toml").write_text('methods = ["ce", "el"]\nepochs = 9\nrepeats = 2\nlearning-rates = [0.02]\n')
    code, *_ = call("compare", iris, "--target", "species", "--config", "c.toml", "--epochs", "1", "--json", "o.json")
    assert code == 0
    numbers = json.loads((folder / "o.json").read_text())
    assert numbers["settings"]["epochs"] == 1
    assert {row["method"] for row in numbers["results"]} == {"ce", "el"}
    assert {row["learning_rate"] for row in numbers["results"]} == {0.02}


def test_failed_trials_are_told_and_the_exit_status_is_1(call, iris, folder):
    (folder / "mine.py").write_text("def bad(ce):\n    return 1e30 * ce\n")
    code, out, err = call("compare", iris, "--target", "species", "--loss", "mine.py:bad", "--methods", "el", *QUICK)
    assert code == 1
    assert "failed: iris, bad, repeat 0 and 1 more: weights diverge" in err
    assert "No result of bad: 2 trials failed" in out
    assert "2 failed" in call("status")[1]
    code, out, err = call("compare", iris, "--target", "species", "--methods", "el", "--learning-rates", "1e30")
    assert code == 1
    assert "too little is left to compare" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["comprae"], "did you mean crossfade compare?"),
        (["compare", "--repaets", "3"], "--repeats"),
        (["compare", "--repeats", "-3"], "repeats must be a whole number of at least 1, got -3"),
        (["compare", "--repeats", "many"], "--repeats: expected a whole number, got 'many'"),
        (["compare", "--repeats", "1.5"], "--repeats: expected a whole number, got '1.5'"),
        (["run", "table4", "--seeds", "1.5"], "--seeds: expected a whole number, got '1.5'"),
        (["compare", "--methods", ""], "--methods: expected one or more, separated by commas, got none"),
        (["compare", "--repeats", "2", "--learning-rates", ","], "--learning-rates: expected one or more"),
        (["table4"], "no command 'table4': did you mean crossfade run table4?"),
        (["run", "tabel4"], "no command 'tabel4': did you mean crossfade run table4?"),
        (["iris.csv"], "no command 'iris.csv': did you mean crossfade compare iris.csv?"),
        (["zzz"], "no command 'zzz': there are compare, status"),
        (["run", "zzz"], "no command 'zzz': there are table1, table2"),
        (["run", "--plan"], "no command '--plan': there are table1, table2"),
        (["compare", "--repeats", "99999999999"], "repeats must be a whole number below 2^31, got 99999999999"),
        (["status", "a.db", "b.db"], "unexpected b.db: see crossfade status --help"),
        (["compare", "--report"], "--report needs a value: see crossfade compare --help"),
        (["compare", "--methods", "gradal"], "gradual"),
        (["compare", "--learning-rates", "fast"], "--learning-rates: expected numbers"),
        (["compare", "--target", "species"], "--target needs a FILE"),
        (["compare", "nothing.csv", "--target", "y"], "nothing.csv: no such file"),
        (["compare", "iris.csv"], "Add --target COLUMN (columns: sepal length (cm)"),
        (["compare", "iris.csv", "--target", "specie"], "did you mean 'species'"),
        (["compare", "iris.csv", "--target", "species", "--drop", "colour"], "--drop 'colour' is no column"),
        (["compare", "iris.csv", "--target", "species", "--drop", "species"], "--drop 'species' is the target"),
        (["compare", "iris.csv", "--target", "species", "--merge-rare", "1"], "--merge-rare must be a whole number of"),
        (["compare", "iris.csv", "--target", "species", "--merge-rare", "3", "--drop-rare", "3"], "name one"),
        (["compare", "iris.csv", "./iris.csv", "--target", "species"], "two of the data sets hold the same rows"),
        (["compare", "iris.csv", "more.csv", "--target", "species", "--test", "iris.csv"], "needs one data set"),
        (["compare", "iris.csv", ".", "--target", "species"], ".: a folder, expected tables"),
        (["compare", "iris.csv", "--target", "species", "--schedule", "mine.py"], "must be module:function or file.py"),
        (["compare", "iris.csv", "--target", "species", "--schedule", "mine.py:none"], "none is not there in mine.py"),
        (["compare", "iris.csv", "--target", "species", "--schedule", "mine.py:less"], "got alpha -1 and beta 0.5"),
        (["compare", "iris.csv", "--target", "species", "--schedule", "mine.py:late"], "progress 0.504"),
        (["compare", "iris.csv", "--target", "species", "--schedule", "mine.py:three"], "expected (alpha, beta)"),
        (["compare", "iris.csv", "--target", "species", "--config", "."], "--config .: can't be read"),
        (["compare", "iris.csv", "--target", "species", "--test", "."], "a folder, expected a table"),
        (["stats", "."], "a folder, expected a table"),
        (
            ["compare", ".", "--target", "species"],
            ".: a folder, expected tables; name those in it: empty.csv, iris.csv",
        ),
        (["compare", "iris.csv", "--target", "species", "--test", "none.csv"], "none.csv: no such file"),
        (["compare", "empty.csv", "--target", "y"], "the file is empty"),
        (["compare", "--store", "iris.csv"], "not a crossfade store"),
        (["compare", "--store", "nowhere/s.db"], "isn't there"),
        (["compare", "--report", "nowhere/r.html"], "isn't there"),
        (["compare", "--report", "page.html"], "page.html: is there, and not written by crossfade"),
        (["compare", "--json", "."], "a folder"),
        (["compare", "--workers", "0"], "--workers"),
        (["compare", "--config", "none.toml"], "can't be read"),
        (["compare", "--config", "bad.toml"], "did you mean 'epochs'"),
        (["compare", "--config", "code.toml"], "loss is code that would be run; use --loss on the command line"),
        (["compare", "--config", "fade.toml"], "schedule is code that would be run; use --schedule"),
        (["compare", "--loss", "own.py:falls"], "falls must never fall as ce grows"),
        (["compare", "--schedule", "page.html:g"], "schedule file 'page.html' is not a Python file"),
        (["compare", "--loss", "exits.py:g"], "failed to load: SystemExit: 0"),
        (["compare", "huge.txt", "--target", "y"], "column 'a' has 40 infinite or huge numbers (first: 1e+308"),
        (["compare", "--repeats", "1000000000"], "ask for fewer repeats"),
        (["compare", "--width", "100000000"], "use a smaller --width"),
        (["run", "table4", "--seeds", "1000000000"], "ask for fewer repeats"),
        (["compare", "--loss", "nosuchmodule:g"], "nosuchmodule"),
        (["compare", "--loss", "json:nothing"], "nothing"),
        (["status", "none.db"], "no such file"),
        (["status", "iris.csv"], "not a crossfade store"),
        (["export", "a.xlsx"], "use .csv, .tsv or .parquet"),
        (["export"], "OUTPUT needs a value: see crossfade export --help"),
        (["report", "none.db"], "no such file"),
        (["compare", "--store", "-"], "--store: expected a file, got 'standard input'"),
        (["report", "--report=-"], "--report: expected a file, got '-'"),
        (["report", "--output", "-"], "--report: expected a file, got 'standard input'"),
        (["run", "map", "--noise", "0.1,0.3"], "--noise: '0.3' isn't in map (there are 0, 0.1, 0.2, 0.4)"),
        (["run", "map", "--sizes", "nan"], "--sizes: 'nan' isn't in map"),
        (["run", "map", "--max-rows", "0"], "--max-rows must be a whole number of at least 1, got 0"),
        (["run", "figure2", "--limit", "0"], "--limit must be a whole number of at least 1, got 0"),
        (["run", "table4", "--net", "both,none"], "--net: 'none' isn't in table4 (there are both, linear, mlp)"),
        (["run", "finetune", "--cases", "both,none"], "--cases: 'none' isn't in finetune"),
        (["run", "finetune", "--learning-rates", "nan"], "learning_rates must be a finite number above 0, got nan"),
        (["run", "table1", "--workers", "-1"], "--workers must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_requests_are_one_line_and_leave_nothing_behind(call, iris, folder, arguments, says, monkeypatch):
    (folder / "empty.csv").touch()
    (folder / "bad.toml").write_text("epoch = 3\n")
    (folder / "own.py").write_text("def falls(ce): return -ce\n")
    (folder / "runs.py").write_text("open('ran', 'w')\n")
    (folder / "exits.py").write_text("raise SystemExit(0)\n")
    (folder / "code.toml").write_text('loss = ["runs.py:g"]\n')
    (folder / "fade.toml").write_text('schedule = ["runs.py:g"]\n')
    (folder / "huge.txt").write_text("a,y\n" + "1e308,0\n-1e308,1\n" * 20)
    (folder / "page.html").write_text("<h1>my own page</h1>")
    (folder / "more.csv").write_text(iris.read_text().replace("5.1", "5.3"))
    (folder / "mine.py").write_text(
        "def less(t):\n    return -1.0, 0.5\n\ndef late(t):\n    return 1.0, 1 / 0 if t > 0.5 else 0.0\n\n"
        "def three(t):\n    return 1, 2, 3\n"
    )
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = sorted(os.listdir(folder))
    quick = QUICK if arguments[0] == "compare" and "--repeats" not in arguments and "fast" not in arguments else []
    assert says in refused(call(*arguments, *quick))
    assert sorted(os.listdir(folder)) == before


def test_a_file_whose_name_is_no_utf_8_is_to_be_renamed(call, iris, folder):
    iris.rename(folder / "M\udcfcller.csv")
    said = refused(call("compare", "M\udcfcller.csv", "--target", "species", *QUICK))
    assert "ller.csv: its name isn't UTF-8; rename it" in said


def test_several_files_are_several_data_sets(call, iris, folder):
    (folder / "south").mkdir()
    (folder / "south" / "iris.csv").write_text(iris.read_text().replace("5.1", "5.3"))
    frame = pd.read_csv(iris)
    frame.iloc[::2].to_json(folder / "half.jsonl", orient="records", lines=True)
    files = ["iris.csv", "south/iris.csv", "half.jsonl"]
    code, out, err = call("compare", *files, "--target", "species", "--methods", "ce,f0", "--json", "-", *QUICK)
    assert code == 0, err
    results = pd.DataFrame(json.loads(out)["results"])
    assert dict(zip(results["dataset"], results["n_train"], strict=True)) == {
        "iris.csv": 90,
        "south/iris.csv": 90,
        "half": 45,
    }
    alone = call("compare", "half.jsonl", "--target", "species", "--methods", "ce,f0", "--json", "-", *QUICK)
    own = results[results["dataset"] == "half"].drop(columns="seconds").to_dict("records")
    assert [{**row, "seconds": 0} for row in own] == [{**row, "seconds": 0} for row in json.loads(alone[1])["results"]]


def test_several_files_of_texts(call, folder):
    for name, more in (("a", "very"), ("b", "quite")):
        said = [f"so {more} {word} it is" for word in ("red", "blue", "green") * 10]
        pd.DataFrame({"said": said, "colour": [text.split()[2] for text in said]}).to_csv(f"{name}.csv", index=False)
    command = ["compare", "a.csv", "b.csv", "--text", "said", "--target", "colour", "--methods", "ce,f0", "--json", "-"]
    code, out, err = call(*command, "--repeats", "2", "--epochs", "1", "--width", "4", "--workers", "1")
    assert code == 0, err
    assert {row["dataset"] for row in json.loads(out)["results"]} == {"a", "b"}


def test_standard_input_is_a_file(call, iris, folder, monkeypatch):
    said = {}
    for name in ("iris.csv", "-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(iris.read_bytes())))
        code, out, err = call("compare", name, "--target", "species", "--methods", "ce,f0", "--json", "-", *QUICK)
        assert code == 0, err
        said[name] = json.loads(out)["comparison"]["overall"]
    assert said["-"] != []
    assert "stdin" in err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "the file is empty" in refused(call("compare", "-", "--target", "species"))


def test_an_own_schedule_is_a_method(call, iris, folder):
    (folder / "mine.py").write_text("def fade(t):\n    return 1 - t, 1.0\n\ndef gradual(t):\n    return 1.0, 1.0\n")
    given = ["--schedule", "mine.py:fade", "--schedule", "mine.py:gradual", "--methods", "ce,f0"]
    code, out, err = call("compare", iris, "--target", "species", *given, "--json", "-", *QUICK)
    assert code == 0, err
    results = pd.DataFrame(json.loads(out)["results"]).pivot(index="repeat", columns="method", values="nll")
    assert list(results.columns) == ["ce", "f0", "fade", "gradual-custom"]
    assert results["gradual-custom"].equals(results["f0"].rename("gradual-custom"))  # (1, 1) is F = 0
    assert (results["fade"] != results["f0"]).any()
    assert "gradual-custom is the same as f0" in err


def test_quiet_says_the_answer_alone(call, iris):
    loud = call("compare", iris, "--target", "species", "--methods", "ce,f0", *QUICK)
    code, out, err = call("compare", iris, "--target", "species", "--methods", "ce,f0", *QUICK, "-q")
    assert (code, out, err) == (0, loud[1], "")
    assert call("report", "--quiet") == (0, "", "")
    assert call("export", "all.csv", "-q") == (0, "", "")
    code, out, err = call("status", "-q")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"\w+  compare  .*  \d+ of \d+ done\n", out)  # a line a request


def test_texts_are_no_numbers(call, iris):
    said = call("compare", iris, "--target", "species", "--text", "petal width (cm)")
    assert "--text 'petal width (cm)' holds numbers" in refused(said)


def test_an_option_of_images_wants_a_folder(call):
    assert "nothing: not a folder" in refused(call("compare", "nothing", "--accelerator", "cpu"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["iris.csv", "--pretrained"], "iris.csv: not a folder; --pretrained needs a folder of images"),
        (["iris.csv", "--learning-rate", "0.1"], "a table alone has --learning-rates"),
        (["iris.csv", "--max-length", "9"], "iris.csv: a table; --max-length needs a table with --text COLUMN"),
        (["iris.csv", "--text", "x", "--drop", "y"], "iris.csv: texts; --drop needs a table without --text"),
        (["iris.csv", "--text", "x", "--compile"], "iris.csv: not a folder; --compile needs a folder of images"),
        (["images", "--target", "x"], "images: a folder of images; --target needs a table"),
        (["images", "--text", "x"], "images: a folder of images; --text needs a table"),
        (["images", "--learning-rates", "0.1"], "other data have --learning-rate"),
        (["--keep-weights", "w"], "crossfade: --keep-weights needs a folder of images"),
        (["--text", "x"], "--text needs a FILE"),
    ],
)
def test_an_option_that_does_not_suit_the_data_is_refused(call, iris, folder, arguments, says):
    (folder / "images").mkdir()
    assert says in refused(call("compare", *arguments))
    assert sorted(os.listdir(folder)) == ["images", "iris.csv"]


def test_the_help_of_compare_has_groups(call, monkeypatch):
    help_ = call("compare", "--help")[1]
    headings = re.findall(r"╭─ (\w+) ─", help_)
    assert headings == ["Arguments", "Data", "Texts", "Images", "Training", "Machine", "Output"]
    options = re.findall(r"│ (--[a-z-]+)", help_)
    assert len(options) == len(set(options)) > 40
    monkeypatch.setenv("COLUMNS", "240")  # there lines don't end where the docstring's do
    assert "gradual without its shape. [default" in call("compare", "--help")[1]


def test_another_run_on_the_same_store_is_refused(call, folder):
    from crossfade.lab.store import Store

    with Store(folder / "crossfade.db"):
        assert "another run is writing" in refused(call("compare", *QUICK))


def test_a_reader_that_has_seen_enough_is_no_error(folder):
    process = subprocess.run(
        f"{sys.executable} -m crossfade list | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0
    assert process.stdout.startswith("Methods")
    assert not process.stderr


def test_a_reader_that_leaves_before_the_work_is_done_is_told_by_the_status(iris):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "crossfade", "compare", iris, "--target", "species", *QUICK]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=write, check=False)
    os.close(write)
    assert (process.returncode, process.stdout) == (141, b"")


def test_output_that_is_closed_or_lacks_a_character_is_no_error():
    listed = [sys.executable, "-m", "crossfade", "list"]
    narrow = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    process = subprocess.run(listed, env=narrow, capture_output=True, check=False)
    assert (process.returncode, process.stderr) == (0, b"")
    assert b"2 (1 - ?p): row weight ?p" in process.stdout
    narrow = {"PYTHONIOENCODING": "ascii:surrogateescape"}  # as in the POSIX locale
    assert subprocess.run(listed, env={**os.environ, **narrow}, capture_output=True, check=False).stderr == b""
    closed = subprocess.run(f"{sys.executable} -m crossfade list >&- 2>&-", shell=True, check=False)
    assert closed.returncode == 0


def test_the_progress_of_a_download_ends_its_line(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    show = _Line()
    for done, total in ((10**6, 2 * 10**6), (2 * 10**6, 2 * 10**6), (3 * 10**6, 0)):
        show(done, total)
    assert terminal.getvalue() == "\r1 of 2 MB \r2 of 2 MB \n\r3 MB "


def test_without_a_home_folder_data_needs_a_place(call, folder, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "CROSSFADE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert "use --data-dir, or set CROSSFADE_DATA" in refused(call("data"))
    assert call("data", "--data-dir", folder)[0] == 0


def test_list_names_what_there_is(call):
    code, out, _ = call("list")
    assert code == 0
    assert re.search(r"^  gradual\*", out, re.MULTILINE)
    assert "linear" in out


def test_completion_of_commands_and_options_is_installed(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    status, out, _ = call("--install-completion", "--shell", "bash")
    script = tmp_path / ".local/share/bash-completion/completions/crossfade"
    assert status == 0
    assert str(script) in out
    assert all(word in script.read_text() for word in ("compare", "--keep-weights", "table4"))
