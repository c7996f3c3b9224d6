"""The training loop against one written out by hand, against itself after a kill, and against other ways to run it."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.optimize import minimize_scalar
from torchmetrics.classification import MulticlassCalibrationError

from crossfade.errors import UserError
from crossfade.functional import focal_loss
from crossfade.lab.data.images import ImageTask
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import Method, gradient_volume, rate_factor
from crossfade.lab.nets import build
from crossfade.lab.scores import brier_score, expected_calibration_error
from crossfade.lab.train.deep.augment import Pixels
from crossfade.lab.train.deep.feeds import ImageFeed, Place, epoch_seed
from crossfade.lab.train.deep.lightning import Classifier
from crossfade.lab.train.deep.network import Job, build_network
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.train.deep.record import Outputs
from crossfade.schedules import Weights, gradual
from tests.examples import examples
from tests.images.deep_cases import CPU, rows, train
from tests.images.image_cases import method


def weights(history) -> dict[str, torch.Tensor]:
    return dict(history.last)


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))


def by_hand(task: ImageTask, recipe: ImageRecipe, seed: int, loss, second=None) -> torch.nn.Module:
    """Plain PyTorch: SGD, the steps of the learning rate, dropout's seed; ``loss(logits, labels, progress)``."""
    split = task.split(0)
    torch.manual_seed(epoch_seed(seed, 0, "weights"))
    net = build(recipe.net, split.classes, dropout=recipe.dropout).to(memory_format=torch.channels_last)
    options = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    optimizers = [torch.optim.SGD(net.parameters(), recipe.learning_rate, **options) for _ in range(2)]
    batches = ImageFeed(split.train, split, recipe, seed, Place(torch.device("cpu")))
    for epoch in range(recipe.epochs):
        batches.set_epoch(epoch)
        torch.manual_seed(epoch_seed(seed, epoch, "dropout 0"))
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * 0.1 ** sum(epoch >= m for m in recipe.milestones)
        for x, y, _, _ in batches:
            x = x.contiguous(memory_format=torch.channels_last)
            for optimizer, objective in zip(optimizers, [loss, second] if second else [loss], strict=False):
                optimizer.zero_grad()
                objective(net(x), y, epoch / recipe.epochs).backward()
                optimizer.step()
    return net


def agree(history, net: torch.nn.Module) -> None:
    for name, value in net.state_dict().items():
        torch.testing.assert_close(weights(history)[name], value, atol=1e-5, rtol=1e-4)


def ce(logits, labels, progress):
    return F.cross_entropy(logits, labels)


def test_ce_is_plain_pytorch(task, recipe):
    agree(train(task.split(0), method("ce"), recipe, seed=3), by_hand(task, recipe, 3, ce))


def test_the_gradual_mixture_moves_with_the_epoch(task, recipe):
    def mixture(logits, labels, progress):
        alpha, beta = gradual()(progress)
        p = torch.softmax(logits, 1).gather(1, labels[:, None]).squeeze(1)
        return (-alpha * p.log() + beta * (1 - p)).mean()

    agree(train(task.split(0), method("gradual"), recipe, seed=3), by_hand(task, recipe, 3, mixture))


def test_any_loss_of_ce(task, recipe):
    focal = Method("own", "own", g=lambda ce: 0.25 * (1 - torch.exp(-ce)) ** 2 * ce)
    history = train(task.split(0), focal, recipe, seed=3)
    agree(history, by_hand(task, recipe, 3, lambda logits, y, _: focal_loss(logits, y, gamma=2.0, alpha=0.25)))


def test_cot_takes_two_passes_and_two_steps(task, recipe):
    """Eq. (6) written out: the entropy of the other classes' probabilities, divided by their number, maximised."""

    def complement(logits, labels, progress):
        p = torch.softmax(logits, 1)
        own = F.one_hot(labels, p.shape[1]).bool()
        rest = p.masked_fill(own, 0.0) / (1 - p[own])[:, None]
        return (rest * rest.clamp_min(1e-12).log()).sum(1).mean() / p.shape[1]

    history = train(task.split(0), method("cot"), recipe, seed=3)
    agree(history, by_hand(task, recipe, 3, ce, complement))


