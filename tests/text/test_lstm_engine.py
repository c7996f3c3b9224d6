"""The compiled LSTM engine against nn.LSTM with torch's Adam, and what a member's result may depend on."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import UserError
from crossfade.lab.methods import Method, method
from crossfade.lab.train.lstm.plain import LstmClassifier
from crossfade.lab.train.lstm.setup import epoch_batches, initial_state, shapes
from crossfade.lab.train.lstm.stack import train_lstm_stack
from crossfade.lab.train.lstm.types import LstmMember, LstmRecipe, TokenPart, TokenSplit
from crossfade.lab.trial import Shape
from tests.examples import examples
from tests.text.lstm_cases import CURVES, draw, reference, same


def apart(ce):  # has no compiled form
    return torch.stack([value.square() for value in ce])


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("ce", LstmRecipe(10, 12, 1, epochs=2, batch_size=16, select="last")),
        ("gradual", LstmRecipe(16, 8, 2, epochs=3, batch_size=7, granularity="step", select="last")),
        ("focal", LstmRecipe(5, 19, 3, epochs=2, batch_size=16, select="last")),
        ("f0-late", LstmRecipe(50, 50, 1, epochs=2, clip=0.05, batch_size=64, select="last")),
        ("gradual", LstmRecipe(75, 75, 1, epochs=2, batch_size=200, select="last")),
        ("el", LstmRecipe(3, 100, 1, epochs=2, batch_size=1, select="last")),
    ],
)
def test_weights_and_curves_are_those_of_the_plain_loop_in_float64(name, recipe):
    """All of the weights, words that a batch doesn't have and words that never come included."""
    member = LstmMember(draw(train=20 if recipe.batch_size == 1 else 90), method(name), 3)
    (ours,) = train_lstm_stack([member], recipe, engine="stacked")
    theirs = reference(member, recipe)
    assert (ours.engine, theirs.engine, ours.best_epoch) == ("stacked", "plain", recipe.epochs - 1)
    for key, weight in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[key], weight, rtol=2e-6, atol=1e-5, err_msg=key)
    for curve in CURVES:
        np.testing.assert_allclose(getattr(ours, curve), getattr(theirs, curve), rtol=1e-5, atol=1e-6, err_msg=curve)
    np.testing.assert_allclose(ours.test_probabilities, theirs.test_probabilities, atol=1e-5)


@examples(12)
@given(
    hidden=st.integers(1, 41), embedding=st.integers(1, 41), layers=st.integers(1, 2), batch=st.integers(1, 20),
    longest=st.integers(1, 12), classes=st.integers(1, 6), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape(hidden, embedding, layers, batch, longest, classes, seed):
    recipe = LstmRecipe(embedding, hidden, layers, epochs=1, batch_size=batch, select="last")
    member = LstmMember(draw(seed, 23, 8, 9, 6, classes, longest), method("gradual"), seed)
    (ours,) = train_lstm_stack([member], recipe, engine="stacked")
    theirs = reference(member, recipe)
    np.testing.assert_allclose(ours.train_loss, theirs.train_loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.test_probabilities, theirs.test_probabilities, atol=2e-5)


def test_alone_reordered_or_on_other_threads():
    """The same bits, whatever else is in the stack."""
    recipe = LstmRecipe(9, 11, 2, epochs=2, batch_size=16)
    crowd = [LstmMember(draw(k), method(name), seed) for k in (0, 1) for name in ("ce", "focal") for seed in (1, 2)]
    together = train_lstm_stack(crowd, recipe, engine="stacked", threads=2)
    reordered = train_lstm_stack(crowd[::-1], recipe, engine="stacked", threads=1)
    for a, b in zip(together, reordered[::-1], strict=True):
        same(a, b)
    same(train_lstm_stack([crowd[5]], recipe, engine="stacked", threads=3)[0], together[5])
    assert not np.array_equal(together[0].train_loss, together[1].train_loss)


def parting(at, after):
    """CE until a part of the training, then something else."""
    return Method(f"{at} {after}", "parting", schedule=lambda progress: (1.0, 0.0) if progress < at else after)


@examples(15)
@given(
    parts=st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]), st.sampled_from([(1.0, 1.0), (0.0, 1.0)]))),
    names=st.sets(st.sampled_from(["ce", "f0", "f0-late", "gradual", "focal"])), seeds=st.sets(st.integers(0, 1)),
    epochs=st.integers(1, 7), threads=st.integers(1, 3), by_step=st.booleans(),
    select=st.sampled_from(["last", "validation"]),
)  # fmt: skip
def test_what_methods_share_is_what_each_would_be_alone(parts, names, seeds, epochs, threads, by_step, select):
    granularity = "step" if by_step else "epoch"
    recipe = LstmRecipe(5, 6, epochs=epochs, batch_size=16, granularity=granularity, select=select, learning_rate=0.01)
    methods = [*(method(name) for name in sorted(names)), *(parting(*part) for part in parts[:3])]
    split = draw(train=40)
    crowd = [LstmMember(split, one, seed) for one in methods for seed in seeds]
    for member, together in zip(crowd, train_lstm_stack(crowd, recipe, engine="stacked", threads=threads), strict=True):
        same(together, train_lstm_stack([member], recipe, engine="stacked")[0])


