import os
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("lightning.pytorch")

from crossfade.diagnostics import IndexedDataset, ProbabilityRecorder, Recording  # noqa: E402
from crossfade.diagnostics.lightning import RecordProbabilities  # noqa: E402
from crossfade.errors import UserError  # noqa: E402


class Linear(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 2)
        self.seen = []  # what the recording should hold: (epoch, index, p_y)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, _):
        x, y, index = batch
        logits = self(x)
        p = logits.detach().softmax(1).gather(1, y[:, None])[:, 0]
        self.seen += [(self.current_epoch, int(i), float(v)) for i, v in zip(index, p, strict=True)]
        return F.cross_entropy(logits, y)

    def validation_step(self, batch, _):
        self.validated = self(batch[0]).detach()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)


def data():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(10, 3, generator=generator), torch.randint(0, 2, (10,), generator=generator))


def trainer(folder, callback, epochs, **options):
    return pl.Trainer(
        max_epochs=epochs, callbacks=[callback], default_root_dir=folder, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


def test_training_and_validation_are_recorded_and_a_resumed_run_goes_on(tmp_path):
    train, valid = IndexedDataset(data()), data()
    seen = []
    for epochs in (2, 4):  # the second trainer starts from the first one's checkpoint
        callback = RecordProbabilities(
            ProbabilityRecorder(tmp_path / "train", 10, 4), ProbabilityRecorder(tmp_path / "valid", 10, 4)
        )
        model = Linear()
        run = trainer(tmp_path, callback, epochs, enable_checkpointing=False)
        loaders = DataLoader(train, 4, shuffle=True), DataLoader(valid, 4)
        run.fit(model, *loaders, ckpt_path=tmp_path / "last.ckpt" if epochs == 4 else None, weights_only=False)
        run.save_checkpoint(tmp_path / "last.ckpt")
        seen += model.seen
    recorded, validated = Recording(tmp_path / "train"), Recording(tmp_path / "valid")
    assert recorded.complete() == validated.complete() == [0, 1, 2, 3]
    assert len(seen) == 40
    for epoch, index, p in seen:
        assert recorded.p(epoch)[index] == pytest.approx(p, rel=1e-3, abs=1e-4)
    x, y = valid.tensors
    final = model(x).softmax(1).gather(1, y[:, None])[:, 0]
    assert validated.p(3).tolist() == pytest.approx(final.tolist(), rel=1e-3, abs=1e-4)
    run.validate(Linear(), loaders[1], verbose=False)  # after the last epoch, it is no part of the training
    assert validated.p(3).tolist() == pytest.approx(final.tolist(), rel=1e-3, abs=1e-4)


def test_batches_as_mappings_and_a_module_that_keeps_its_logits(tmp_path):
    items = [{"x": x, "labels": y} for x, y in data()]

    class Mapped(Linear):
        def training_step(self, batch, _):
            return F.cross_entropy(self(batch["x"]), batch["labels"])

    callback = RecordProbabilities(ProbabilityRecorder(tmp_path / "r", 10, 1))
    trainer(tmp_path, callback, 1, enable_checkpointing=False).fit(Mapped(), DataLoader(IndexedDataset(items), 4))
    assert Recording(tmp_path / "r").complete() == [0]

    class Secret(Linear):
        def training_step(self, batch, _):
            return F.cross_entropy(self.layer(batch["x"]), batch["labels"])

    with pytest.raises(RuntimeError, match=r"must call self\(x\)"):
        trainer(tmp_path, callback, 1, enable_checkpointing=False).fit(Secret(), DataLoader(IndexedDataset(items), 4))


def test_after_a_training_that_failed_the_next_model_is_recorded(tmp_path):
    class Failing(Linear):
        def training_step(self, batch, _):
            raise ZeroDivisionError

    callback = RecordProbabilities(ProbabilityRecorder(tmp_path / "r", 10, 1))
    loader = DataLoader(IndexedDataset(data()), 4)
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, callback, 1, enable_checkpointing=False).fit(Failing(), loader)
    trainer(tmp_path, callback, 1, enable_checkpointing=False).fit(Linear(), loader)
    assert Recording(tmp_path / "r").complete() == [0]


def test_under_ddp_training_is_recorded_and_validation_of_several_processes_refused(tmp_path):
    callback, model = RecordProbabilities(ProbabilityRecorder(tmp_path / "r", 10, 1)), Linear()
    with patch.dict(os.environ):  # Lightning leaves its process group's variables there
        try:  # under DDP the module is called for the whole step, and that call returns the loss
            run = trainer(tmp_path, callback, 1, enable_checkpointing=False, strategy="ddp", devices=1)
            run.fit(model, DataLoader(IndexedDataset(data()), 4))
        finally:
            dist.destroy_process_group()
    values = {index: p for _, index, p in model.seen}
    assert Recording(tmp_path / "r").p(0).tolist() == pytest.approx([values[i] for i in range(10)], rel=2e-3)

    counted = RecordProbabilities(validation=ProbabilityRecorder(tmp_path / "v", 10, 1))
    with pytest.raises(UserError, match="in one process, got 2"):
        counted.setup(SimpleNamespace(world_size=2), model, "fit")


def test_nothing_to_record():
    with pytest.raises(ValueError, match="nothing to record"):
        RecordProbabilities()
