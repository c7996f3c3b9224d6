"""The LSTM engines against a textbook loop, and what a member's result may depend on."""

import json
import os
import signal
import threading
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from crossfade.errors import UserError
from crossfade.lab.methods import Method, method
from crossfade.lab.train.epochs import epoch_batches
from crossfade.lab.train.lstm.network import LstmClassifier, initial_state
from crossfade.lab.train.lstm.plain import Training
from crossfade.lab.train.lstm.recipe import LstmMember, LstmRecipe
from crossfade.lab.train.lstm.run import train
from crossfade.lab.train.lstm.tokens import TokenPart, TokenSplit
from crossfade.lab.train.outcome import probability_scores
from crossfade.lab.trial import Shape
from crossfade.schedules import gradual
from tests.examples import examples
from tests.text.lstm_cases import close, draw, reference, same


def apart(ce):  # a loss that nothing but PyTorch can compute
    return torch.stack([value.square() for value in ce])


def assert_calibrated(history, split, recipe, scores):
    """Check the temperature of a network against SciPy's search on its weights' logits in float64."""
    net = LstmClassifier(split.vocabulary, split.classes, recipe).double()
    net.load_state_dict({name: torch.from_numpy(weight).double() for name, weight in history.weights.items()})

    def logits(part):
        texts = [torch.from_numpy(part.tokens[a:b]) for a, b in pairwise(part.offsets)]
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        with torch.no_grad():
            return scores(net(padded, torch.from_numpy(part.lengths))), torch.from_numpy(part.labels)

    (z, y), (z_test, y_test) = logits(split.val), logits(split.test)
    found, cross_entropy = history.scores, torch.nn.functional.cross_entropy
    if not found["temperature_bounded"]:
        log_t = np.log(found["temperature"])
        nll = minimize_scalar(lambda t: cross_entropy(z / np.exp(t), y).item(), bounds=(log_t - 3, log_t + 3)).fun
        assert cross_entropy(z / found["temperature"], y).item() == pytest.approx(nll, abs=1e-9)
    after = cross_entropy(z_test / found["temperature"], y_test).item()
    assert found["nll_calibrated"] == pytest.approx(after, rel=1e-4)


def centers(classes):
    """Return the corners of a regular simplex of norm 10 around 0, with an axis for each class."""
    corners = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return 10 * corners / corners.norm(dim=1, keepdim=True)


