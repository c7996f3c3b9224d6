"""Fine-tuning against a loop written out by hand, in pieces, over processes' shares, and after a kill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade.functional import crossfade_loss
from crossfade.lab.data.texts import TextPart, TextTask
from crossfade.lab.methods import method
from crossfade.lab.nets.pretrained import load_classifier
from crossfade.lab.train.deep.feeds import Place, TextFeed, epoch_seed
from crossfade.lab.train.deep.recipe import TextRecipe
from crossfade.lab.train.deep.record import Outputs
from tests.examples import examples
from tests.images.deep_cases import rows, train, without_dropout


@pytest.fixture(scope="module")
def split(few):
    return TextTask(few, "last").split(0)


@pytest.fixture
def recipe(bert):
    return TextRecipe(bert, epochs=2, batch_size=20, learning_rate=1e-3, max_length=32, clip=0.5)


def flat(weights) -> torch.Tensor:
    return torch.cat([value.detach().flatten().double() for value in weights.values()])


def by_hand(split, recipe, name, seed):
    """AdamW, the linear rate, the clip and the mixture's weights, step by step."""
    torch.manual_seed(epoch_seed(seed, 0, "weights"))
    net = load_classifier(recipe.model, split.classes)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    batches = TextFeed(split.train, recipe, seed, Place(torch.device("cpu")))
    total = recipe.epochs * len(batches)
    for epoch in range(recipe.epochs):
        batches.set_epoch(epoch)
        torch.manual_seed(epoch_seed(seed, epoch, "dropout 0"))
        for step, (x, y, _, _) in enumerate(batches):
            done = (epoch * len(batches) + step) / total
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * (1 - done)
            alpha, beta = method(name).schedule(done)
            optimizer.zero_grad()
            crossfade_loss(net(**x).logits, y, alpha=alpha, beta=beta).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            optimizer.step()
    return net


@pytest.mark.parametrize("name", ["ce", "gradual"])
def test_the_loop_written_out(split, recipe, name):
    ours = train(split, method(name), recipe, seed=5)
    torch.testing.assert_close(flat(ours.last), flat(by_hand(split, recipe, name, 5).state_dict()), rtol=0, atol=1e-6)
    assert rows(ours)[-1]["test_nll"] != rows(ours)[0]["test_nll"]


def test_mixed_precision(split, recipe):
    """With its gradient limited, and pieces of a batch; near what float32 gives."""
    recipe = replace(recipe, epochs=1)
    whole = train(split, method("gradual"), recipe, seed=5)
    for pieces in (1, 2):
        mixed = replace(recipe, precision="bf16-mixed", accumulate=pieces)
        found = train(split, method("gradual"), mixed, seed=5)
        assert rows(found)[0]["train_loss"] == pytest.approx(rows(whole)[0]["train_loss"], rel=0.05)
        assert not torch.equal(flat(found.last), flat(whole.last))


def test_a_batch_in_pieces_is_the_batch(split, recipe, tmp_path):
    model = without_dropout(recipe.model, tmp_path / "model")  # pieces would draw other masks
    plain = replace(recipe, model=model, epochs=1, clip=0.5)
    whole = train(split, method("gradual"), plain, seed=1)
    for pieces in (2, 3, 7):
        parts = train(split, method("gradual"), replace(plain, accumulate=pieces), seed=1)
        torch.testing.assert_close(flat(parts.last), flat(whole.last), rtol=0, atol=2e-5)
        assert rows(parts)[-1]["train_loss"] == pytest.approx(rows(whole)[-1]["train_loss"], rel=1e-4)


def test_killed_and_resumed_is_undisturbed(split, recipe, tmp_path):
    whole = train(split, method("gradual"), recipe, seed=2)
    train(split, method("gradual"), recipe, seed=2, folder=tmp_path, max_epochs=1)
    resumed = train(split, method("gradual"), recipe, seed=2, folder=tmp_path)
    assert torch.equal(flat(whole.last), flat(resumed.last))
    assert rows(whole) == rows(resumed)


@examples(20)
@given(size=st.integers(1, 40), pieces=st.integers(1, 5), world=st.integers(1, 3), epoch=st.integers(0, 3))
def test_every_example_counts_once(bert, sentences, size, pieces, world, epoch):
    size = max(size, pieces)
    part = TextPart(tuple(sentences["sentence"][:57]), np.arange(57) % 4)
    recipe = TextRecipe(bert, batch_size=size, accumulate=pieces, max_length=32)
    every = [TextFeed(part, recipe, 3, Place(torch.device("cpu"), rank, world)) for rank in range(world)]
    for batches in every:
        batches.set_epoch(epoch)
    seen, lists = np.zeros(57), [list(batches) for batches in every]
    assert {len(found) for found in lists} == {len(every[0])}
    for at in range(0, len(lists[0]), pieces):
        group = [batch for found in lists for batch in found[at : at + pieces]]
        rows = sum(len(index) for _, _, index, share in group if share)
        for _, labels, index, share in group:
            assert labels.tolist() == (index % 4).tolist()
            # mean over the rows here, times share, over pieces and processes: each row weighs 1 / rows
            if share:
                assert share / len(index) / pieces / world == pytest.approx(1 / rows)
                seen[index] += 1
    assert (seen == 1).all()


def test_f1_and_correlation_are_scikit_learns():
    from sklearn.metrics import f1_score, matthews_corrcoef

    rng = np.random.default_rng(0)
    for classes in (2, 4):
        labels, logits = rng.integers(classes, size=90), rng.normal(size=(90, classes))
        found = Outputs(torch.from_numpy(logits), torch.from_numpy(labels)).scores()
        predicted = logits.argmax(1)
        average = "binary" if classes == 2 else "macro"
        assert found["f1"] == pytest.approx(f1_score(labels, predicted, average=average))
        assert found["mcc"] == pytest.approx(matthews_corrcoef(labels, predicted))


def test_the_rate_rises_and_falls():
    recipe = TextRecipe(epochs=4, warmup=0.25, learning_rate=1e-4)
    assert [recipe.rate(epoch) for epoch in (0, 0.5, 1, 2.5, 4)] == pytest.approx([0, 5e-5, 1e-4, 5e-5, 0])
