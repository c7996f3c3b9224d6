"""``crossfade compare --text``, ``run table3`` and ``run figure2`` as a user calls them, and what can be wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossfade.errors import UserError
from crossfade.lab import frames
from crossfade.lab.data.texts import GLUE, TextPart, TextSplit, TextTask, load_glue, load_texts
from crossfade.lab.store import Store
from crossfade.lab.train.lstm.recipe import LstmRecipe
from crossfade.lab.train.lstm.tokens import UNKNOWN, tokenize, words

QUICK = ["--repeats", "2", "--epochs", "2", "--batch-size", "16"]
DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "crossfade.lab.data.sources._answers", lambda kind, name: False
    )  # also where there is a network
    return tmp_path


def refused(call, *arguments) -> str:
    code, out, err = call(*arguments)
    lines = err.strip().splitlines()
    assert code == 2
    assert not out
    assert len(lines) == 1, err
    return lines[0]


def test_compare_with_an_lstm(call, table, folder):
    (folder / "mine.py").write_text("import torch\n\ndef squared(ce):\n    return torch.expm1(-ce) ** 2\n")
    command = ["compare", table, "--text", "sentence", "--target", "about", *QUICK, "--methods", "gradual,mpce,mmc,cot"]
    code, out, err = call(*command, "--loss", "mine.py:squared", "--json", "answer.json")
    assert code == 0, err
    assert all(name in out for name in ("squared", "mpce", "mmc", "cot"))
    assert "report.html" in err
    answer = json.loads(Path("answer.json").read_text())
    assert {"ce", "gradual", "squared"} <= set(json.dumps(answer).replace('"', " ").split())
    code, again, _ = call(*command, "--loss", "mine.py:squared")  # everything is known
    assert (code, again) == (0, out)
    with Store("crossfade.db", mode="read") as store:
        rows = list(store.rows())
    assert len(rows) == 12
    assert all(row.outcome.result["engine"] != "" and row.outcome.result["f1"] >= 0 for row in rows)


def test_compare_with_bert_killed_and_run_again(call, table, bert, folder):
    command = [
        "compare", str(table), "--text", "sentence", "--target", "about", "--repeats", "1", "--epochs", "4",
        "--net", f"bert:{bert}", "--max-length", "32", "--accelerator", "cpu", "--methods", "f0,f0-late",
    ]  # fmt: skip
    code, out, err = call(*command, "--store", "whole.db")
    assert code == 0, err
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "crossfade", *command, "--store", "killed.db"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while (
        process.poll() is None and not list(folder.glob("killed.db.work/*/last.ckpt")) and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, again, err = call(*command, "--store", "killed.db")
    assert (code, again) == (0, out), err
    assert not (folder / "killed.db.work").exists()


def test_fixed_test_rows_and_pairs(call, sentences, bert, folder):
    frame = sentences.assign(second=sentences["sentence"].str[::-1])
    frame.iloc[::2].to_csv("train.csv", index=False)
    frame.iloc[1::2].to_csv("test.csv", index=False)
    code, out, err = call(
        "compare", "train.csv", "--test", "test.csv", "--text", "sentence,second", "--target", "about", "--net",
        f"bert:{bert}", "--epochs", "1", "--repeats", "1", "--methods", "f0", "--accelerator", "cpu",
        "--max-length", "32",
    )  # fmt: skip
    assert code == 0, err
    assert f"+ {len(frame.iloc[1::2])} texts" in err
    assert "McNemar's exact test" in out
    code, out, err = call(
        "compare", "train.csv", "--test", "test.csv", "--text", "sentence", "--target", "about", *QUICK, "--methods",
        "f0", "--store", "lstm.db", "--report", "lstm.html",
    )  # fmt: skip
    assert code == 0, err
    assert "McNemar's exact test" in out
    for name in ("crossfade.db", "lstm.db"):
        with Store(name, "read") as store:
            for row in frames.results(store).itertuples():
                assert len(row.hits) == row.n_test == len(frame.iloc[1::2])
                assert row.hits.mean() == pytest.approx(row.accuracy)
    line = refused(call, "compare", "train.csv", "--text", "sentence,second", "--target", "about")
    assert "reads one text" in line


def test_a_transformer_that_does_not_fit_into_memory_is_refused(call, table, bert, monkeypatch):
    monkeypatch.setattr("crossfade.lab.comparison.device_memory", lambda hardware: 2.0**10)
    at = ["compare", table, "--target", "about", "--text", "sentence", "--net", f"bert:{bert}"]
    line = refused(call, *at, "--max-length", "32")
    assert re.search(r"with \d+ examples at once need about .* --max-length or model, or --accumulate N", line)


def test_bad_requests_are_one_line(call, table, sentences, bert, folder):
    at = ["compare", table, "--target", "about", "--text"]
    assert "sentense" in refused(call, *at, "sentense")
    assert "which column is the class" in refused(call, "compare", table, "--text", "sentence")
    assert "'abut' is no column" in refused(call, "compare", table, "--text", "sentence", "--target", "abut")
    assert "no such file" in refused(call, "compare", "nothing.csv", "--text", "sentence", "--target", "about")
    assert "bert:NAME" in refused(call, *at, "sentence", "--net", "gru")
    assert "no such folder" in refused(call, *at, "sentence", "--net", "bert:./nowhere")
    assert "hub can't be reached" in refused(call, *at, "sentence", "--net", "bert:nobody-has-this")
    assert "at most 64" in refused(call, *at, "sentence", "--net", f"bert:{bert}", "--max-length", "65")
    assert "--workers" in refused(call, *at, "sentence", "--workers", "0")
    assert "epochs must be" in refused(call, *at, "sentence", "--epochs", "0")
    line = refused(call, *at, "sentence", "--width", "1000000")
    assert line.endswith("; use a smaller --width, or fewer methods")  # --drop and rates are for other tables
    for name in ("mps", "nonsense"):
        line = refused(call, *at, "sentence", "--accelerator", name, "-q")
        assert f"--accelerator must be one of auto, cpu, gpu, cuda, got '{name}'" in line
    sentences.assign(sentence="").to_csv("empty.csv", index=False)
    line = refused(call, "compare", "empty.csv", "--text", "sentence", "--target", "about")
    assert "every cell is empty" in line
    sentences.assign(about="other").to_csv("other.csv", index=False)
    line = refused(call, *at, "sentence", "--test", "other.csv")
    assert "label 'other' (row 1) doesn't occur" in line


def test_a_tokenizer_of_another_model_is_refused(call, table, bert, tokenizer_of, folder):
    import shutil

    from transformers import AutoTokenizer

    known = AutoTokenizer.from_pretrained(bert).get_vocab()
    assert len(known) > 300
    short = ["--max-length", "32"]
    shutil.copytree(bert, "mixed")
    tokenizer_of([*sorted(known, key=known.get), *(f"word{at}" for at in range(50))]).save_pretrained("mixed")
    line = refused(call, "compare", table, "--target", "about", "--text", "sentence", "--net", "bert:mixed", *short)
    assert "don't belong together" in line
    shutil.copytree(bert, "bare", ignore=shutil.ignore_patterns("vocab*", "tokenizer*", "special*"))
    line = refused(call, "compare", table, "--target", "about", "--text", "sentence", "--net", "bert:bare", *short)
    assert "tokenizer" in line


def test_a_folder_that_would_run_its_own_code_is_refused_not_asked_about(call, table, bert, folder):
    import json
    import shutil

    for name in ("config.json", "tokenizer_config.json"):
        own = shutil.copytree(bert, f"own-{name}")
        settings = json.loads((folder / own / name).read_text())
        code = {"auto_map": {"AutoConfig": "mine.Config", "AutoTokenizer": ["mine.Tokenizer", None]}}
        (folder / own / name).write_text(json.dumps(settings | code))
        (folder / own / "mine.py").write_text("open('ran', 'w')\n")
        at = ["--target", "about", "--text", "sentence", "--net", f"bert:{own}", "--max-length", "32"]
        line = refused(call, "compare", table, *at)
        assert f"auto_map in its {name}" in line
    assert not (folder / "ran").exists()


def test_rows_without_text_are_left_out_and_said(sentences, folder):
    frame = sentences.copy()
    frame.loc[[1, 5], "sentence"] = ["", None]
    frame.to_csv("holes.csv", index=False)
    data = load_texts(Path("holes.csv"), ["sentence"], "about")
    assert len(data.train) == len(frame) - 2
    assert f"2 of {len(frame)} rows without a text are left out" in data.notes


def test_a_split_is_stratified_and_repeats_itself(table):
    task = TextTask(load_texts(table, ["sentence"], "about"), test_size=0.2)
    one, again, other = task.split(0), task.split(0), task.split(1)
    assert one.test.texts == again.test.texts != other.test.texts
    whole = np.bincount(task.data.train.labels)
    for part, share in ((one.train, 0.6), (one.validation, 0.2), (one.test, 0.2)):
        assert np.abs(np.bincount(part.labels) - share * whole).max() <= 1.5
    assert sorted(one.train.texts + one.validation.texts + one.test.texts) == sorted(task.data.train.texts)
    limited = TextTask(task.data, limit=40).split(0)
    assert abs(len(limited.train) - 40) <= 2
    assert set(limited.train.texts) <= set(task.data.train.texts)


def test_words_and_numbers():
    assert words("It's TOO small!? – naïve 北京") == ["it's", "too", "small", "!", "?", "naïve", "北京"]
    part = TextPart(("a b a", "b c", "..."), np.array([0, 1, 0]))
    split = TextSplit(part, part, part, 2)
    found = tokenize(split, LstmRecipe(min_count=2, max_length=2))
    assert found.train.tokens.tolist() == [1, 2, 2, UNKNOWN, UNKNOWN]
    assert found.train.lengths.tolist() == [2, 2, 1]
    assert found.vocabulary == 3
    with pytest.raises(UserError, match="no word occurs 9 times"):
        tokenize(split, LstmRecipe(min_count=9))


def write_glue(folder: Path, sentences: pd.DataFrame) -> None:
    """RTE and CoLA in the published layout, from real sentences."""
    rows = sentences.iloc[:120]
    other = rows["sentence"].sample(frac=1, random_state=0).to_numpy()
    for part, chosen in (("train", slice(0, 80)), ("dev", slice(80, 120))):
        rte = pd.DataFrame(
            {
                "index": range(120), "sentence1": rows["sentence"], "sentence2": other,
                "label": np.where(rows["about"] == "iris", "entailment", "not_entailment"),
            }
        ).iloc[chosen]  # fmt: skip
        for name, text in (
            ("RTE", "\n".join(["\t".join(rte.columns), *("\t".join(map(str, row)) for row in rte.to_numpy())])),
            ("CoLA", "\n".join(f"src\t{at % 2}\t*\t{text}" for at, text in enumerate(rows["sentence"].iloc[chosen]))),
        ):
            (folder / "glue" / name).mkdir(parents=True, exist_ok=True)
            (folder / "glue" / name / f"{part}.tsv").write_text(text + "\n")


def test_figure2(call, sentences, bert, folder):
    write_glue(folder, sentences)
    code, out, err = call(
        "run", "figure2", "--data-dir", ".", "--model", bert, "--scale", "smoke", "--tasks", "rte,CoLA,MRPC",
        "--accelerator", "cpu", "--methods", "gradual", "--accumulate", "2", "--report", "page.md",
    )  # fmt: skip
    assert code == 0, err
    assert "Matthews" in out
    assert "RTE (64 of 2,490 rows)" in out
    assert out.count("τ = 1.05") == 2
    assert "accuracy (the axis of the paper's figure), times τ" in out
    assert "official metric, times τ" in out
    assert "MRPC: not in" in out  # and the rest is run
    assert Path("page.md").read_text() == out.rstrip("\n") + "\n" or "page.svg" in Path("page.md").read_text()
    assert Path("page.svg").read_text().startswith("<svg")
    assert not re.search(re.escape(str(Path(bert).parent)), out)  # a folder's place is nobody's business
    assert "no data" in refused(call, "run", "figure2", "--data-dir", "nowhere", "--model", bert, "--tasks", "RTE")
    line = refused(call, "run", "figure2", "--data-dir", ".", "--model", bert, "--tasks", "STS-B")
    assert "'sts-b' isn't in GLUE" in line
    (folder / "glue" / "CoLA" / "dev.tsv").write_text("x\ty\nz\tw\n")
    with pytest.raises(UserError, match="damaged"):
        load_glue(GLUE[0], folder)


def test_a_folder_stands_for_its_content(bert, sentences, folder):
    import shutil

    from crossfade.lab.paper.figure2 import study
    from crossfade.lab.paper.study import Request, plan

    write_glue(folder, sentences)
    shutil.copytree(bert, "elsewhere/bert-tiny")
    keys = [
        plan(study(model), Request(folder, datasets=("RTE",)), "test").keys for model in (bert, "elsewhere/bert-tiny")
    ]
    assert keys[0] == keys[1]


@pytest.mark.skipif(not (DATA / "reviews.zip").exists(), reason="needs the reviews in ../shared/data")
def test_table3_on_the_reviews(call, folder):
    import zipfile

    zipfile.ZipFile(DATA / "reviews.zip").extractall("reviews")
    code, out, err = call("run", "table3", "--data-dir", ".", "--scale", "smoke", "--nets", "arch1,arch4")
    assert code == 0, err
    assert "| 2 × 50 | gradual |" in out
    assert "61.08 ± 0.83" in out
    assert "845 of 23486 rows without a text are left out" in err


def test_table3_without_reviews(call):
    assert "Kaggle" in refused(call, "run", "table3", "--data-dir", ".")