def test_a_step_that_methods_share_is_trained_once(monkeypatch):
    from crossfade.lab.train.lstm import threads as lstm_threads

    trained, train = [], lstm_threads.compiled()

    class Counted:
        compile = train.compile

        def __call__(self, *arguments):
            trained.append(arguments[-1][:2])
            return train(*arguments)

    monkeypatch.setattr(lstm_threads, "compiled", Counted)
    split, done = draw(), []
    crowd = [LstmMember(split, method(name), 1) for name in ("ce", "f0", "f0-late", "gradual", "f0")]
    recipe = LstmRecipe(6, 8, epochs=10, batch_size=16, granularity="step")
    histories = train_lstm_stack(crowd, recipe, engine="stacked", threads=2, on_progress=done.append)
    # CE; F = 0 until the fade parts from it, until EL alone begins, to its end; the fade; F = 0, 0.5; F = 0 once more
    assert sorted(trained) == [(0, 10), (0, 60), (10, 57), (10, 60), (57, 60), (57, 60)]
    assert done == sorted(done)
    assert done[-1] == 1.0
    same(histories[1], histories[4])
    assert histories[1].weights["embedding.weight"] is not histories[4].weights["embedding.weight"]


def test_methods_that_diverge_together():
    """Before they part: both are over, and who parts from CE earlier isn't."""
    huge = Method(
        "huge", "huge", schedule=lambda p: (1.0, 0.0) if p < 0.25 else (3e38, 3e38) if p < 0.75 else (1.0, 1.0)
    )
    also = Method("also", "also", schedule=lambda p: huge.schedule(p) if p < 0.75 else (0.0, 1.0))
    split = draw()
    members = [LstmMember(split, one, 1) for one in (huge, also, method("ce"))]
    recipe = LstmRecipe(6, 8, epochs=8, batch_size=16)
    together = train_lstm_stack(members, recipe, engine="stacked", threads=2)
    for member, one in zip(members, together, strict=True):
        same(one, train_lstm_stack([member], recipe, engine="stacked")[0])
    assert np.isnan(together[1].val_nll[2:]).all()
    assert np.isfinite(together[2].val_nll).all()


