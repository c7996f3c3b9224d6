"""The Hugging Face Trainer, its own class and its own resume, on tiny models with fresh weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

transformers = pytest.importorskip("transformers")

from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from crossfade import CrossfadeLoss, linear  # noqa: E402
from crossfade.errors import UserError  # noqa: E402
from crossfade.integrations.transformers import CrossfadeCallback  # noqa: E402
from tests.integrations.fades import own_fade  # noqa: E402

FADE = linear()
VOCABULARY = 17


def causal_lm(seed=0):
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


def bert(head, **options):
    torch.manual_seed(0)
    return head(
        transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options,
        )
    )  # fmt: skip


def rows(count=32, length=6, seed=3):
    """Return rows of tokens. The number of ignored labels differs from row to row."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, VOCABULARY, (count, length), generator=generator)
    labels = tokens.clone()
    for row, ignored in enumerate(torch.randint(0, length, (count,), generator=generator).tolist()):
        labels[row, :ignored] = -100
    return [{"input_ids": row, "labels": label} for row, label in zip(tokens, labels, strict=True)]


class Watch(TrainerCallback):
    def __init__(self, criterion, kill_at=None):
        self.criterion = criterion
        self.kill_at = kill_at
        self.seen = []

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.kill_at:
            raise KeyboardInterrupt
        self.seen.append((self.criterion.alpha.item(), self.criterion.beta.item()))


def train(model, data, tmp_path, *, criterion=None, kill_at=None, resume=None, **options):
    fade = CrossfadeCallback(criterion or CrossfadeLoss(FADE))
    watch = Watch(fade.criterion, kill_at)
    defaults = {
        "use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no",
        "seed": 0, "optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
        "per_device_train_batch_size": 4, "num_train_epochs": 1,
    }  # fmt: skip
    args = TrainingArguments(output_dir=str(tmp_path), **(defaults | options))
    trainer = Trainer(model, args, train_dataset=data, callbacks=[fade, watch], compute_loss_func=fade.compute_loss)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, watch.seen


def expected(total):
    return [tuple(FADE(step / total)) for step in range(total)]


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_every_step_has_the_schedules_weights(tmp_path):
    assert train(causal_lm(), rows(), tmp_path)[1] == expected(8)
    assert train(causal_lm(), rows(), tmp_path, gradient_accumulation_steps=2, num_train_epochs=2)[1] == expected(8)


