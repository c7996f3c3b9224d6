"""The Lightning callback with Lightning's own Trainer: the schedule's weights at every step, and after a resume."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

L = pytest.importorskip("lightning.pytorch")

from crossfade import CrossfadeLoss, linear, staircase  # noqa: E402
from crossfade.errors import UserError  # noqa: E402
from crossfade.integrations.lightning import CrossfadeCallback  # noqa: E402
from tests.integrations.fades import own_fade  # noqa: E402

FADE = linear()  # every step has weights of its own


class Body:
    """The common part of the modules of both packages."""

    def __init__(self, schedule=FADE, stop_at=None, criterion=None):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Linear(4, 3)
        # nested: the callback has to look for it; a list isn't among the module's children
        self.loss = nn.ModuleList([CrossfadeLoss(schedule)]) if criterion is None else [criterion]
        self.seen = []
        self.stop_at = stop_at

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == self.stop_at:
            raise KeyboardInterrupt
        criterion = self.loss[0]
        self.seen.append((criterion.alpha.item(), criterion.beta.item()))
        inputs, target = batch
        return criterion(self.network(inputs), target)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Classifier(Body, L.LightningModule):
    pass


def loader(rows=24, batch_size=4):
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(rows, 4, generator=generator), torch.randint(3, (rows,), generator=generator))
    return DataLoader(data, batch_size=batch_size)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(4), 0


def fit(module, callbacks, loaders=None, ckpt_path=None, package=L, val_dataloaders=None, **options):
    options = {"max_epochs": 2, "enable_checkpointing": False} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = package.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
            **options,
        )  # fmt: skip
        trainer.fit(module, loader() if loaders is None else loaders, val_dataloaders, ckpt_path=ckpt_path)
    return module


def expected(schedule, total, repeat=1):
    return [tuple(schedule(step / total)) for step in range(total) for _ in range(repeat)]


def test_every_step_has_the_schedules_weights():
    assert fit(Classifier(), [CrossfadeCallback()]).seen == expected(FADE, 12)


def test_any_fade_follows_the_steps():
    criterion = own_fade(FADE)
    assert fit(Classifier(criterion=criterion), [CrossfadeCallback(criterion)]).seen == expected(FADE, 12)
    module = Classifier()
    module.loss = nn.ModuleList([own_fade(FADE)])
    assert fit(module, [CrossfadeCallback()], max_steps=5).seen == expected(FADE, 5)


def test_progress_counts_optimizer_steps_under_accumulation():
    seen = fit(Classifier(), [CrossfadeCallback()], accumulate_grad_batches=3).seen
    assert seen == expected(FADE, 4, repeat=3)


def test_max_steps_shorten_the_schedule():
    assert fit(Classifier(), [CrossfadeCallback()], max_steps=5).seen == expected(FADE, 5)


def test_epochs():
    schedule = staircase([0.0, 0.25, 0.5])
    seen = fit(Classifier(schedule), [CrossfadeCallback(interval="epoch")], max_epochs=3).seen
    assert seen == expected(schedule, 3, repeat=6)


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("stop_at", [6, 10])  # at an epoch's end, and within one: the last checkpoint is at step 9
def test_a_killed_run_resumes_with_the_exact_weights(tmp_path, interval, stop_at):
    whole = fit(Classifier(), [CrossfadeCallback(interval=interval)], max_epochs=3)
    save = L.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    killed = Classifier(stop_at=stop_at)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(killed, [CrossfadeCallback(interval=interval), save], max_epochs=3, enable_checkpointing=True)
    last = max(tmp_path.iterdir(), key=lambda path: int(path.stem.split("=")[1]))
    resumed = fit(Classifier(), [CrossfadeCallback(interval=interval)], max_epochs=3, ckpt_path=last)
    restart = len(whole.seen) - len(resumed.seen)
    assert 0 < restart <= stop_at
    assert killed.seen[:restart] + resumed.seen == whole.seen
    if stop_at == 6:  # within an epoch Lightning starts a plain loader from its first batch again
        torch.testing.assert_close(resumed.network.weight, whole.network.weight, rtol=0, atol=0)


def test_unknown_length_asks_for_total_steps():
    endless = DataLoader(Endless(), batch_size=2)
    for options in ({"max_epochs": 1}, {"max_epochs": -1}):
        with pytest.raises(UserError, match="total_steps"):
            fit(Classifier(), [CrossfadeCallback()], endless, **options)
    with pytest.raises(UserError, match="max_epochs"):
        fit(Classifier(), [CrossfadeCallback(interval="epoch")], endless, max_epochs=-1)


class Manual(Classifier):
    """A module with two optimizers, each of which steps once a batch."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]