def test_one_that_diverges_leaves_the_others_alone():
    def huge(progress):
        return (3e38, 3e38) if progress >= 0.5 else (1.0, 0.0)

    recipe = LstmRecipe(6, 8, epochs=4, batch_size=16)
    late, never = (
        Method("late", "late", schedule=huge),
        Method("never", "never", schedule=lambda progress: (3e38, 3e38)),
    )
    members = [LstmMember(draw(), chosen, 1) for chosen in (method("ce"), late, never)]
    for engine in ("stacked", "plain"):
        good, late_one, bad = train_lstm_stack(members, recipe, engine=engine)
        same(good, train_lstm_stack(members[:1], recipe, engine=engine)[0])
        assert np.isfinite(good.val_nll).all()
        assert np.isfinite(late_one.val_nll[:2]).all()
        assert np.isnan(late_one.val_nll[2:]).all()
        assert late_one.best_epoch in (0, 1)
        assert np.isfinite(late_one.weights["embedding.weight"]).all()
        assert bad.best_epoch == -1
        assert np.isnan(bad.train_loss).all()
        assert np.isnan(bad.test_probabilities).all()
        assert all(np.isnan(weight).all() for weight in bad.weights.values())


def test_the_best_validation_epoch_or_the_last():
    member = LstmMember(draw(), method("ce"), 1)
    for engine in ("stacked", "plain"):
        best, last = (
            train_lstm_stack([member], LstmRecipe(8, 8, epochs=6, learning_rate=0.02, select=select), engine=engine)[0]
            for select in ("validation", "last")
        )
        assert best.best_epoch == int(best.val_accuracy.argmax())
        assert last.best_epoch == 5
        for one in (best, last):  # the probabilities are those of the weights that come with them
            net = LstmClassifier(member.split.vocabulary, 3, LstmRecipe(8, 8))
            net.load_state_dict({name: torch.from_numpy(value) for name, value in one.weights.items()})
            part = member.split.test
            text = torch.from_numpy(part.tokens[part.offsets[4] : part.offsets[5]].astype(np.int64))[None]
            shown = net(text, torch.tensor([text.shape[1]])).softmax(1)[0].detach().numpy()
            np.testing.assert_allclose(one.test_probabilities[4], shown, atol=1e-6)


def test_words_not_in_a_batch_still_move_as_adam_has_it():
    """A word's moments go on when it doesn't come; one that has never come stays where it was."""
    split = draw(train=40, vocabulary=300, longest=4)
    recipe = LstmRecipe(6, 8, epochs=1, batch_size=4, select="last")
    member = LstmMember(split, method("ce"), 0)
    (ours,) = train_lstm_stack([member], recipe, engine="stacked")
    start = initial_state(0, split.vocabulary, 3, recipe)["embedding.weight"]
    theirs = reference(member, recipe).weights["embedding.weight"]
    seen = np.unique(split.train.tokens)
    unseen = np.setdiff1d(np.arange(split.vocabulary), seen)
    np.testing.assert_array_equal(ours.weights["embedding.weight"][unseen], start[unseen])
    np.testing.assert_allclose(ours.weights["embedding.weight"], theirs, rtol=2e-6, atol=1e-5)
    assert np.abs(theirs[seen] - start[seen]).max() > 1e-3  # further than one step goes


def test_a_loss_without_compiled_form_goes_to_the_plain_loop(caplog):
    recipe = LstmRecipe(4, 4, epochs=1)
    members = [LstmMember(draw(), chosen, 1) for chosen in (Method("apart", "apart", apart), method("ce"))]
    seen = []
    slow, fast = train_lstm_stack(members, recipe, on_progress=seen.append)
    assert (slow.engine, fast.engine) == ("plain", "stacked")
    assert "apart trains in the plain loop" in caplog.text
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    with pytest.raises(UserError, match="can't train 'apart', take 'auto'"):
        train_lstm_stack(members, recipe, engine="stacked")


