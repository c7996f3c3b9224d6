"""The engines against the plain loop, the plain loop against PyTorch written out, and all of it against float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from crossfade.lab.methods import METHODS, Method, method
from crossfade.lab.train import Member, Recipe, Split, train_stack
from crossfade.lab.train.outcome import chosen_epoch
from crossfade.lab.train.tables.plain import network
from crossfade.lab.train.tables.setup import initial_weights, row_orders, state_dict
from crossfade.schedules import constant, gradual, linear, staircase, switch
from tests.examples import examples

FAST = ("kernel", "batched")
SCHEDULES = {
    "linear": linear(),
    "switch": switch(0.1, 0.4, at=0.5),
    "staircase": staircase([0.0, 0.25, 0.5], scale="unit"),
    "constant": constant(0.3),
}


def assert_agree(split, fast, plain, tolerance):
    for name in ("train_loss", "val_nll", "test_nll"):
        # mmc's scores are as large as its centres
        np.testing.assert_allclose(fast.curves[name], plain.curves[name], rtol=1e-6, atol=tolerance, err_msg=name)
    for part in ("val", "test"):  # a row may sit on the boundary
        counts = [h.curves[f"{part}_accuracy"] * len(getattr(split, f"y_{part}")) for h in (fast, plain)]
        assert np.nan_to_num(np.abs(counts[0] - counts[1])).max() < 1.5
    assert fast.finite
    assert plain.finite
    assert list(fast.weights) == list(plain.weights)
    if fast.chosen == plain.chosen:
        np.testing.assert_allclose(fast.probabilities, plain.probabilities, rtol=0, atol=tolerance)
        for name in fast.weights:
            np.testing.assert_allclose(fast.weights[name], plain.weights[name], rtol=0, atol=tolerance)


def assert_engines_agree(members, recipe, tolerance):
    plain = train_stack(members, recipe, engine="plain")
    for engine in FAST:
        for member, fast, slow in zip(members, train_stack(members, recipe, engine=engine), plain, strict=True):
            assert fast.engine == engine
            assert_agree(member.split, fast, slow, tolerance)


@pytest.mark.parametrize("chosen", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_every_method_walks_like_the_plain_loop(make_split, chosen, net):
    members = [Member(make_split(rows=30), chosen, rate, seed) for rate, seed in ((0.01, 1), (0.05, 2))]
    assert_engines_agree(members, Recipe(net=net, epochs=6), 1e-5)


@pytest.mark.parametrize("granularity", ["epoch", "step"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_at_both_granularities(make_split, name, granularity):
    chosen = Method(name, name, schedule=SCHEDULES[name])
    assert_engines_agree([Member(make_split(), chosen, 0.02, 3)], Recipe(epochs=5, granularity=granularity), 1e-5)


@pytest.mark.parametrize("granularity", ["epoch", "step"])
@pytest.mark.parametrize("name", ["ce", "gradual", "focal", "ce-cosine"])
def test_a_rate_that_falls_as_a_cosine_in_every_engine(make_split, name, granularity):
    recipe = Recipe(epochs=6, depth=2, lr_schedule="cosine", granularity=granularity, weight_decay=0.01)
    assert_engines_agree([Member(make_split(rows=30), method(name), 0.05, 2)], recipe, 1e-5)


@pytest.mark.parametrize("features", [1, 7, 8, 9, 16, 24, 33, 70])
@pytest.mark.parametrize("classes", [2, 3, 8, 17, 30])
def test_every_step(make_split, features, classes):
    """One batch an epoch, so the curves are those of single steps."""
    split = make_split(features, classes, rows=6)
    for recipe in (Recipe(net="linear", epochs=4), Recipe(epochs=4), Recipe(epochs=4, depth=2, weight_decay=0.01)):
        assert_engines_agree([Member(split, method("gradual"), 0.05, 0)], recipe, 1e-5)


@examples(20)
@given(data=st.data())
def test_any_shape(make_split, data):
    def pick(*choices):
        return data.draw(st.sampled_from(choices))

    rows = data.draw(st.integers(1, 40))
    split = make_split(
        data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20)), rows, data.draw(st.integers(1, 19)),
        data.draw(st.integers(0, 19)), data.draw(st.integers(0, 99)),
    )  # fmt: skip
    recipe = Recipe(
        net=pick("linear", "mlp"), width=pick(None, 1, 5, 16, 31), depth=pick(1, 2, 3), epochs=3,
        batch_size=pick(1, 5, 8, 16, 21), momentum=pick(0.0, 0.9), weight_decay=pick(0.0, 0.05),
        granularity=pick("epoch", "step"), tie=pick("first", "last", "loss"), lr_schedule=pick("constant", "cosine"),
    )  # fmt: skip
    chosen = method(pick("ce", "gradual", "focal", "tce", "ce-cosine"))
    members = [Member(split, chosen, 0.02, data.draw(st.integers(0, 2**62)))]
    assert_engines_agree(members, recipe, 2e-5)


def shipped(load):
    x, y = load(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, stratify=y, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.25, stratify=y, random_state=0)
    scale = StandardScaler().fit(x)
    return Split(scale.transform(x), y, scale.transform(x_val), y_val, scale.transform(x_test), y_test, y.max() + 1)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits])
@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_real_data(load, net):
    """A thousand steps or so on real rows; roundings have time to grow, so the bound is wider."""
    epochs = 3 if load is load_digits else 12
    assert_engines_agree([Member(shipped(load), method("gradual"), 0.01, 0)], Recipe(net=net, epochs=epochs), 2e-4)


@pytest.mark.parametrize("tie", ["first", "last", "loss"])
def test_the_chosen_epoch_is_the_one_the_tie_break_says(make_split, tie):
    split = make_split(val=5)  # few rows: many ties
    for engine in (*FAST, "plain"):
        members = [Member(split, method("f0"), 0.02, seed) for seed in range(6)]
        for h in train_stack(members, Recipe(epochs=15, tie=tie), engine=engine):
            accuracy, nll = h.curves["val_accuracy"], h.curves["val_nll"]
            tied = [e for e in range(15) if accuracy[e] == accuracy.max()]
            expected = {"first": tied[0], "last": tied[-1], "loss": min(tied, key=lambda e: nll[e])}[tie]
            assert h.chosen == expected == chosen_epoch(accuracy, nll, tie)


@pytest.mark.parametrize("engine", [*FAST, "plain"])
@pytest.mark.parametrize("recipe", [Recipe(net="linear", epochs=8), Recipe(epochs=8, depth=2, width=11)])
def test_what_is_reported_is_what_the_weights_do(make_split, engine, recipe):
    split = make_split(5, 4)
    (h,) = train_stack([Member(split, method("gradual"), 0.02, 0)], recipe, engine=engine)

    def log_p(x):
        x = x.astype(np.float64)
        weights = list(h.weights.values())
        for n in range(0, len(weights), 2):
            x = x @ weights[n].astype(np.float64).T + weights[n + 1]
            x = x if n == len(weights) - 2 else np.maximum(x, 0.0)
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    for part, x, y in (("val", split.x_val, split.y_val), ("test", split.x_test, split.y_test)):
        expected = log_p(x)
        assert h.curves[f"{part}_accuracy"][h.chosen] == (expected.argmax(1) == y).mean()
        nll = h.curves[f"{part}_nll"][h.chosen]
        assert nll == pytest.approx(-expected[np.arange(len(y)), y].mean(), abs=1e-6)
    np.testing.assert_allclose(h.probabilities, np.exp(log_p(split.x_test)), rtol=0, atol=1e-6)
    assert h.probabilities.dtype == np.float32
    with torch.no_grad():
        probabilities = network(h.weights)(torch.tensor(split.x_test)).softmax(1)
    np.testing.assert_allclose(h.probabilities, probabilities, rtol=0, atol=1e-6)


def test_the_plain_loop_is_pytorchs(make_split):
    """Seed, default initialisation, SGD, cross entropy: written out as one would without this package."""
    split = make_split(rows=30)
    (h,) = train_stack([Member(split, method("ce"), 0.05, 7)], Recipe(epochs=4, tie="last"), engine="plain")
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.tensor(split.x_train), torch.tensor(split.y_train)
    orders = np.random.default_rng(7).permuted(np.tile(np.arange(30, dtype=np.int32), (4, 1)), axis=1)
    for epoch in range(4):
        total = 0.0
        for rows in torch.tensor(orders[epoch]).split(8):
            loss = F.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        assert h.curves["train_loss"][epoch] == pytest.approx(total / 30, abs=1e-7)
        nll = F.cross_entropy(net(torch.tensor(split.x_test)), torch.tensor(split.y_test)).item()
        assert h.curves["test_nll"][epoch] == pytest.approx(nll, abs=1e-7)


def mpce_by_hand(z, y):
    p = z.softmax(1)
    own = p.gather(1, y[:, None])[:, 0]
    return ((p.max(1).values - own) * -own.log()).mean(), z


def mmc_by_hand(z, y):
    """Return half the squared distance to the centres, a regular simplex of norm 10 around 0, and the scores."""
    corners = torch.eye(3) - 1 / 3
    apart = (z[:, None] - 10 * corners / corners.norm(dim=1, keepdim=True)).square().sum(2) / 2
    return apart.gather(1, y[:, None]).mean(), -apart


def complement_by_hand(z, y):
    others = z[torch.arange(3) != y[:, None]].view(-1, 2).softmax(1)
    return (others * others.log()).sum(1).mean() / 3


@pytest.mark.parametrize("engine", [*FAST, "plain"])
@pytest.mark.parametrize("name", ["mpce", "mmc", "cot", "ce-rate-matched"])
def test_rivals_are_what_one_would_write_in_pytorch(make_split, engine, name):
    split, epochs = make_split(rows=30), 6
    (h,) = train_stack([Member(split, method(name), 0.05, 7)], Recipe(epochs=epochs), engine=engine)
    net = network(state_dict([weight.copy() for weight in initial_weights(7, (4, 4, 3))]))
    first, second = (torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9) for _ in range(2))
    x, y = torch.tensor(split.x_train), torch.tensor(split.y_train)
    by_hand = {"mpce": mpce_by_hand, "mmc": mmc_by_hand}.get(name, lambda z, y: (F.cross_entropy(z, y), z))
    for epoch, order in enumerate(torch.tensor(row_orders(7, 30, epochs))):
        alpha, beta = gradual()(epoch / epochs)
        for group in first.param_groups if name == "ce-rate-matched" else ():
            group["lr"] = 0.05 * (alpha + beta / 3)
        for rows in order.split(8):
            first.zero_grad()
            by_hand(net(x[rows]), y[rows])[0].backward()
            first.step()
            if name == "cot":
                second.zero_grad()
                complement_by_hand(net(x[rows]), y[rows]).backward()
                second.step()
        with torch.no_grad():
            labels = torch.tensor(split.y_test)
            _, scores = by_hand(net(torch.tensor(split.x_test)), labels)
        assert h.curves["test_nll"][epoch] == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)
        assert h.curves["test_accuracy"][epoch] == pytest.approx((scores.argmax(1) == labels).double().mean().item())


@pytest.mark.parametrize("engine", [*FAST, "plain"])
@pytest.mark.parametrize("granularity", ["epoch", "step"])
def test_the_cosine_is_pytorchs(make_split, engine, granularity):
    """``CosineAnnealingLR`` in a loop written out; the method and the recipe's option give the same network."""
    split, epochs, rows = make_split(rows=30), 7, 30
    recipe = Recipe(epochs=epochs, granularity=granularity)
    falling = Recipe(epochs=epochs, granularity=granularity, lr_schedule="cosine")
    (by_name,) = train_stack([Member(split, method("ce-cosine"), 0.1, 7)], recipe, engine=engine)
    both = train_stack([Member(split, method(name), 0.1, 7) for name in ("ce", "ce-cosine")], falling, engine=engine)
    net = network(state_dict([weight.copy() for weight in initial_weights(7, (4, 4, 3))]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    moves = epochs if granularity == "epoch" else epochs * 4
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=moves)
    x, y = torch.tensor(split.x_train), torch.tensor(split.y_train)
    orders, expected = torch.tensor(row_orders(7, rows, epochs)), []
    for order in orders:
        for batch in order.split(8):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            if granularity == "step":
                schedule.step()
        if granularity == "epoch":
            schedule.step()
        expected.append(F.cross_entropy(net(torch.tensor(split.x_val)), torch.tensor(split.y_val)).item())
    for h in (by_name, *both):
        np.testing.assert_allclose(h.curves["val_nll"], expected, rtol=0, atol=1e-5)
    (constant_rate,) = train_stack([Member(split, method("ce"), 0.1, 7)], recipe, engine=engine)
    assert np.abs(constant_rate.curves["val_nll"] - expected).max() > 1e-3


def test_training_learns(make_split):
    """All engines could agree on nothing."""
    split = make_split(6, 3, rows=400, val=200, test=200)
    for net in ("linear", "mlp"):
        (h,) = train_stack([Member(split, method("gradual"), 0.01, 0)], Recipe(net=net, epochs=20))
        guess = np.bincount(split.y_test).max() / len(split.y_test)
        assert h.curves["test_accuracy"][h.chosen] > 1.25 * guess
        assert h.curves["train_loss"][0] > h.curves["train_loss"][6]  # both within F = 0


@pytest.mark.parametrize("engine", [*FAST, "plain"])
def test_no_test_rows(make_split, engine):
    (h,) = train_stack([Member(make_split(test=0), method("f0"), 0.01, 0)], Recipe(epochs=3), engine=engine)
    assert h.probabilities.shape == (0, 3)
    assert h.finite
    assert np.isnan(h.curves["test_accuracy"]).all()
    assert np.isnan(h.curves["test_nll"]).all()