def test_steps_that_lightning_miscounts_ask_for_total_steps():
    with pytest.raises(UserError, match="manual optimization"):
        fit(Manual(), [CrossfadeCallback()])
    changing = L.callbacks.GradientAccumulationScheduler({0: 1, 1: 2})
    with pytest.raises(UserError, match="an accumulation that changes"):
        fit(Classifier(), [CrossfadeCallback(), changing])
    assert fit(Manual(), [CrossfadeCallback()], max_steps=10).seen == [
        one for one in expected(FADE, 10)[::2] for _ in range(2)
    ]
    seen = fit(Classifier(), [CrossfadeCallback(total_steps=9), changing]).seen
    assert seen == expected(FADE, 9)[:6] + [one for one in expected(FADE, 9)[6:] for _ in range(2)]


def test_total_steps_serves_where_the_length_is_unknown():
    endless = DataLoader(Endless(), batch_size=2)
    module = fit(Classifier(), [CrossfadeCallback(total_steps=8)], endless, max_epochs=1, limit_train_batches=10)
    assert module.seen == [*expected(FADE, 8), tuple(FADE(1.0)), tuple(FADE(1.0))]


def test_a_criterion_outside_the_module_is_given_and_a_missing_one_is_named():
    criterion = CrossfadeLoss(FADE)
    module = Classifier(criterion=criterion)
    assert fit(module, [CrossfadeCallback(criterion)]).seen == expected(FADE, 12)
    with pytest.raises(UserError, match=r"no CrossfadeLoss found in Classifier"):
        fit(module, [CrossfadeCallback()])


def test_validation_of_averaged_weights_has_the_schedules_weights():
    class Validated(Classifier):
        def validation_step(self, batch, batch_idx):
            self.seen.append((self.loss[0].alpha.item(), self.loss[0].beta.item()))

    average = L.callbacks.EMAWeightAveraging(decay=0.9)
    module, data = Validated(), loader()
    fit(module, [average, CrossfadeCallback()], data, val_dataloaders=data, num_sanity_val_steps=0)
    steps = expected(FADE, 12)
    assert module.seen == steps[:6] + [steps[5]] * 6 + steps[6:] + [steps[11]] * 6


def test_all_criteria_move_together():
    module = Classifier()
    module.auxiliary = CrossfadeLoss(FADE)
    fit(module, [CrossfadeCallback()])
    assert module.auxiliary.alpha == module.loss[0].alpha == FADE(11 / 12).alpha


def test_bad_arguments():
    with pytest.raises(TypeError, match="criterion must be a CrossfadeLoss, got CrossEntropyLoss"):
        CrossfadeCallback(nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="interval must be 'step' or 'epoch', got 'batch'"):
        CrossfadeCallback(interval="batch")
    with pytest.raises(ValueError, match="total_steps must be at least 1, got 0"):
        CrossfadeCallback(total_steps=0)
    with pytest.raises(ValueError, match="interval='step'"):
        CrossfadeCallback(interval="epoch", total_steps=3)


def test_pytorch_lightning_takes_the_same_callback():
    package = pytest.importorskip("pytorch_lightning")

    class Module(Body, package.LightningModule):
        pass

    assert fit(Module(), [CrossfadeCallback()], package=package).seen == expected(FADE, 12)
