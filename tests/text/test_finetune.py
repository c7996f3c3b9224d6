"""`crossfade run finetune`: texts, training, its resumable trials, and what its page says."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from crossfade import objectives
from crossfade.cli import main
from crossfade.lab.methods import METHODS, OBJECTIVES, Method, method
from crossfade.lab.paper import finetune
from crossfade.lab.paper.finetune_model import (
    ByteModel,
    FinetuneRecipe,
    FinetuneTask,
    blocks,
    compute,
    objective,
    score,
)
from crossfade.lab.store import Store
from crossfade.lab.trial import Trial

RECIPE = FinetuneRecipe(
    width=8, layers=1, context=8, batch_size=4, pretrain_steps=4, train=256, held_out=64, learning_rates=(1e-3, 1e-2)
)
WORDS = tuple(bytes(words) for words in np.random.default_rng(0).integers(97, 105, (60, 40)).astype(np.uint8))


def trial(folder, one, recipe=RECIPE, repeat=0):
    task = FinetuneTask("known", WORDS[:10], WORDS[10:20], WORDS[20:], recipe, folder)
    return Trial("finetune", task, one, recipe, repeat)


def run(folder, *options, store=None):
    words = ["run", "finetune", "--scale", "smoke", "--repeats", "1", "--workers", "1", "--quiet", *options]
    files = ["--data-dir", folder / "data", "--store", store or folder / "f.db", "--report", folder / "f.md"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, *map(str, files)])
    return stopped.value.code


def test_blocks_follow_each_other_and_documents_are_never_in_two_parts(tmp_path):
    text = blocks(iter([b"abcd", b"efgh"]), 3, 9)
    assert bytes(text[0].tolist()) == b"abcd"
    assert bytes(text[1].tolist()) == b"d\0ef"
    first = trial(tmp_path, method("ce")).task
    parts = [{bytes(row.tolist()) for row in part} for part in first.split(0)]
    assert [len(part) for part in first.split(0)] == [32, 8, 8]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not torch.equal(first.split(0)[0], first.split(1)[0])


def test_the_model_sees_no_later_byte():
    model = ByteModel(RECIPE)
    text = torch.randint(256, (2, 8))
    other = text.clone()
    other[:, 5:] = 0
    torch.testing.assert_close(model(text)[:, :5], model(other)[:, :5])
    assert not torch.allclose(model(text)[:, 5:], model(other)[:, 5:])


def test_scores_are_the_cross_entropy_and_the_hits_of_every_byte():
    model, text = ByteModel(RECIPE), torch.randint(256, (70, 9))
    ce, hits = score(model, text)
    logits = model(text[:, :-1]).detach().double()
    assert ce.mean().item() == pytest.approx(F.cross_entropy(logits.movedim(2, 1), text[:, 1:]).item())
    assert hits.mean().item() == (logits.argmax(2) == text[:, 1:]).double().mean().item()


def test_methods_meet_the_same_text_weights_and_batches(tmp_path):
    """CE as a schedule and as a g give the same numbers, computed with new and with kept pre-trained weights."""
    first = compute(trial(tmp_path, method("ce")), tmp_path)
    again = compute(trial(tmp_path, Method("own", "own", g=torch.clone)), tmp_path)
    for result in (first.result, again.result):
        assert result.pop("scale") == "paper"
        assert result.pop("seconds") >= 0
    assert first.result == pytest.approx(again.result, rel=1e-5)
    assert len(list(tmp_path.glob("*/pretrained.ckpt"))) == 1
    other = compute(trial(tmp_path, method("el")), tmp_path).result
    assert other["before_nll"] == first.result["before_nll"]
    assert other["nll"] != first.result["nll"]


def test_the_rate_is_the_best_on_validation_text(tmp_path):
    found = compute(trial(tmp_path, method("ce")), tmp_path)
    best = int(np.argmax(found.curves["val_accuracy"]))
    assert found.result["learning_rate"] == RECIPE.learning_rates[best]
    alone = compute(trial(tmp_path, method("ce"), replace(RECIPE, learning_rates=(1e-2,))), tmp_path)
    assert alone.curves["val_nll"] == found.curves["val_nll"][1:]
    failed = compute(trial(tmp_path, method("ce"), replace(RECIPE, learning_rates=(1e30,))), tmp_path)
    assert "diverge at every learning rate" in failed.error


def test_named_objectives_are_those_of_the_library():
    ce = torch.linspace(0.01, 8.0, 50)
    row = objectives.Row(lambda: torch.softmax(torch.arange(50.0 * 5).view(50, 5) % 7, 1), 1, torch.zeros(50, 1).long())
    known = {
        "power": objectives.power(0.5), "floored": objectives.floored(0.1), "shifted": objectives.shifted(0.25),
        "thresholded": objectives.thresholded(0.1), "inverse-focal": objectives.inverse_focal(),
    }  # fmt: skip
    known = {name: partial(lambda g, ce, row: g(ce), g) for name, g in known.items()}
    known |= {"deft": objectives.deft(), "entropy-gated": objectives.entropy_gated()}
    assert {one.name for one in OBJECTIVES} == set(known)
    assert not {one.name for one in OBJECTIVES} & {one.name for one in METHODS}
    for one in OBJECTIVES:
        g = objective(one, 0.5)
        value = g(ce, row) if one.name in ("deft", "entropy-gated") else g(ce)
        torch.testing.assert_close(value, known[one.name](ce, row))
    assert objective(method("gce-rising"), 0.0)(ce)[0] == pytest.approx(0.01)
    assert objective(method("gradual"), 0.0)(ce)[0] == pytest.approx(0.01 + 1 - np.exp(-0.01))


def test_keys_of_objectives_hold_their_names_alone(tmp_path):
    """A later version of the file with the formulas doesn't make stored results worthless."""
    assert [trial(tmp_path, one).content["method"] for one in OBJECTIVES] == [{"name": one.name} for one in OBJECTIVES]


