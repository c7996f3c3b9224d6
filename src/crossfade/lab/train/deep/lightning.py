"""Training of one network under one method, through Lightning.

The trainer owns time: learning rate, loss weights, order, augmentation and dropout follow from the epoch and the batch
number, so a checkpoint holds weights, momentum and curves, and a resumed run is the undisturbed one.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from crossfade.functional import complement_entropy, probability_loss
from crossfade.lab.data.image_stream import StreamSplit
from crossfade.lab.data.images import ImageSplit
from crossfade.lab.data.texts import TextSplit
from crossfade.lab.methods import Method, TwoPass
from crossfade.lab.nets import build
from crossfade.lab.train.deep.batches import Batch, epoch_seed, feeds
from crossfade.lab.train.deep.logger import make_logger
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.deep.record import Observer, Record, scored, step_settings
from crossfade.lab.train.deep.scores import Tally
from crossfade.lab.train.deep.text_recipe import TextRecipe
from crossfade.lab.train.hardware import Hardware
from crossfade.losses import CrossfadeLoss

__all__ = ["Classifier", "DeepHistory", "train"]


@dataclass(frozen=True, eq=False)
class DeepHistory:
    """One training: a row an epoch that was scored, and the network.

    Attributes:
        rows: ``epoch`` (from 1), ``train_loss`` and, for ``val`` and ``test``, accuracy, nll, ece and brier.
        chosen: Row whose test scores are the result; -1 if there is none.
        finite: False if weights or loss stopped being finite.
        module: The network after the last epoch.
        best: Weights of the chosen epoch, where they differ from the last.
        seconds: Of this call.
        device: Where it was trained.
    """

    rows: list[dict[str, float]]
    chosen: int
    finite: bool
    module: nn.Module
    best: Mapping[str, Tensor] | None = None
    seconds: float = 0.0
    device: str = "cpu"

    @classmethod
    def of(cls, record: Record, net: nn.Module, seconds: float, device: torch.device) -> DeepHistory:
        """Of a training that has ended."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return cls(record.rows, record.chosen, record.finite, net, record.best, seconds, name)


class Classifier(pl.LightningModule):  # type: ignore[misc]
    """An image network, a method and a recipe as Lightning sees them; ``TextClassifier`` changes a few parts."""

    def __init__(
        self,
        split: Any,
        method: Method,
        recipe: Any,
        seed: int,
        hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
        observe: Observer | None = None,
    ) -> None:
        super().__init__()
        self.split, self.method, self.recipe, self.seed, self.hardware = split, method, recipe, seed, hardware
        with torch.random.fork_rng(devices=[]):  # the caller's generator is not ours to move
            torch.manual_seed(epoch_seed(seed, 0, "weights"))
            self.net = self.build()
        if hardware.compile:
            self.net.compile()
        self.criterion = CrossfadeLoss(method.schedule)
        self.automatic_optimization = not isinstance(method, TwoPass)
        self.observe = observe
        self.record = Record(recipe)
        self._loss = Tally()
        self._parts: dict[str, Iterable[Batch]] = {}

    def build(self) -> nn.Module:
        """The network, its weights drawn from the global generator."""
        recipe = self.recipe
        net = build(recipe.net, self.split.classes, pretrained=recipe.pretrained, dropout=recipe.dropout)
        return net.to(memory_format=torch.channels_last) if self.hardware.channels_last else net

    def feeds(self, rank: int, world: int) -> tuple[Any, dict[str, Iterable[Batch]]]:
        """Batches to train on, and those of ``"val"`` and ``"test"``."""
        return feeds(self.split, self.recipe, self.hardware, self.seed, self.device, rank, world)

    def forward(self, x: Tensor) -> Tensor:
        if self.hardware.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.net(x)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        recipe = self.recipe
        options: dict[str, Any] = {
            "lr": recipe.learning_rate, "momentum": recipe.momentum, "weight_decay": recipe.weight_decay,
        }  # fmt: skip
        return [torch.optim.SGD(self.net.parameters(), **options) for _ in range(1 + isinstance(self.method, TwoPass))]

    def train_dataloader(self) -> Any:
        training, self._parts = self.feeds(self.trainer.global_rank, self.trainer.world_size)
        return training

    def on_train_epoch_start(self) -> None:
        # Dropout draws from the global generator: seeded each epoch, it needs no saving and no method moves it.
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch, f"dropout {self.global_rank}"))
        self._loss = Tally()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = batch_idx - batch_idx % self.trainer.accumulate_grad_batches  # where this optimizer step began
        within = step / self.trainer.num_training_batches
        progress, rate = step_settings(self.method, self.recipe, self.current_epoch, within)
        self.criterion.at(progress)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        inputs, labels, index, share = batch
        logits = self(inputs)
        loss = self._primary(logits, labels)
        if self.observe is not None and share:
            self.observe(self.current_epoch, "train", index, logits.detach(), labels)
        self._loss.add_loss(loss.detach(), len(labels) if share else 0)
        if self.automatic_optimization:
            return loss * share
        first, second = self.optimizers()
        self._step(first, loss * share)
        logits = self(inputs)
        self._step(second, -complement_entropy(logits, labels) / logits.shape[1] * share)
        return None

    def _primary(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.method.g is not None:
            return probability_loss(self.method.g, logits, labels)
        return self.criterion(logits, labels)  # type: ignore[no-any-return]

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.recipe.clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.recipe.clip)
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        loss = self._sum(self._loss)["loss"]
        self.log("train_loss", loss)
        if not self.record.wants(self.current_epoch, loss, self.net):
            if not self.record.finite:
                self.trainer.should_stop = True
            return
        parts = {part: self._evaluate(part, batches) for part, batches in self._parts.items()}
        self.record.add(self.current_epoch, loss, parts, self.net)
        self.log_dict(
            {name: value for name, value in self.record.rows[-1].items() if name.startswith(("val_", "test_"))}
        )

    def _evaluate(self, part: str, batches: Iterable[Batch]) -> dict[str, float]:
        observe = None if self.observe is None else partial(self.observe, self.current_epoch, part)
        with self.trainer.precision_plugin.forward_context():
            tally = scored(self.net, self, batches, self.split.classes, self.device, observe)
        return self._sum(tally)

    def _sum(self, tally: Tally) -> dict[str, float]:
        total = tally.total(self.device)
        if self.trainer.world_size > 1:
            total = self.trainer.strategy.reduce(total, reduce_op="sum")
        return tally.scores(total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["crossfade"] = self.record.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.record.restore(checkpoint["crossfade"])


class _Look(pl.Callback):  # type: ignore[misc]
    """Shows the network, in evaluation mode, before the first epoch and after each."""

    def __init__(self, look: Callable[[int, nn.Module], None]) -> None:
        self.look = look

    def on_train_start(self, trainer: pl.Trainer, module: Classifier) -> None:
        if trainer.current_epoch == 0:
            self._show(0, module)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Classifier) -> None:
        self._show(trainer.current_epoch + 1, module)

    def _show(self, done: int, module: Classifier) -> None:
        module.net.eval()
        self.look(done, module.net)
        module.net.train()