def textbook(member, recipe):
    """What nn.LSTM in float64 learns in a loop without anything of the engines': weights, losses and probabilities."""
    split, method_ = member.split, member.method
    torch.manual_seed(member.seed)
    net = LstmClassifier(split.vocabulary, split.classes, recipe).double()
    optimizer, second = (torch.optim.Adam(net.parameters(), recipe.learning_rate) for _ in range(2))

    def step_on(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
        optimizer.step()

    def examples(part, rows):
        texts = [torch.from_numpy(part.tokens[part.offsets[row] : part.offsets[row + 1]]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        return net(padded, torch.tensor([len(text) for text in texts])), torch.from_numpy(part.labels[rows])

    losses = []
    for epoch in range(recipe.epochs):
        batches = epoch_batches(member.seed, epoch, split.train.lengths, recipe.batch_size)
        lost = 0.0
        for step, rows in enumerate(batches):
            moved = step / len(batches) if recipe.granularity == "step" else 0.0
            alpha, beta = np.float32(method_.schedule((epoch + moved) / recipe.epochs)).tolist()
            logits, target = examples(split.train, rows)
            ce = torch.nn.functional.cross_entropy(logits, target, reduction="none")
            loss = (alpha * ce + beta * (1 - (-ce).exp()) if method_.g is None else method_.g(ce)).mean()
            if method_.name == "mpce":
                loss = ((logits.softmax(1).max(1).values - (-ce).exp()) * ce).mean()
            if method_.name == "mmc":
                loss = (logits - centers(split.classes)[target]).square().sum(1).mean() / 2
            if method_.name == "ce-rate-matched":
                mixed = gradual()((epoch + moved) / recipe.epochs)
                optimizer.param_groups[0]["lr"] = recipe.learning_rate * (mixed.alpha + mixed.beta / 3)
            step_on(optimizer, loss)
            if method_.name == "cot":
                logits, _ = examples(split.train, rows)
                others = torch.stack([torch.cat([z[:y], z[y + 1 :]]) for z, y in zip(logits, target, strict=True)])
                p = others.softmax(1)
                step_on(second, (p * p.log()).sum(1).mean() / split.classes)
            lost += loss.item() * len(rows)
        losses.append(lost / len(split.train))
    with torch.no_grad():
        shown = {name: examples(part, np.arange(len(part))) for name, part in split.parts.items()}
    if method_.name == "mmc":
        shown = {n: (-torch.cdist(z, centers(split.classes)).square() / 2, labels) for n, (z, labels) in shown.items()}
    scores = {
        name: ((logits.argmax(1) == labels).double().mean(), torch.nn.functional.cross_entropy(logits, labels))
        for name, (logits, labels) in shown.items()
    }
    return net.state_dict(), losses, scores, shown["test"][0].softmax(1)


@pytest.mark.parametrize("engine", ["plain", "batched"])
@pytest.mark.parametrize(
    ("chosen", "recipe"),
    [
        ("ce", LstmRecipe(10, 12, 1, epochs=2, batch_size=16, select="last")),
        ("gradual", LstmRecipe(16, 8, 2, epochs=3, batch_size=7, granularity="step", select="last")),
        ("focal", LstmRecipe(5, 19, 3, epochs=2, batch_size=16, select="last")),
        ("f0-late", LstmRecipe(50, 50, 1, epochs=2, clip=0.05, batch_size=64, select="last")),
        ("gradual", LstmRecipe(75, 75, 1, epochs=2, batch_size=200, select="last")),
        ("el", LstmRecipe(3, 100, 1, epochs=2, batch_size=1, select="last")),
        ("mpce", LstmRecipe(8, 8, 1, epochs=2, batch_size=16, select="last")),
        ("mmc", LstmRecipe(8, 8, 1, epochs=2, batch_size=16, select="last")),
        ("cot", LstmRecipe(8, 8, 1, epochs=2, batch_size=16, select="last")),
        ("ce-rate-matched", LstmRecipe(8, 8, 1, epochs=3, batch_size=16, granularity="step", select="last")),
        (Method("apart", "apart", apart), LstmRecipe(4, 4, 1, epochs=2, batch_size=16, select="last")),
    ],
)
def test_weights_and_curves_are_those_of_a_textbook_loop_in_float64(chosen, recipe, engine):
    """All of the weights, words that a batch doesn't have and words that never come included."""
    split = draw(train=20 if recipe.batch_size == 1 else 90)
    member = LstmMember(split, method(chosen) if isinstance(chosen, str) else chosen, 3)
    (ours,) = train([member], recipe, engine=engine)
    weights, losses, scores, probabilities = textbook(member, recipe)
    stacked = engine == "batched" and chosen not in ("mpce", "mmc", "cot", "ce-rate-matched")
    assert (ours.engine, ours.chosen, ours.finite) == ("batched" if stacked else "plain", recipe.epochs - 1, True)
    assert list(ours.weights) == list(weights)
    for key, weight in weights.items():
        np.testing.assert_allclose(ours.weights[key], weight, rtol=2e-6, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(ours.curves["train_loss"], losses, rtol=1e-5, atol=1e-6)
    for part in ("val", "test"):
        for name, score in zip(("accuracy", "nll"), scores[part], strict=True):
            np.testing.assert_allclose(ours.curves[f"{part}_{name}"][-1], score, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.probabilities, probabilities, atol=1e-5)
    assert_calibrated(ours, split, recipe, member.method.class_scores)
    usual = probability_scores(ours.probabilities, split.test.labels, ours.curves["test_nll"][-1])
    assert {name: ours.scores[name] for name in usual} == usual


def test_what_the_stack_cannot_train_goes_to_the_plain_engine_in_place():
    split, recipe = draw(train=30), LstmRecipe(4, 4, 1, epochs=2, batch_size=8)
    members, parts = [LstmMember(split, method(name), 3) for name in ("mpce", "ce", "cot", "focal")], []
    mixed = train(members, recipe, engine="batched", on_progress=parts.append)
    assert [history.engine for history in mixed] == ["plain", "batched", "plain", "batched"]
    for member, history in zip(members, mixed, strict=True):
        (alone,) = train([member], recipe, engine="batched")
        np.testing.assert_allclose(history.curves["train_loss"], alone.curves["train_loss"], rtol=1e-5)


@examples(12)
@given(
    hidden=st.integers(1, 41), embedding=st.integers(1, 41), layers=st.integers(1, 2), batch=st.integers(1, 20),
    longest=st.integers(1, 12), classes=st.integers(1, 6), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape(hidden, embedding, layers, batch, longest, classes, seed):
    recipe = LstmRecipe(embedding, hidden, layers, epochs=1, batch_size=batch, select="last")
    member = LstmMember(draw(seed, 23, 8, 9, 6, classes, longest), method("gradual"), seed)
    theirs = reference(member, recipe)
    for engine in ("plain", "batched"):
        close(train([member], recipe, engine=engine)[0], theirs, atol=2e-5)


def test_alone_reordered_or_on_other_threads():
    """The same bits, whatever else is trained beside it."""
    recipe = LstmRecipe(9, 11, 2, epochs=2, batch_size=16)
    crowd = [LstmMember(draw(k), method(name), seed) for k in (0, 1) for name in ("ce", "focal") for seed in (1, 2)]
    before = torch.get_num_threads()
    together = train(crowd, recipe, threads=2)
    assert torch.get_num_threads() == before
    reordered = train(crowd[::-1], recipe, threads=1)
    for a, b in zip(together, reordered[::-1], strict=True):
        same(a, b)
    same(train([crowd[5]], recipe, threads=3)[0], together[5])
    assert not np.array_equal(together[0].curves["train_loss"], together[1].curves["train_loss"])


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
    for member, together in zip(crowd, train(crowd, recipe, threads=threads), strict=True):
        same(together, train([member], recipe)[0])


def test_an_epoch_that_methods_share_is_trained_once(monkeypatch):
    trained, train_epoch = Counter(), Training.train_epoch

    def counted(training, stop):
        trained[training.member.method.title] += 1
        train_epoch(training, stop)

    monkeypatch.setattr(Training, "train_epoch", counted)
    split, done = draw(), []
    crowd = [LstmMember(split, method(name), 1) for name in ("ce", "f0", "f0-late", "gradual", "f0")]
    recipe = LstmRecipe(6, 8, epochs=10, batch_size=16, granularity="step")
    histories = train(crowd, recipe, threads=2, on_progress=done.append)
    assert trained == {"CE": 10, "CE+EL F=0": 10, "CE+EL F=0,0.5": 1, "CE+EL F=0-0.5": 9}
    assert done == sorted(done)
    assert done[-1] == 1.0
    same(histories[1], histories[4])
    assert histories[1].weights["embedding.weight"] is not histories[4].weights["embedding.weight"]
    assert histories[1].curves["val_nll"] is not histories[4].curves["val_nll"]


def test_methods_that_diverge_together():
    """Before they part: both are over, and who parts from CE earlier isn't."""
    huge = Method(
        "huge", "huge", schedule=lambda p: (1.0, 0.0) if p < 0.25 else (3e38, 3e38) if p < 0.75 else (1.0, 1.0)
    )
    also = Method("also", "also", schedule=lambda p: huge.schedule(p) if p < 0.75 else (0.0, 1.0))
    split = draw()
    members = [LstmMember(split, one, 1) for one in (huge, also, method("ce"))]
    recipe = LstmRecipe(6, 8, epochs=8, batch_size=16)
    together = train(members, recipe, threads=2)
    for member, one in zip(members, together, strict=True):
        same(one, train([member], recipe)[0])
    assert np.isnan(together[1].curves["val_nll"][2:]).all()
    assert np.isfinite(together[2].curves["val_nll"]).all()


def test_one_that_diverges_leaves_the_others_alone():
    def huge(progress):
        return (3e38, 3e38) if progress >= 0.5 else (1.0, 0.0)

    recipe = LstmRecipe(6, 8, epochs=4, batch_size=16)
    late, never = (
        Method("late", "late", schedule=huge),
        Method("never", "never", schedule=lambda progress: (3e38, 3e38)),
    )
    members = [LstmMember(draw(), chosen, 1) for chosen in (method("ce"), late, never)]
    for engine in ("batched", "plain"):
        good, late_one, bad = train(members, recipe, engine=engine)
        same(good, train(members[:1], recipe, engine=engine)[0])
        assert np.isfinite(good.curves["val_nll"]).all()
        assert np.isfinite(late_one.curves["val_nll"][:2]).all()
        assert np.isnan(late_one.curves["val_nll"][2:]).all()
        assert late_one.chosen in (0, 1)
        assert np.isfinite(late_one.weights["embedding.weight"]).all()
        assert bad.chosen == -1
        assert np.isnan(bad.curves["train_loss"]).all()
        assert np.isnan(bad.probabilities).all()
        assert all(np.isnan(weight).all() for weight in bad.weights.values())


def test_the_best_validation_epoch_or_the_last():
    member = LstmMember(draw(), method("ce"), 1)
    for engine in ("batched", "plain"):
        best, last = (
            train([member], LstmRecipe(8, 8, epochs=6, learning_rate=0.02, select=select), engine=engine)[0]
            for select in ("validation", "last")
        )
        assert best.chosen == int(best.curves["val_accuracy"].argmax())
        assert last.chosen == 5
        for one in (best, last):  # the probabilities are those of the weights that come with them
            net = LstmClassifier(member.split.vocabulary, 3, LstmRecipe(8, 8))
            net.load_state_dict({name: torch.from_numpy(value) for name, value in one.weights.items()})
            part = member.split.test
            text = torch.from_numpy(part.tokens[part.offsets[4] : part.offsets[5]].astype(np.int64))[None]
            shown = net(text, torch.tensor([text.shape[1]])).softmax(1)[0].detach().numpy()
            np.testing.assert_allclose(one.probabilities[4], shown, atol=1e-6)


def test_words_not_in_a_batch_still_move_as_adam_has_it():
    """A word's moments go on when it doesn't come; one that has never come stays where it was."""
    split = draw(train=40, vocabulary=300, longest=4)
    recipe = LstmRecipe(6, 8, epochs=1, batch_size=4, select="last")
    member = LstmMember(split, method("ce"), 0)
    (ours,) = train([member], recipe)
    start = initial_state(0, split.vocabulary, 3, recipe)["embedding.weight"].numpy()
    theirs = reference(member, recipe).weights["embedding.weight"]
    seen = np.unique(split.train.tokens)
    unseen = np.setdiff1d(np.arange(split.vocabulary), seen)
    np.testing.assert_array_equal(ours.weights["embedding.weight"][unseen], start[unseen])
    np.testing.assert_allclose(ours.weights["embedding.weight"], theirs, rtol=2e-6, atol=1e-5)
    assert np.abs(theirs[seen] - start[seen]).max() > 1e-3  # further than one step goes


@examples(40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_batches(lengths, size, seed, epoch):
    """Every example once, the longest of a batch first, the same again, another order in another epoch."""
    lengths = np.array(lengths)
    batches = epoch_batches(seed, epoch, lengths, size)
    order = np.concatenate(batches)
    assert sorted(order) == list(range(len(lengths)))
    sizes = np.array([len(batch) for batch in batches])
    assert len(sizes) == -(-len(lengths) // size)
    assert sizes.max() <= size
    assert (sizes < size).sum() <= 1
    assert all((np.diff(lengths[batch]) <= 0).all() for batch in batches)
    np.testing.assert_array_equal(order, np.concatenate(epoch_batches(seed, epoch, lengths, size)))
    if len(lengths) > 20:
        assert not np.array_equal(order, np.concatenate(epoch_batches(seed, epoch + 1, lengths, size)))


def test_the_state_is_the_modules_own():
    recipe = LstmRecipe(5, 7, 2)
    torch.manual_seed(11)
    net = LstmClassifier(13, 4, recipe)
    state, made = net.state_dict(), initial_state(11, 13, 4, recipe)
    assert list(made) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(made[name].numpy(), value.numpy(), err_msg=name)


def test_no_members():
    assert train([], LstmRecipe()) == []


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
        (lambda: train([], LstmRecipe(), engine="fast"), "engine must be one of"),
        (lambda: train([], LstmRecipe(), threads=0), "threads must be"),
        (lambda: train([], LstmRecipe(), device="abacus"), "device 'abacus' can't be used"),
    ],
)
def test_errors_are_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_ctrl_c_stops_it():
    """Some minutes of work end soon after the signal, with KeyboardInterrupt, and no thread goes on."""
    part = TokenPart(np.zeros(60000, np.int32), np.arange(0, 60001, 60), np.zeros(1000, np.int64))
    members = [LstmMember(TokenSplit(part, part, part, 1, 2), method(name), 1) for name in ("ce", "el")]
    told, sent = [], []

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def tell(fraction):
        told.append(fraction)
        if len(told) == 1:
            threading.Timer(0.3, send).start()

    with pytest.raises(KeyboardInterrupt):
        train(members, LstmRecipe(epochs=3000), threads=2, on_progress=tell)
    assert time.monotonic() - sent[0] < 10  # a second or so, on a machine without other work
    assert told[-1] < 0.1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crossfade")]