def test_any_fade_follows_the_steps(tmp_path):
    """Accumulation divides by all targets of a step, whatever the loss is."""
    data, results = rows(48), []
    for steps in (1, 4):
        options = {"per_device_train_batch_size": 16 // steps, "gradient_accumulation_steps": steps}
        trainer, seen = train(causal_lm(), data, tmp_path, criterion=own_fade(FADE), **options)
        assert seen == expected(3)
        results.append(parameters(trainer))
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_loss_of_a_causal_model_is_the_shifted_mean_over_its_tokens(tmp_path):
    data = rows(4)
    trainer, _ = train(causal_lm(), data, tmp_path, max_steps=1, learning_rate=0.0)
    batch = {name: torch.stack([row[name] for row in data]) for name in data[0]}
    criterion = CrossfadeLoss(FADE).at(0.5)
    trainer.compute_loss_func.__self__.criterion.at(0.5)
    count = (batch["labels"][:, 1:] != -100).sum()
    value = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)

    logits = trainer.model(batch["input_ids"]).logits.double()
    terms = []
    for row, labels in zip(logits, batch["labels"], strict=True):
        for position in range(1, len(labels)):  # position t is predicted from position t - 1
            if labels[position] != -100:
                p = torch.softmax(row[position - 1], 0)[labels[position]]
                terms.append(criterion.alpha * -p.log() + criterion.beta * (1 - p))
    torch.testing.assert_close(value.double(), torch.stack(terms).mean(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["causal", "tokens", "sequence"])
def test_accumulation_is_one_big_batch(tmp_path, kind):
    """1 x 16, 2 x 8 and 4 x 4: the same parameters after three steps, however unevenly the labels are spread."""
    data = rows(48)
    if kind == "sequence":
        data = [{"input_ids": row["input_ids"], "labels": int(row["input_ids"][0]) % 3} for row in data]
    heads = {
        "causal": causal_lm,
        "tokens": lambda: bert(transformers.BertForTokenClassification, num_labels=VOCABULARY),
        "sequence": lambda: bert(transformers.BertForSequenceClassification, num_labels=3),
    }
    results = [
        train(heads[kind](), data, tmp_path, per_device_train_batch_size=16 // steps, gradient_accumulation_steps=steps)
        for steps in (1, 2, 4)
    ]
    start = torch.cat([p.detach().flatten() for p in heads[kind]().parameters()])
    reference = parameters(results[0][0])
    assert (reference - start).abs().max() > 1e-3
    for trainer, seen in results:
        assert seen == expected(3)
        torch.testing.assert_close(parameters(trainer), reference, rtol=0, atol=1e-6)


def test_labels_are_shifted_for_decoder_only_language_models_only(tmp_path):
    cases = {
        causal_lm: True,
        (lambda: bert(transformers.BertForMaskedLM)): False,
        (lambda: bert(transformers.BertForTokenClassification, num_labels=VOCABULARY)): False,
        lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0,
                dropout_rate=0.0,
            )
        ): False,
    }  # fmt: skip
    for make, shifts in cases.items():
        model = make()
        fade = CrossfadeCallback(CrossfadeLoss())
        args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
        trainer = Trainer(model, args, callbacks=[fade], compute_loss_func=fade.compute_loss)
        assert trainer._loss_shifts_labels is shifts  # the Trainer's own rule, by which it counts items
        logits, labels = torch.randn(2, 5, VOCABULARY), torch.randint(VOCABULARY, (2, 5))
        value = fade.compute_loss({"logits": logits}, labels, num_items_in_batch=7)
        if shifts:
            logits, labels = logits[:, :-1], labels[:, 1:]
        reference = CrossfadeLoss(reduction="sum")(logits.reshape(-1, VOCABULARY), labels.reshape(-1)) / 7
        torch.testing.assert_close(value, reference)


@pytest.mark.parametrize("output", ["mapping", "tuple", "tensor"])
def test_models_that_are_not_of_transformers(tmp_path, output):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(6, 3)

        def forward(self, input_ids):
            logits = self.layer(input_ids.float() / VOCABULARY)
            return {"mapping": {"logits": logits}, "tuple": (logits, None), "tensor": logits}[output]

    data = [{"input_ids": row["input_ids"], "labels": int(row["input_ids"][0]) % 3} for row in rows(16)]
    options = {"per_device_train_batch_size": 16, "num_train_epochs": 4}
    trainer, seen = train(Plain(), data, tmp_path, remove_unused_columns=False, **options)
    assert seen == expected(4)

    model = Plain()  # the same training by hand
    inputs = torch.stack([row["input_ids"] for row in data])
    target = torch.tensor([row["labels"] for row in data])
    for step in range(4):
        loss = CrossfadeLoss(FADE).at(step / 4)(model.layer(inputs.float() / VOCABULARY), target)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.5 * gradient
    torch.testing.assert_close(parameters(trainer), torch.cat([p.flatten() for p in model.parameters()]))

    with pytest.raises(UserError, match="remove_unused_columns=False"):
        train(Plain(), data, tmp_path)


def test_class_probabilities_as_labels():
    fade = CrossfadeCallback(CrossfadeLoss(FADE))
    fade._shift = False
    logits, target = torch.randn(4, 3), torch.softmax(torch.randn(4, 3), 1)
    count = target.ne(-100).sum()  # the Trainer counts entries: 12
    torch.testing.assert_close(fade.compute_loss((logits,), target, count), CrossfadeLoss(FADE)(logits, target))