class _Progress(pl.Callback):  # type: ignore[misc]
    def __init__(self, tell: Callable[[float], None]) -> None:
        self.tell, self._last = tell, 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._last > 0.5:
            self._last = now
            done = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
            self.tell(done / module.recipe.epochs)


def train(
    split: ImageSplit | StreamSplit | TextSplit,
    method: Method,
    recipe: ImageRecipe | TextRecipe,
    *,
    seed: int,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
    folder: Path | None = None,
    observe: Observer | None = None,
    look: Callable[[int, nn.Module], None] | None = None,
    callbacks: Sequence[pl.Callback] = (),
    on_progress: Callable[[float], None] | None = None,
    max_epochs: int | None = None,
) -> DeepHistory:
    """Train one network.

    Args:
        split: Data of one repeat.
        method: The loss, or the way to step.
        recipe: The protocol.
        seed: Of initial weights, order, augmentation and dropout: the same for every method of a repeat.
        hardware: Where.
        folder: For the checkpoint after every epoch (``last.ckpt``) and the log. If one lies there, training goes on
            from it. None: nothing is written.
        observe: Called with (epoch, part, index, logits, labels) of every training batch (part ``"train"``) and of
            every batch of ``"val"`` and ``"test"`` that is scored.
        look: Called with (epochs done, network) before the first epoch and after each, before its checkpoint.
        callbacks: More of Lightning's.
        on_progress: Told the fraction done now and then.
        max_epochs: Stop after so many, as a kill would; the recipe's schedules stay as they are.

    Returns:
        The history; weights that diverge are no exception, ``finite`` says so.
    """
    started = time.perf_counter()
    module = recipe.classifier()(split, method, recipe, seed, hardware, observe)
    checkpoint = None if folder is None else folder / "last.ckpt"
    more = list(callbacks) + ([] if on_progress is None else [_Progress(on_progress)])
    more += [] if look is None else [_Look(look)]
    if folder is not None:
        more.append(
            ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
        )
    with _quiet():
        trainer = pl.Trainer(
            accelerator=hardware.accelerator, devices=hardware.devices, num_nodes=hardware.nodes,
            strategy="auto", precision=recipe.precision, max_epochs=max_epochs or recipe.epochs,
            logger=make_logger(hardware.logger, folder), callbacks=more, enable_checkpointing=folder is not None,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            use_distributed_sampler=False, log_every_n_steps=1, accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip if module.automatic_optimization and recipe.clip else None,
        )  # fmt: skip
        resume = checkpoint if checkpoint is not None and checkpoint.exists() else None
        trainer.fit(module, ckpt_path=resume)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return DeepHistory.of(module.record, module.net, time.perf_counter() - started, trainer.strategy.root_device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints are for people who write the trainer."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*(isinstance\(treespec|LeafSpec).*")
            yield
    finally:
        log.setLevel(level)
