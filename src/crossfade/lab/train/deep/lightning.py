"""Training of one network with one method by Lightning: the readable reference.

Learning rate, loss weights, order, augmentation and dropout follow from the epoch and the batch number. So a checkpoint
holds weights, momentum and curves alone, and a resumed run gives the same result as one that wasn't interrupted.
"""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from crossfade.integrations.lightning import make_logger
from crossfade.lab import checkpoints
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import TwoPass, training_loss
from crossfade.lab.train.deep import network
from crossfade.lab.train.deep.feeds import Batch, Feed, Inputs, Place, epoch_seed, make_feed
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import DeepRecipe
from crossfade.lab.train.deep.record import Record
from crossfade.lab.train.outcome import History

CHECKPOINT = "last.ckpt"  # in a job's folder


def train(
    job: Job,
    recipe: DeepRecipe,
    *,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
    callbacks: Sequence[pl.Callback] = (),
    on_progress: Callable[[float], None] | None = None,
    max_epochs: int | None = None,
) -> History:
    """Train one network.

    Args:
        job: The network to train. The checkpoint after each epoch is ``last.ckpt`` in the job's folder; if there is one
            already, training resumes from it.
        on_progress: Called regularly with the fraction of the work that is done.
        max_epochs: Stop after this many epochs, as if interrupted; the recipe's schedules don't change.

    Returns:
        The history. Weights that diverge don't raise an exception; see ``finite``.
    """
    started = time.perf_counter()
    module, folder = Classifier(job, recipe, hardware, on_progress), job.folder
    saving = ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    path = folder and folder / CHECKPOINT
    resume = path if path and checkpoints.resume(path, module.check) else None
    with _quiet():
        trainer = pl.Trainer(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            num_nodes=hardware.nodes,
            precision=recipe.precision,
            max_epochs=max_epochs or recipe.epochs,
            logger=make_logger(hardware.logger, folder),
            callbacks=[*callbacks, saving] if folder else list(callbacks),
            plugins=[_Checkpoints()],
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip if module.automatic_optimization and recipe.clip else None,
        )
        trainer.fit(module, ckpt_path=resume)
    return module.record.history(module.net, trainer.strategy.root_device, time.perf_counter() - started)


class Classifier(pl.LightningModule):  # type: ignore[misc]
    """A network, a method and a recipe as a Lightning module."""

    def __init__(
        self,
        job: Job,
        recipe: DeepRecipe,
        hardware: Hardware,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__()
        self.job, self.recipe, self.hardware, self.on_progress = job, recipe, hardware, on_progress
        self.net = network.build_network(job, recipe, channels_last=hardware.channels_last)
        if hardware.compile:
            self.net.compile()
        self.automatic_optimization = not isinstance(job.method, TwoPass)
        self.record = Record(recipe)
        self.values: Sequence[float] = ()

    def forward(self, inputs: Inputs) -> Tensor:
        return network.outputs_of(self.net, inputs)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        passes = 2 if isinstance(self.job.method, TwoPass) else 1
        return [network.make_optimizer(self.net, self.recipe) for _ in range(passes)]

    def train_dataloader(self) -> Feed:
        channels_last = self.hardware.channels_last
        place = Place(self.device, self.trainer.global_rank, self.trainer.world_size, channels_last)
        return make_feed(self.job.split, self.recipe, self.hardware, self.job.seed, place)

    def on_train_epoch_start(self) -> None:
        self.trainer.train_dataloader.set_epoch(self.current_epoch)
        # Dropout uses the global generator: seeded in each epoch, it needn't be saved and is the same for all methods.
        torch.manual_seed(epoch_seed(self.job.seed, self.current_epoch, f"dropout {self.global_rank}"))
        dtype = torch.float32 if self.device.type == "mps" else torch.float64  # if the device has it
        self._loss_sums = torch.zeros(2, dtype=dtype, device=self.device)  # sum of losses, examples

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = batch_idx - batch_idx % self.trainer.accumulate_grad_batches  # the first batch of this optimizer step
        within = step / self.trainer.num_training_batches
        *self.values, rate = network.step_settings(self.job.method, self.recipe, self.current_epoch, within)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        inputs, labels, index, share = batch
        outputs, method = self(inputs), self.job.method
        loss = training_loss(method.criterion, outputs, labels, self.values)
        if self.job.observe is not None and share:
            self.job.observe(self.current_epoch, "train", index, method.class_scores(outputs.detach()), labels)
        count = len(labels) if share else 0
        self._loss_sums[0] += loss.detach() * count
        self._loss_sums[1] += count
        if not isinstance(method, TwoPass):
            return loss * share
        first, second = self.optimizers()
        self._step(first, loss * share)
        self._step(second, method.second_loss(self(inputs), labels) * share)
        return None

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.recipe.clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.recipe.clip)
        optimizer.step()

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        if self.on_progress is not None:
            done = self.current_epoch + (batch_idx + 1) / self.trainer.num_training_batches
            self.on_progress(done / self.recipe.epochs)

    def on_train_epoch_end(self) -> None:
        total, count = self.trainer.strategy.reduce(self._loss_sums, reduce_op="sum").tolist()
        loss = total / count if count else float("nan")
        self.log("train_loss", loss)
        if not self.record.wants(self.current_epoch, loss, self.net):
            self.trainer.should_stop = self.trainer.should_stop or not self.record.finite
            return
        feed: Feed = self.trainer.train_dataloader
        with self.trainer.precision_plugin.forward_context():
            parts = {
                part: network.scored(self.job, self.net, self.current_epoch, part, batches)
                for part, batches in feed.parts.items()
            }
        self.record.add(self.current_epoch, loss, parts, self.net)
        row = self.record.rows[-1]
        self.log_dict({name: value for name, value in row.items() if name.startswith(("val_", "test_"))})

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        checkpoint["crossfade"] = self.record.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.record.restore(checkpoint["crossfade"])

    def check(self, checkpoint: dict[str, Any]) -> None:
        """Raise an exception if a checkpoint isn't one of this training."""
        weights = {name.removeprefix("net."): value for name, value in checkpoint["state_dict"].items()}
        self.job.check(self.net, weights, checkpoint["epoch"] + 1)
        Record(self.recipe).restore(checkpoint["crossfade"])


class _Checkpoints(TorchCheckpointIO):  # type: ignore[misc]
    """The files of the checkpoints."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: object = None) -> None:
        checkpoints.save(checkpoint, Path(path))

    def load_checkpoint(self, path: str, map_location: object = None, **_: object) -> dict[str, Any]:
        return checkpoints.load(Path(path), map_location)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Lightning's hints, meant for whoever writes the training code, and raise its Ctrl-C as such."""
    log, interrupt = logging.getLogger("lightning.pytorch"), signal.getsignal(signal.SIGINT)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*(isinstance\(treespec|LeafSpec).*")
            yield
    except SystemExit as stopped:
        if not isinstance(stopped.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, interrupt)  # Lightning ignores it from then on
        raise KeyboardInterrupt from None
    finally:
        log.setLevel(level)