def test_the_command_goes_on_where_it_was_and_writes_its_page(tmp_path, capsys):
    assert run(tmp_path, "--methods", "el,deft", "--cases", "unknown") == 0
    assert run(tmp_path, "--methods", "el,deft", "--cases", "both", "--overwrite") == 0
    page = (tmp_path / "f.md").read_text()
    assert page.count("| `deft` DEFT |") == 2
    assert "Known text, where p is large: " in page
    assert "Safe where p is small and better than CE where it is large: " in page
    with Store(tmp_path / "f.db", mode="read") as store:
        rows = list(store.rows())
    times = {
        case: {row.provenance["time"] for row in rows if row.content["task"]["name"] == case} for case in finetune.CASES
    }
    assert len(rows) == 2 * 3
    assert max(times["unknown"]) <= min(times["known"])
    capsys.readouterr()
    assert run(tmp_path, "--methods", "nonsense", "--plan") == 2
    assert "--methods: 'nonsense' isn't in finetune" in capsys.readouterr().err


def test_a_store_in_memory_is_read_before_it_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, "--methods", "el", "--cases", "known", store=":memory:") == 0
    assert "| `el` (DFT) |" in (tmp_path / "f.md").read_text()


def frame(**gaps):
    """Return results of five repeats on both texts, with each method's (known, unknown) difference to CE in points."""
    noise = np.random.default_rng(0).normal(0, 1e-4, (2, 5, len(gaps)))
    return pd.DataFrame(
        {
            "dataset": name, "method": one, "repeat": repeat, "nll": 1.0, "n_train": 64, "n_test": 16,
            "accuracy": 0.5 + gap[case] / 100 + (one != "ce") * noise[case, repeat, at],
        }
        for case, name in enumerate(("known", "unknown")) for repeat in range(5)
        for at, (one, gap) in enumerate(gaps.items())
    )  # fmt: skip


def test_the_answers_name_what_is_safe_what_gains_and_what_does_both():
    gaps = {"ce": (0, 0), "el": (1, -9), "f0": (1, 0), "gradual": (0, 1), "deft": (1, 1)}
    unknown, known, both, fade = finetune.answers(frame(**gaps))
    assert unknown == "Unknown text, where p is small: better: gradual, deft; safe: f0; worse: el."
    assert known == "Known text, where p is large: better: el, f0, deft; safe: gradual."
    assert both == "Safe where p is small and better than CE where it is large: deft, f0."
    assert fade == "The fade, gradual, is better where p is small, and safe where it is large."
    assert finetune.answers(frame(ce=(0, 0))) == []