def test_mpce_is_the_gap_to_the_likeliest_class_times_ce(task, recipe):
    def mpce(logits, labels, progress):
        p = torch.softmax(logits, 1)
        own = p.gather(1, labels[:, None]).squeeze(1)
        return ((p.max(1).values - own) * -own.log()).mean()

    agree(train(task.split(0), method("mpce"), recipe, seed=3), by_hand(task, recipe, 3, mpce))


def test_mmc_learns_features_and_predicts_the_nearest_centre(task, recipe):
    corners = torch.eye(4) - 1 / 4
    centers = 10 * corners / corners.norm(dim=1, keepdim=True)

    def to_center(features, labels, progress):
        return (features - centers[labels]).square().sum(1).mean() / 2

    split = task.split(0)
    history = train(split, method("mmc"), recipe, seed=3)
    net = by_hand(task, recipe, 3, to_center)
    agree(history, net)
    with torch.no_grad():
        pixels = Pixels(split.test.images, split.mean, split.std).batch(torch.arange(len(split.test)))
        distances = torch.cdist(net.eval()(pixels), centers).square() / 2
    assert history.curves["test_accuracy"][-1] == (distances.argmin(1) == split.test.labels).double().mean()
    assert history.curves["test_nll"][-1] == pytest.approx(
        F.cross_entropy(-distances, split.test.labels).item(), rel=1e-3
    )


def test_a_scaled_rate_is_a_scaled_rate(task, recipe):
    once = replace(recipe, epochs=1, milestones=())
    factor = rate_factor(0.0, own=True)
    matched = train(task.split(0), method("ce-rate-matched"), once, seed=3)
    faster = train(task.split(0), method("ce"), replace(once, learning_rate=0.05 * factor), seed=3)
    assert factor == pytest.approx(4 / 3)
    assert same(matched, faster)


@given(st.floats(0, 3), st.floats(0, 3))
@examples(20)
def test_gradient_volumes_are_the_integrals_of_equation_13(alpha, beta):
    own, _ = quad(lambda p: beta * p**2 + p * (alpha - beta) - alpha, 0, 1)
    others, _ = dblquad(lambda p, q: q * (beta * p + alpha), 0, 1, 0, 1)
    assert gradient_volume(Weights(alpha, beta), own=True) == pytest.approx(abs(own), abs=1e-9)
    assert gradient_volume(Weights(alpha, beta), own=False) == pytest.approx(others, abs=1e-9)


@pytest.mark.parametrize("name", ["gradual", "cot"])
def test_killed_and_resumed_equals_undisturbed(task, recipe, name, tmp_path):
    """Weights, normalisation's averages, momentum (through the next epochs) and curves, bit for bit."""
    chosen = replace(recipe, select="validation", epochs=4)
    split = replace(task, select="validation").split(0)
    whole = train(split, method(name), chosen, seed=3)
    train(split, method(name), chosen, seed=3, folder=tmp_path, max_epochs=2)
    torch.manual_seed(12345)
    resumed = train(split, method(name), chosen, seed=3, folder=tmp_path)
    assert same(whole, resumed)
    assert rows(whole) == rows(resumed)
    assert len(rows(whole)) == 4
    assert all(torch.equal(whole.weights[key], resumed.weights[key]) for key in whole.weights)
    assert whole.scores == resumed.scores
    assert whole.scores["temperature"] > 0


@pytest.mark.parametrize("select", ["validation", "last"])
def test_the_temperature_is_that_of_the_chosen_weights(task, recipe, select):
    """The chosen network's logits of the validation part, SciPy's search, and PyTorch's cross entropy after it."""
    recipe = replace(recipe, select=select, epochs=4)
    split = replace(task, select="validation").split(0)
    history = train(split, method("gradual"), recipe, seed=3)
    net = build(recipe.net, 4, dropout=recipe.dropout).eval()
    net.load_state_dict(history.weights)

    def logits(part):
        pixels = (part.images / 255 - split.mean.view(3, 1, 1)) / split.std.view(3, 1, 1)
        with torch.no_grad():
            return net(pixels.float()).double(), part.labels

    (z, y), (z_test, y_test) = logits(split.validation), logits(split.test)
    best = minimize_scalar(lambda t: F.cross_entropy(z / t, y).item(), bounds=(0.01, 200), method="bounded")
    scores = history.scores
    assert scores["temperature_bounded"] == (best.x > 190)  # a tiny network on noise may be worse than a guess
    if not scores["temperature_bounded"]:
        assert scores["temperature"] == pytest.approx(best.x, rel=1e-3)
    after = z_test / scores["temperature"]
    assert scores["nll_calibrated"] == pytest.approx(F.cross_entropy(after, y_test).item(), rel=1e-4)
    ece = MulticlassCalibrationError(4, n_bins=15)(after.softmax(1), y_test).item()
    assert scores["ece_calibrated"] == pytest.approx(ece, abs=1e-5)
    assert torch.equal(after.argmax(1), z_test.argmax(1))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in history.weights.items())
    if select == "last":
        assert history.weights is history.last


