"""timm's and torchvision's own classes: soft targets of mixup and cutmix, label smoothing, EMA, resume."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from timm.data.mixup import Mixup  # noqa: E402
from timm.loss import LabelSmoothingCrossEntropy, PolyCrossEntropy, SoftTargetCrossEntropy  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from timm.task import ClassificationTask  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from crossfade import CrossfadeLoss, constant, cross_entropy, linear  # noqa: E402

CLASSES = 4
FADE = linear()


def images(count=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def independent(logits, soft, alpha, beta):
    """Eq. (12) for a target distribution, in float64, written out."""
    p = torch.softmax(logits.double(), 1)
    soft = soft.double()
    return (alpha * -(soft * p.log()).sum(1) + beta * (1 - (soft * p).sum(1))).mean()


def timm_mixup(**options):
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES, **options)
    return lambda inputs, target: mix(inputs.clone(), target)


@pytest.mark.parametrize(
    "mix",
    [
        timm_mixup(switch_prob=0.0),
        timm_mixup(switch_prob=1.0),
        timm_mixup(mode="elem"),
        v2.MixUp(num_classes=CLASSES),
        v2.CutMix(num_classes=CLASSES),
    ],
    ids=["timm mixup", "timm cutmix", "timm by element", "torchvision mixup", "torchvision cutmix"],
)
def test_mixed_targets(mix):
    torch.manual_seed(0)
    inputs, soft = mix(*images())
    assert soft.shape == (16, CLASSES)
    logits = (inputs.mean((2, 3)) @ torch.randn(3, CLASSES) * 3).requires_grad_()
    criterion = CrossfadeLoss(FADE).at(0.5)
    value = criterion(logits, soft)
    expected = independent(logits, soft, *FADE(0.5))
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def test_without_fading_it_is_the_loss_their_scripts_choose():
    """train.py of timm takes one of three losses; all are CrossfadeLoss(cross_entropy()) with another target."""
    logits, (_, target) = torch.randn(16, CLASSES), images()
    soft = torch.softmax(torch.randn(16, CLASSES), 1)
    ce, poly = cross_entropy(), constant(0.25)  # beta = 2
    torch.testing.assert_close(CrossfadeLoss(ce)(logits, soft), SoftTargetCrossEntropy()(logits, soft))
    torch.testing.assert_close(
        CrossfadeLoss(ce, label_smoothing=0.1)(logits, target), LabelSmoothingCrossEntropy(0.1)(logits, target)
    )
    torch.testing.assert_close(CrossfadeLoss(poly)(logits, soft), PolyCrossEntropy(epsilon=2.0)(logits, soft))


class Run:
    """The parts of timm's train.py around its epoch loop, at the smallest size."""

    def __init__(self, epochs=3):
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", num_classes=CLASSES)
        self.criterion = CrossfadeLoss(FADE)
        self.task = ClassificationTask(model, criterion=self.criterion, verbose=False)
        self.task.setup_ema(decay=0.5)
        self.optimizer = create_optimizer_v2(model, opt="sgd", lr=0.01)
        self.scheduler, self.epochs = create_scheduler_v2(self.optimizer, num_epochs=epochs, warmup_epochs=0)
        self.loader = DataLoader(TensorDataset(*images()), batch_size=8)
        self.seen = []

    def epoch(self, epoch):
        mix = timm_mixup()
        for batch, (inputs, target) in enumerate(self.loader):
            update = epoch * len(self.loader) + batch
            self.criterion.at(update / (self.epochs * len(self.loader)))
            self.seen.append(self.criterion.alpha.item())
            loss = self.task(*mix(inputs, target))["loss"]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.task.trainable_module_ema.update(self.task.trainable_module)
        self.scheduler.step(epoch + 1)
        assert loss.isfinite()


def test_timms_task_optimizer_schedule_and_checkpoint(tmp_path):
    run = Run()
    before = [p.clone() for p in run.task.parameters()]
    checkpoint = tmp_path / "last.pth"
    for epoch in range(run.epochs):
        run.epoch(epoch)
        if epoch == 0:
            state = {"model": run.task.state_dict(), "optimizer": run.optimizer.state_dict(), "epoch": epoch}
            torch.save(state, checkpoint)
    assert run.seen == [FADE(update / 6).alpha for update in range(6)]
    assert any((old != new).any() for old, new in zip(before, run.task.parameters(), strict=True))
    assert not any("alpha" in name or "beta" in name for name in run.task.state_dict())

    resumed = Run()
    state = torch.load(checkpoint)
    resumed.task.load_state_dict(state["model"], strict=True)
    for epoch in range(state["epoch"] + 1, resumed.epochs):
        resumed.epoch(epoch)
    assert resumed.seen == run.seen[2:]


def test_torchvision_references_epoch_loop(tmp_path):
    """references/classification/train.py: one criterion for training on mixed and for evaluation on hard labels."""
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(num_classes=CLASSES)
    ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    mix = v2.RandomChoice([v2.MixUp(num_classes=CLASSES), v2.CutMix(num_classes=CLASSES)])
    inputs, target = images(8)
    data = TensorDataset(torch.nn.functional.interpolate(inputs, 32), target)
    loader = DataLoader(data, batch_size=4, collate_fn=lambda batch: mix(*default_collate(batch)))
    criterion = CrossfadeLoss(FADE, label_smoothing=0.1)
    for epoch in range(2):
        criterion.at(epoch / 2)
        for batch, soft in loader:
            logits = model(batch)
            loss = criterion(logits, soft)
            smooth = soft * 0.9 + 0.1 / CLASSES
            expected = independent(logits, smooth, *FADE(epoch / 2))
            torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ema.update_parameters(model)
    with torch.inference_mode():
        for network in (model, ema):
            network.eval()
            assert criterion(network(data.tensors[0]), target).isfinite()