def test_a_killed_run_resumes_with_the_exact_weights_and_parameters(tmp_path):
    whole, seen = train(causal_lm(), rows(), tmp_path / "whole", num_train_epochs=2)
    options = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 5}
    with pytest.raises(KeyboardInterrupt):
        train(causal_lm(), rows(), tmp_path / "killed", kill_at=7, **options)
    resumed, rest = train(causal_lm(seed=1), rows(), tmp_path / "killed", resume=True, **options)
    assert rest == seen[5:] == expected(16)[5:]
    torch.testing.assert_close(parameters(resumed), parameters(whole), rtol=0, atol=1e-7)


def test_ignored_labels_everywhere_are_a_step_of_nothing(tmp_path):
    ignored = [{"input_ids": row["input_ids"], "labels": torch.full_like(row["labels"], -100)} for row in rows(8)]
    trainer, _ = train(causal_lm(), ignored, tmp_path)
    start = torch.cat([p.detach().flatten() for p in causal_lm().parameters()])
    assert torch.equal(parameters(trainer), start)
    mixed, _ = train(causal_lm(), ignored[:4] + rows(4), tmp_path, gradient_accumulation_steps=2)
    assert parameters(mixed).isfinite().all()


def test_evaluation_uses_the_current_weights(tmp_path):
    fade = CrossfadeCallback(CrossfadeLoss(FADE))
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], per_device_eval_batch_size=8)
    trainer = Trainer(causal_lm(), args, eval_dataset=rows(8), callbacks=[fade], compute_loss_func=fade.compute_loss)
    value = trainer.evaluate()["eval_loss"]
    batch = {name: torch.stack([row[name] for row in rows(8)]) for name in ("input_ids", "labels")}
    logits = trainer.model(batch["input_ids"]).logits[:, :-1].reshape(-1, VOCABULARY)
    ce = F.cross_entropy(logits, batch["labels"][:, 1:].reshape(-1))
    p = torch.softmax(logits, 1).gather(1, batch["labels"][:, 1:].reshape(-1, 1).clamp(min=0)).squeeze(1)
    el = (1 - p)[batch["labels"][:, 1:].reshape(-1) != -100].mean()
    assert value == pytest.approx((ce + el).item(), rel=1e-5)  # linear() starts at (1, 1)


def test_mistakes_are_named(tmp_path):
    fade = CrossfadeCallback(CrossfadeLoss())
    with pytest.raises(UserError, match="pass the same object"):
        fade.compute_loss((torch.zeros(2, 3),), torch.tensor([0, 1]))
    fade._shift = False
    with pytest.raises(UserError, match="has no labels"):
        fade.compute_loss((torch.zeros(2, 3),), None)
    fade._shift = True
    with pytest.raises(UserError, match="class probabilities can't be labels"):
        fade.compute_loss((torch.zeros(2, 4, 3),), torch.full((2, 4, 3), 1 / 3))
    with pytest.raises(UserError, match="holds no logits"):
        fade.compute_loss({"loss": torch.zeros(())}, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"criterion must be a crossfade\.CrossfadeLoss, got CrossEntropyLoss"):
        CrossfadeCallback(nn.CrossEntropyLoss())


def test_a_callback_whose_loss_is_not_computed_is_named(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True)
    trainer = Trainer(causal_lm(), args, train_dataset=rows(8), callbacks=[CrossfadeCallback(CrossfadeLoss(FADE))])
    with pytest.raises(UserError, match=r"pass Trainer\(.*compute_loss_func=fade\.compute_loss\)"):
        trainer.train()


def test_the_trainers_own_label_smoothing_shift_and_ignored_label_are_named(tmp_path):
    with pytest.raises(UserError, match="expected ignore_index=-100, got 0; exchange that label for -100"):
        CrossfadeCallback(CrossfadeLoss(ignore_index=0))  # the Trainer would count the targets 0 in its mean
    with pytest.raises(UserError, match="expected shift=0, got 1"):
        CrossfadeCallback(CrossfadeLoss(shift=1))
    with pytest.raises(UserError, match=r"label_smoothing_factor would not be used.*label_smoothing=0\.2"):
        train(causal_lm(), rows(), tmp_path, label_smoothing_factor=0.2)