def test_without_a_validation_part_there_is_no_temperature(task, recipe):
    assert "temperature" not in train(task.split(0), method("ce"), replace(recipe, epochs=1), seed=3).scores


class _Kill(Exception):
    pass


def test_ctrl_c_is_passed_on_and_can_be_pressed_again(task, recipe):
    """Lightning would end the process with status 1 and without a word, and ignore Ctrl-C from then on."""

    def press(fraction: float) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(task.split(0), method("ce"), recipe, seed=3, on_progress=press)
    assert signal.getsignal(signal.SIGINT) is before


def test_killed_in_the_middle_of_an_epoch(task, recipe, tmp_path):
    import lightning.pytorch as pl

    class Killer(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == 4:
                raise _Kill

    split = task.split(0)
    whole = train(split, method("f0"), recipe, seed=3)
    with pytest.raises(_Kill):
        train(split, method("f0"), recipe, seed=3, folder=tmp_path, callbacks=[Killer()])
    resumed = train(split, method("f0"), recipe, seed=3, folder=tmp_path)
    assert same(whole, resumed)
    assert rows(whole) == rows(resumed)


def test_methods_start_alike_and_meet_the_same_images(task, recipe):
    seen: dict[str, list] = {"ce": [], "el": []}
    import lightning.pytorch as pl

    class Watch(pl.Callback):
        def __init__(self, seen):
            self.seen = seen

        def on_train_start(self, trainer, module):
            self.seen.append({name: value.clone() for name, value in module.net.state_dict().items()})

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.seen.append((batch[0].clone(), batch[2].clone()))

    for name, log in seen.items():
        train(task.split(0), method(name), recipe, seed=5, callbacks=[Watch(log)])
    first, second = seen["ce"], seen["el"]
    assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])
    assert len(first) == len(second) == 1 + 3 * 10
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first[1:], second[1:], strict=True))


@pytest.mark.parametrize(
    ("hardware", "precision"),
    [
        (Hardware(accelerator="cpu", channels_last=False), "32-true"),
        (Hardware(accelerator="cpu"), "bf16-mixed"),
        (Hardware(accelerator="cpu", logger="csv"), "32-true"),
    ],
)
def test_other_ways_to_run_give_the_same_up_to_rounding(task, recipe, tmp_path, hardware, precision):
    recipe = replace(recipe, dropout=0.0, epochs=2)
    plain = train(task.split(0), method("gradual"), recipe, seed=3)
    other = train(
        task.split(0),
        method("gradual"),
        replace(recipe, precision=precision),
        seed=3,
        hardware=hardware,
        folder=tmp_path,
    )
    assert rows(other)[0]["train_loss"] == pytest.approx(rows(plain)[0]["train_loss"], rel=0.05)
    if hardware.logger:
        assert "test_accuracy" in next(tmp_path.rglob("metrics.csv")).read_text()
    if precision == "bf16-mixed":
        assert not same(plain, other)
        assert all(value.dtype in (torch.float32, torch.int64) for value in weights(other).values())


def test_strided_depthwise_convolutions_stay_in_float32_on_a_cpu(task, recipe):
    job = Job(task.split(0), method("ce"), 3)
    net = build_network(job, replace(recipe, net="shufflenetv2_small", dropout=0.0), channels_last=True)
    seen = {}
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda own, _, out: seen.setdefault((own.groups > 1, *own.stride), set()).add(out.dtype)
            )
    images = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        net(images).sum().backward()
    assert seen == {
        (False, 1, 1): {torch.bfloat16},
        (True, 1, 1): {torch.bfloat16},
        (True, 2, 2): {torch.float32},
    }
    plain = build("shufflenetv2_small", job.split.classes).to(memory_format=torch.channels_last)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(images), plain.eval()(images))