@examples(40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_batches(lengths, size, seed, epoch):
    """Every example once, the longest of a batch first, the same again, another order in another epoch."""
    lengths = np.array(lengths)
    order, starts = epoch_batches(seed, epoch, lengths, size)
    assert sorted(order) == list(range(len(lengths)))
    sizes = np.diff(starts)
    assert len(sizes) == -(-len(lengths) // size)
    assert sizes.max() <= size
    assert (sizes < size).sum() <= 1
    for a, b in pairwise(starts):
        assert (np.diff(lengths[order[a:b]]) <= 0).all()
    np.testing.assert_array_equal(order, epoch_batches(seed, epoch, lengths, size)[0])
    if len(lengths) > 20:
        assert not np.array_equal(order, epoch_batches(seed, epoch + 1, lengths, size)[0])


def test_the_state_is_the_modules_own():
    recipe = LstmRecipe(5, 7, 2)
    torch.manual_seed(11)
    net = LstmClassifier(13, 4, recipe)
    state, made = net.state_dict(), initial_state(11, 13, 4, recipe)
    assert {name: tuple(value.shape) for name, value in state.items()} == shapes(13, 4, recipe)
    for name, value in state.items():
        np.testing.assert_array_equal(made[name], value.numpy(), err_msg=name)


def test_no_test_part():
    split = draw(test=0)
    for engine in ("stacked", "plain"):
        (one,) = train_lstm_stack([LstmMember(split, method("ce"), 1)], LstmRecipe(4, 4, epochs=2), engine=engine)
        assert one.test_probabilities.shape == (0, 3)
        assert np.isnan(one.test_nll).all()
        assert np.isfinite(one.val_nll).all()


def test_no_members():
    assert train_lstm_stack([], LstmRecipe()) == []


def test_recipe_round_trip():
    recipe = LstmRecipe(75, 75, 1, granularity="step", clip=1.0)
    assert LstmRecipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.learning_rates == (1e-3,)
    assert recipe.cost(Shape(7, 0, 5)) == 21 * recipe.weights(5) * recipe.epochs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LstmRecipe(hidden=0), "hidden must be a whole number"),
        (lambda: LstmRecipe(layers=5), "layers must be at most 4"),
        (lambda: LstmRecipe(clip=-1.0), "clip must be"),
        (lambda: LstmRecipe(learning_rate=0.0), "learning_rate must be"),
        (lambda: LstmRecipe(select="best"), "select must be one of"),
        (lambda: TokenPart([1, 2], [0, 0, 2], [0, 1]), "at least one token, example 0"),
        (lambda: TokenPart([1, 2], [0, 1], [0]), "offsets must run from 0 to 2"),
        (lambda: TokenSplit(*[TokenPart([1], [0, 1], [3])] * 3, 2, 3), "class numbers in \\[0, 3\\)"),
        (lambda: TokenSplit(*[TokenPart([7], [0, 1], [0])] * 3, 2, 3), "token numbers in \\[0, 2\\)"),
        (lambda: LstmMember(draw(), method("ce"), -1), "seed must be"),
        (lambda: train_lstm_stack([], LstmRecipe(), engine="fast"), "engine must be one of"),
        (lambda: train_lstm_stack([], LstmRecipe(), threads=0), "threads must be"),
        (lambda: train_lstm_stack([], LstmRecipe(), device="abacus"), "device 'abacus' can't be used"),
    ],
)
def test_errors_are_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_ctrl_c_stops_it():
    """Some minutes of work end soon after the signal, with KeyboardInterrupt."""
    code = (
        "import numpy as np\n"
        "from crossfade.lab.methods import method\n"
        "from crossfade.lab.train.lstm.stack import train_lstm_stack\n"
        "from crossfade.lab.train.lstm.types import *\n"
        "part = TokenPart(np.zeros(60000), np.arange(0, 60001, 60), np.zeros(1000))\n"
        "split = TokenSplit(part, part, part, 1, 2)\n"
        "told = []\n"
        "def tell(fraction):\n"
        "    if not told: print('running', flush=True)\n"
        "    told.append(fraction)\n"
        "train_lstm_stack([LstmMember(split, method('ce'), 1)], LstmRecipe(epochs=3000), on_progress=tell)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout.readline() == "running\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0
