"""Training of one network under one method, through Lightning: the reference that anybody can read.

The trainer owns time: learning rate, loss weights, order, augmentation and dropout follow from the epoch and the batch
number, so a checkpoint holds weights, momentum and curves, and a resumed run is the undisturbed one.
"""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from crossfade.errors import UserError
from crossfade.functional import complement_entropy
from crossfade.lab.methods import TwoPass
from crossfade.lab.train.deep import network
from crossfade.lab.train.deep.feeds import Batch, Feed, Place, epoch_seed, make_feed
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import DeepRecipe
from crossfade.lab.train.deep.record import Record, exact
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.train.outcome import History

CHECKPOINT = "last.ckpt"  # in a job's folder
_LOGGERS = {"csv": "CSVLogger", "tensorboard": "TensorBoardLogger"}


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
        job: What to train. The checkpoint after every epoch is ``last.ckpt`` in its folder; if one lies there, training
            goes on from it.
        recipe: The protocol.
        hardware: Where.
        callbacks: More of Lightning's.
        on_progress: Told the fraction done now and then.
        max_epochs: Stop after so many, as a kill would; the recipe's schedules stay as they are.

    Returns:
        The history; weights that diverge are no exception, ``finite`` says so.
    """
    started = time.perf_counter()
    module, folder = Classifier(job, recipe, hardware, on_progress), job.folder
    saving = ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    resume = None if folder is None or not (folder / CHECKPOINT).exists() else folder / CHECKPOINT
    with _quiet():
        trainer = pl.Trainer(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            num_nodes=hardware.nodes,
            precision=recipe.precision,
            max_epochs=max_epochs or recipe.epochs,
            logger=make_logger(hardware.logger, folder),
            callbacks=[*callbacks, saving] if folder else list(callbacks),
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
    if trainer.interrupted:
        raise KeyboardInterrupt
    return module.record.history(module.net, trainer.strategy.root_device, time.perf_counter() - started)


class Classifier(pl.LightningModule):  # type: ignore[misc]
    """A network, a method and a recipe as Lightning sees them."""

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
        self.alpha, self.beta = 1.0, 0.0

    def forward(self, inputs: Any) -> Tensor:
        return network.logits_of(self.net, inputs, channels_last=self.hardware.channels_last)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        passes = 2 if isinstance(self.job.method, TwoPass) else 1
        return [network.make_optimizer(self.net, self.recipe) for _ in range(passes)]

    def train_dataloader(self) -> Feed:
        place = Place(self.device, self.trainer.global_rank, self.trainer.world_size)
        return make_feed(self.job.split, self.recipe, self.hardware, self.job.seed, place)

    def on_train_epoch_start(self) -> None:
        # Dropout draws from the global generator: seeded each epoch, it needs no saving and no method moves it.
        torch.manual_seed(epoch_seed(self.job.seed, self.current_epoch, f"dropout {self.global_rank}"))
        self._lost = torch.zeros(2, dtype=exact(self.device), device=self.device)  # loss x examples, and examples

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = batch_idx - batch_idx % self.trainer.accumulate_grad_batches  # where this optimizer step began
        within = step / self.trainer.num_training_batches
        self.alpha, self.beta, rate = network.step_settings(self.job.method, self.recipe, self.current_epoch, within)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        inputs, labels, index, share = batch
        logits = self(inputs)
        loss = network.loss_of(self.job.method.g, logits, labels, self.alpha, self.beta)
        if self.job.observe is not None and share:
            self.job.observe(self.current_epoch, "train", index, logits.detach(), labels)
        count = len(labels) if share else 0
        self._lost[0] += loss.detach() * count
        self._lost[1] += count
        if self.automatic_optimization:
            return loss * share
        first, second = self.optimizers()
        self._step(first, loss * share)
        logits = self(inputs)
        self._step(second, -complement_entropy(logits, labels) / logits.shape[1] * share)
        return None

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.recipe.clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.recipe.clip)
        optimizer.step()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.on_progress is not None:
            done = self.current_epoch + (batch_idx + 1) / self.trainer.num_training_batches
            self.on_progress(done / self.recipe.epochs)

    def on_train_epoch_end(self) -> None:
        total, count = self._over_processes(self._lost).tolist()
        loss = total / count if count else float("nan")
        self.log("train_loss", loss)
        if not self.record.wants(self.current_epoch, loss, self.net):
            self.trainer.should_stop = self.trainer.should_stop or not self.record.finite
            return
        feed: Feed = self.trainer.train_dataloader
        parts = {part: self._evaluate(part, batches) for part, batches in feed.parts.items()}
        self.record.add(self.current_epoch, loss, parts, self.net)
        row = self.record.rows[-1]
        self.log_dict({name: value for name, value in row.items() if name.startswith(("val_", "test_"))})

    def _evaluate(self, part: str, batches: Iterable[Batch]) -> dict[str, float]:
        layout = self.hardware.channels_last
        with self.trainer.precision_plugin.forward_context():
            tally = network.scored(self.job, self.net, self.current_epoch, part, batches, channels_last=layout)
        tally.sums = self._over_processes(tally.sums)
        return tally.scores()

    def _over_processes(self, sums: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return sums

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["crossfade"] = self.record.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.record.restore(checkpoint["crossfade"])


def make_logger(name: str, folder: Path | None) -> Any:
    """Return one of Lightning's loggers for one training, or False for none, as Lightning wants it.

    Args:
        name: ``"csv"``, ``"tensorboard"``, another class of ``lightning.pytorch.loggers`` (``"MLFlowLogger"``), one of
            your own as ``"module:Class"``, or ``""`` for none. It is given those of ``save_dir``, ``name`` and
            ``run_name`` that it takes; the rest is configured in its own way, by environment variables for example.
        folder: Of the training, named after its trial; a logger of files writes to ``log`` in it.

    Raises:
        UserError: no such logger, no folder, or one that can't be made.
    """
    if not name:
        return False
    if folder is None:
        raise UserError("logger: needs a folder to write to")
    if ":" in name and os.getcwd() not in sys.path:  # a module beside the command
        sys.path.append(os.getcwd())
    try:
        kind = pkgutil.resolve_name(name if ":" in name else f"lightning.pytorch.loggers:{_LOGGERS.get(name, name)}")
    except ImportError as error:
        raise UserError(f"logger {name}: {error}") from None
    except (AttributeError, ValueError):
        kind = None
    if not inspect.isclass(kind):
        raise UserError(
            f"logger must be {', '.join(_LOGGERS)}, a class of lightning.pytorch.loggers or module:Class, got {name!r}"
        )
    given = {"save_dir": str(folder / "log"), "name": folder.name, "run_name": folder.name}
    if name in _LOGGERS:
        given = {"save_dir": str(folder), "name": "log", "version": ""}
    taken = inspect.signature(kind).parameters
    try:
        return kind(**{key: value for key, value in given.items() if key in taken})
    except Exception as error:
        raise UserError(f"logger {name}: {str(error).strip() or type(error).__name__}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's hints back: they are for people who write the trainer."""
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
