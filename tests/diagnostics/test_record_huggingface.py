from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

transformers = pytest.importorskip("transformers")

from crossfade.diagnostics import IndexedDataset, ProbabilityRecorder, Recording  # noqa: E402
from crossfade.diagnostics.huggingface import RecordProbabilities  # noqa: E402
from crossfade.errors import UserError  # noqa: E402


def tiny_bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


def items():
    generator = torch.Generator().manual_seed(0)
    words, labels = torch.randint(0, 20, (12, 5), generator=generator), torch.randint(0, 3, (12,), generator=generator)
    return [{"input_ids": w, "labels": int(y)} for w, y in zip(words, labels, strict=True)]


def fit(folder, callback, epochs=2, resume=False, dataset=None, **options):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=4, report_to=[], use_cpu=True,
        remove_unused_columns=False, save_strategy="steps", save_steps=2, logging_strategy="no", disable_tqdm=True,
        learning_rate=1e-2,
    )  # fmt: skip
    trainer = transformers.Trainer(
        tiny_bert(), arguments, train_dataset=dataset or IndexedDataset(items()),
        eval_dataset=IndexedDataset(items()), callbacks=[callback], **options,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("custom", [False, True], ids=["model's loss", "compute_loss_func"])
def test_every_example_of_every_epoch(tmp_path, custom):
    recorder = ProbabilityRecorder(tmp_path / "r", 12, 2)
    callback = RecordProbabilities(recorder)
    recorded = {}
    original = recorder.record

    def spy(epoch, index, logits, target):
        for i, row, y in zip(index.tolist(), logits.detach().softmax(1), target.tolist(), strict=True):
            recorded[epoch, i] = (float(row[y]), y)
        original(epoch, index, logits, target)

    recorder.record = spy

    def loss(outputs, labels, num_items_in_batch=None):
        return F.cross_entropy(outputs["logits"], labels)

    trainer = fit(tmp_path, callback, **({"compute_loss_func": callback.wrap(loss)} if custom else {}))
    assert trainer.evaluate()["eval_loss"] > 0  # the index doesn't disturb evaluation, and isn't recorded
    read = Recording(tmp_path / "r")
    assert read.complete() == [0, 1]
    assert len(recorded) == 24
    labels = [item["labels"] for item in items()]
    for (epoch, i), (p, y) in recorded.items():
        assert y == labels[i]
        assert read.p(epoch)[i] == pytest.approx(p, rel=1e-3, abs=1e-4)


def test_a_run_resumed_in_mid_epoch_goes_on(tmp_path):
    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 5  # 3 steps an epoch: in the second

    first = RecordProbabilities(ProbabilityRecorder(tmp_path / "r", 12, 3))
    first_trainer_options = {"compute_loss_func": None}
    arguments_stop = Stop()
    callback = first
    dataset = IndexedDataset(items())
    trainer = transformers.Trainer(
        tiny_bert(),
        transformers.TrainingArguments(
            output_dir=str(tmp_path), num_train_epochs=3, per_device_train_batch_size=4, report_to=[], use_cpu=True,
            remove_unused_columns=False, save_strategy="steps", save_steps=2, logging_strategy="no", disable_tqdm=True,
        ),
        train_dataset=dataset, callbacks=[callback, arguments_stop], **first_trainer_options,
    )  # fmt: skip
    trainer.train()
    assert Recording(tmp_path / "r").complete() == [0]
    fit(tmp_path, RecordProbabilities(ProbabilityRecorder(tmp_path / "r", 12, 3)), epochs=3, resume=True)
    assert Recording(tmp_path / "r").complete() == [0, 1, 2]


def test_each_trial_of_a_search_may_make_its_model_anew(tmp_path):
    recorder = ProbabilityRecorder(tmp_path / "r", 12, 1)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=1, report_to=[], use_cpu=True, remove_unused_columns=False,
        save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(
        args=arguments, model_init=tiny_bert, train_dataset=IndexedDataset(items()),
        callbacks=[RecordProbabilities(recorder)],
    )  # fmt: skip
    for _ in range(2):
        recorder._planes[:] = float("nan")
        trainer.train()
        assert Recording(tmp_path / "r").complete() == [0]


def test_one_process_with_several_gpus_is_refused(tmp_path):
    """There threads compute parts of a batch at the same time, and would exchange their examples' numbers."""
    callback = RecordProbabilities(ProbabilityRecorder(tmp_path / "r", 12, 2))
    with pytest.raises(UserError, match="start one process for each GPU"):
        callback.on_train_begin(SimpleNamespace(n_gpu=2), None, None, model=tiny_bert())


def test_a_batch_without_index(tmp_path):
    with pytest.raises(KeyError, match="remove_unused_columns=False"):
        fit(tmp_path, RecordProbabilities(ProbabilityRecorder(tmp_path / "r", 12, 2)), dataset=items())
