import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.lab import frames
from crossfade.lab.methods import Method, method
from crossfade.lab.store import Outcome, Store
from crossfade.lab.train import Recipe
from crossfade.lab.trial import Trial, canonical, digest, seed, stream_seed
from crossfade.schedules import constant, switch

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class FakeTask:
    """A task without data: keys and seeds need none."""

    def __init__(self, name="iris", **content):
        self.name, self.content, self.shape = name, {"data": "abc", "seed": 0, **content}, (1, 1, 1)

    def split(self, repeat):
        raise NotImplementedError

    def describe(self):
        return {}


TRIAL = Trial("compare", FakeTask(), method("ce"), Recipe(), 0)


def own(factor):
    def g(ce):
        return factor * ce

    return g


def bend(ce, power=1.0):
    return ce**power


def test_old_names_are_read_and_old_keys_stay():
    """What an earlier crossfade stored of a matched rate on images is found again, and shown by its name of today."""
    names = {"ce-volume-own": "ce-rate-matched", "ce-volume-others": "ce-rate-matched-off", "cot": "cot"}
    trials = [replace(TRIAL, method=method(old), recipe=Recipe(epochs=2)) for old in names]
    assert [trial.method.name for trial in trials] == list(names.values())
    assert [trial.content["method"] for trial in trials] == [{"name": n, "schedule": [[1.0, 0.0]] * 3} for n in names]
    with Store(":memory:") as store:
        for trial, old in zip(trials, names, strict=True):
            then = replace(trial, method=Method(old, old))
            assert then.key == trial.key
            store.put(then, Outcome({"accuracy": 0.5}, {"train_loss": [1.0]}), {})
            assert list(frames.results(store, [trial.key])["method"]) == [trial.method.name]
            assert list(frames.curves(store, [trial.key])["method"]) == [trial.method.name]


@given(st.dictionaries(st.text(), plain, max_size=6))
def test_canonical_json_ignores_the_order_of_keys_and_nothing_else(content):
    shuffled = dict(reversed(content.items()))
    assert canonical(content) == canonical(shuffled)
    assert digest(content) == digest(shuffled)
    changed = {**content, "one more": True}
    assert (digest(changed) == digest(content)) == (content.get("one more") is True)


def test_canonical_json_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON"):
        canonical({"x": float("nan")})


@given(st.integers(0, 10**6), st.text(), st.integers(0, 10**6), st.text())
def test_seeds_fit_everywhere_and_differ_with_repeat_and_stream(repeat, stream, other_repeat, other_stream):
    first = stream_seed({"data": "abc"}, repeat, stream)
    second = stream_seed({"data": "abc"}, other_repeat, other_stream)
    assert 0 <= first < 2**63
    assert (first == second) == ((repeat, stream) == (other_repeat, other_stream))


def test_seeds_and_keys_of_today_are_those_of_yesterday():
    # A store outlives versions: if this fails, every stored trial is run again, and with other splits.
    assert stream_seed({"data": "abc", "seed": 0}, 3, "split") == 2924394584434191604
    assert digest({"a": [1, 0.1, None], "b": "ü"}) == "ae058d23fdd1c0cd3610594dbed5e5de"


def test_seed_hashes_task_and_repeat_but_not_method_recipe_study_or_name():
    same = [
        replace(TRIAL, method=method("gradual")),
        replace(TRIAL, recipe=Recipe(epochs=7, learning_rates=(0.1,))),
        replace(TRIAL, study="other"),
        replace(TRIAL, task=FakeTask("renamed")),
    ]
    other = [replace(TRIAL, repeat=1), replace(TRIAL, task=FakeTask(seed=1)), replace(TRIAL, task=FakeTask(data="d"))]
    assert {seed(trial, "train") for trial in same} == {seed(TRIAL, "train")}
    assert len({seed(trial, "train") for trial in [TRIAL, *other]}) == 4
    assert seed(TRIAL, "train") != seed(TRIAL, "split")


def test_every_part_of_a_trial_is_part_of_its_key():
    different = [
        TRIAL,
        replace(TRIAL, study="other"),
        replace(TRIAL, task=FakeTask("renamed")),
        replace(TRIAL, task=FakeTask(seed=1)),
        replace(TRIAL, method=method("el")),
        replace(TRIAL, recipe=Recipe(epochs=51)),
        replace(TRIAL, recipe=Recipe(protocol=2)),
        replace(TRIAL, repeat=1),
    ]
    assert len({trial.key for trial in different}) == len(different)
    assert replace(TRIAL).key == TRIAL.key


def test_a_known_name_with_another_meaning_is_another_trial():
    methods = [
        method("f0-late"),
        Method("f0-late", "mine", schedule=switch(at=0.9)),
        Method("f0-late", "mine", schedule=switch(at=0.8)),
        Method("f0-late", "mine", schedule=constant(0.25)),
        Method("f0-late", "mine", g=own(1.0)),
        Method("f0-late", "mine", g=own(2.0)),
        Method("f0-late", "mine", g=bend),
        Method("f0-late", "mine", g=partial(bend, power=2.0)),
        Method("f0-late", "mine", g=lambda ce: ce),
    ]
    assert len({replace(TRIAL, method=one).key for one in methods}) == len(methods)
    twin = Method("f0-late", "another title", schedule=switch(at=0.9))
    assert replace(TRIAL, method=twin).key == replace(TRIAL, method=methods[1]).key


def test_the_source_of_an_own_loss_is_part_of_the_key_whatever_the_locale(tmp_path):
    def key(body, **locale):
        (tmp_path / "mine.py").write_text(body, encoding="utf-8")
        script = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "import mine\n"
            "from crossfade.lab.trial import _source, digest\n"
            "print(digest(_source(mine.g)))"
        )
        return subprocess.run(
            [sys.executable, "-B", "-c", script, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | locale,
        ).stdout

    first = key("Q = 0.5\ndef g(ce):\n    return Q * ce\n")
    assert first == key("Q = 0.5\ndef g(ce):\n    return Q * ce\n")
    assert first != key("Q = 0.6\ndef g(ce):\n    return Q * ce\n")  # a constant beside the function
    noted = "def g(ce):  # √p\n    return ce\n"
    assert key(noted) == key(noted, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")


def test_a_loss_typed_at_a_prompt_has_a_key_that_another_process_finds_again():
    script = (
        "from crossfade.lab.trial import _source, digest\n"
        "def helper(ce): return ce\n"
        "def make(f):\n    return lambda ce: f(ce) * {factor}\n"
        "print(digest(_source(make(helper))))"
    )
    keys = [
        subprocess.run(
            [sys.executable], input=script.format(factor=factor), capture_output=True, text=True, check=True
        ).stdout
        for factor in (2, 2, 3)
    ]
    assert keys[0] == keys[1] != keys[2]