def test_the_callers_generators_are_left_alone_by_building_a_network(task, recipe, monkeypatch):
    torch.manual_seed(1)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU's generator is seeded"))
    expected = torch.rand(3)
    torch.default_generator.manual_seed(1)
    Classifier(Job(task.split(0), method("ce"), 3), recipe, CPU)
    assert torch.equal(torch.rand(3), expected)


def test_diverging_weights_are_reported_not_raised(task, recipe):
    history = train(task.split(0), method("ce"), replace(recipe, learning_rate=1e30), seed=3)
    assert not history.finite


def test_the_validation_part_chooses_the_first_of_the_best_epochs(task, recipe):
    split = replace(task, select="validation").split(0)
    history = train(split, method("ce"), replace(recipe, select="validation"), seed=3)
    accuracies = [row["val_accuracy"] for row in rows(history)]
    assert history.chosen == int(np.argmax(accuracies))
    last = train(split, method("ce"), recipe, seed=3)
    assert last.chosen == 2


def test_only_asked_for_epochs_are_scored(task, recipe):
    history = train(task.split(0), method("ce"), replace(recipe, evaluate=(2,)), seed=3)
    assert [row["epoch"] for row in rows(history)] == [2, 3]


def test_scores_are_the_labs():
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(257, 5, generator=generator), torch.randint(5, (257,), generator=generator)
    scores = Outputs(logits, labels).scores()
    p = torch.softmax(logits.double(), 1).numpy()
    assert scores["accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert scores["nll"] == pytest.approx(F.cross_entropy(logits.double(), labels).item())
    assert scores["brier"] == pytest.approx(brier_score(p, labels.numpy()))
    assert scores["ece"] == pytest.approx(expected_calibration_error(p, labels.numpy()), abs=1e-6)


def test_learning_rates_fall_where_they_are_said_to():
    recipe = ImageRecipe()
    rates = [recipe.rate(epoch) for epoch in range(240)]
    assert rates[119] == 0.1
    assert rates[120] == pytest.approx(0.01)
    assert rates[160] == pytest.approx(1e-3)
    assert rates[200] == rates[239] == pytest.approx(1e-4)


def test_augmentation_off_and_a_single_batch(task):
    recipe = ImageRecipe(epochs=1, batch_size=500, milestones=(), augment=Augment(crop=0, flip=False))
    assert train(task.split(0), method("ce"), recipe, seed=1).finite


def test_loggers_by_name(task: ImageTask, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split, ce = task.split(0), method("ce")
    (tmp_path / "torn_logger.py").write_text("class Own(:\n")
    (tmp_path / "own_logger.py").write_text(
        "from lightning.pytorch.loggers import CSVLogger\n"
        "class Own(CSVLogger):\n"
        "    def __init__(self, save_dir):\n"
        "        super().__init__(save_dir, name='own', version='')\n"
        "class Broken(CSVLogger):\n"
        "    def __init__(self):\n"
        "        raise RuntimeError('no server')\n"
    )
    for name, at in (("csv", "log/metrics.csv"), ("own_logger:Own", "log/own/metrics.csv")):
        folder = tmp_path / name.replace(":", "-")
        train(split, ce, recipe, seed=1, hardware=replace(CPU, logger=name), folder=folder)
        assert "val_accuracy" in (folder / at).read_text() or "test_accuracy" in (folder / at).read_text()
    for name, says in (
        ("tensorbored", "logger must be csv, tensorboard, a class of lightning.pytorch.loggers or module:Class"),
        ("own_logger:Gone", "got 'own_logger:Gone'"),
        ("torn_logger:Own", "logger torn_logger:Own: invalid syntax"),
        ("no_module:X", "No module named 'no_module'"),
        ("own_logger:Broken", "logger own_logger:Broken: no server"),
    ):
        with pytest.raises(UserError, match=says):
            train(split, ce, recipe, seed=1, hardware=replace(CPU, logger=name), folder=tmp_path / "x")
    with pytest.raises(UserError, match="needs a folder"):
        train(split, ce, recipe, seed=1, hardware=replace(CPU, logger="csv"))
