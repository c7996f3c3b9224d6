"""TRL's own SFTTrainer on a tiny model with fresh weights: fused head, prompt masking, packing, resume, DFT."""

import os
import tempfile
import warnings

import pytest
import torch
import transformers

trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from crossfade import CrossfadeLoss, Fade, expectation, linear, objectives, probability_loss  # noqa: E402
from crossfade.errors import UserError  # noqa: E402
from crossfade.integrations.trl import CrossfadeCallback  # noqa: E402
from tests.integrations.fades import own_fade  # noqa: E402

FADE = linear()
WORDS = [f"word{number}" for number in range(19)]


@pytest.fixture(scope="module", name="tokenizer")
def tokenizer_of_words():
    return tokenizer()


def tokenizer():
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def tiny(name, **more):
    """Return a new model of a kind, as small as it gets."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(WORDS) + 4, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )  # fmt: skip
    return getattr(transformers, f"{name}ForCausalLM")(config)


def causal_lm():
    return tiny("Llama")


def gemma():
    """Return a model with tied weights and capped logits."""
    return tiny("Gemma2", head_dim=4, final_logit_softcapping=2.0, attn_implementation="eager")


def granite():
    """Return a model that divides its logits."""
    return tiny("Granite", logits_scaling=0.5)


def sentences(count=24):
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        length = int(torch.randint(4, 12, (1,), generator=generator))
        yield [WORDS[i] for i in torch.randint(len(WORDS), (length,), generator=generator).tolist()]


def texts():
    return Dataset.from_list([{"text": " ".join(words)} for words in sentences()])


def prompts():
    return Dataset.from_list(
        [{"prompt": " ".join(words[:2]) + " ", "completion": " ".join(words[2:])} for words in sentences()]
    )


class Watch(TrainerCallback):
    def __init__(self, criterion, kill_at=None):
        self.criterion, self.kill_at, self.seen = criterion, kill_at, []

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.kill_at:
            raise KeyboardInterrupt
        if self.criterion is not None and self.criterion.names:
            self.seen.append((self.criterion.alpha.item(), self.criterion.beta.item()))


def train(tokenizer, data, tmp_path, criterion=None, *, form="fused", kill_at=None, resume=None, model=None, **options):
    """Train. The form "fused" uses the callback alone, "logits" adds compute_loss_func, "none" is TRL's own loss."""
    fade = None if form == "none" else CrossfadeCallback(criterion or CrossfadeLoss(FADE))
    watch = Watch(fade and fade.criterion, kill_at)
    defaults = {
        "use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True, "logging_strategy": "no", "seed": 0,
        "save_strategy": "no", "optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0, "per_device_train_batch_size": 6, "num_train_epochs": 2, "max_length": 16,
        "gradient_checkpointing": False,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.SFTTrainer(
            model or causal_lm(),
            args=trl.SFTConfig(output_dir=str(tmp_path), **(defaults | options)),
            train_dataset=data,
            eval_dataset=data,
            processing_class=tokenizer,
            callbacks=[*([] if fade is None else [fade]), watch],
            compute_loss_func=fade.compute_loss if form == "logits" else None,
        )
        trainer.train(resume_from_checkpoint=resume)
    return trainer, watch.seen


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def close(first, second, atol=2e-6):
    torch.testing.assert_close(parameters(first[0]), parameters(second[0]), rtol=0, atol=atol)


@pytest.mark.parametrize("data", [texts, prompts])
@pytest.mark.parametrize("options", [{}, {"packing": True}], ids=["padded", "packed"])
def test_the_fused_loss_is_the_loss_of_the_logits(tokenizer, tmp_path, data, options):
    """TRL's fused head with g, and the full logits, share no code and agree."""
    fused = train(tokenizer, data(), tmp_path, **options)
    logits = train(tokenizer, data(), tmp_path, form="logits", **options)
    plain = train(tokenizer, data(), tmp_path, form="none", **options)
    close(fused, logits)
    assert fused[1] == logits[1] == [tuple(FADE(step / len(fused[1]))) for step in range(len(fused[1]))]
    assert (parameters(fused[0]) - parameters(plain[0])).abs().max() > 1e-3


def test_any_fade_is_computed_on_the_fused_head(tokenizer, tmp_path):
    """Ignored tokens add nothing, though this g isn't 0 at p = 1."""
    fused = train(tokenizer, prompts(), tmp_path, own_fade(FADE))
    logits = train(tokenizer, prompts(), tmp_path, own_fade(FADE), form="logits")
    close(fused, logits)
    assert fused[0].state.log_history[-1]["train_loss"] == pytest.approx(
        logits[0].state.log_history[-1]["train_loss"], rel=1e-5
    )
    assert fused[1] == [tuple(FADE(step / len(fused[1]))) for step in range(len(fused[1]))]


OBJECTIVES = {
    "expectation": objectives.expectation(), "floored": objectives.floored(), "deft": objectives.deft(),
    "cayley": objectives.cayley(), "entropy_gated": objectives.entropy_gated(), "shifted": objectives.shifted(),
    "thresholded": objectives.thresholded(0.04), "power": objectives.power(), "focal": objectives.focal(),
}  # fmt: skip


def gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("model", [causal_lm, gemma, granite])
def test_every_objective_is_the_one_of_the_model_s_own_logits(tokenizer, tmp_path, model, packing):
    """Value and gradients to float32's rounding: also of a frozen projection, tied weights, and half of a batch."""
    trainer, _ = train(tokenizer, prompts(), tmp_path, OBJECTIVES["deft"], model=model(), max_steps=1, packing=packing)
    (fade,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, CrossfadeCallback))
    batch = next(iter(trainer.get_train_dataloader()))
    labels, net = batch["labels"][:, 1:], trainer.model
    count = torch.tensor(2 * int((labels != -100).sum()))  # as with two batches a step
    for name, g in OBJECTIVES.items():
        fade.criterion = Fade(lambda g=g: g)
        for frozen in (False, True):
            net.get_output_embeddings().weight.requires_grad_(not frozen)
            ours = trainer.compute_loss(net, dict(batch), num_items_in_batch=count)
            inputs = {key: value for key, value in batch.items() if key != "labels"}
            logits = net(**inputs).logits[:, :-1].flatten(0, 1)
            theirs = probability_loss(g, logits, labels.flatten(), reduction="sum") / count
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7, msg=name)
            for mine, true in zip(gradients(ours, net), gradients(theirs, net), strict=True):
                torch.testing.assert_close(mine, true, rtol=1e-5, atol=2e-7, msg=name)


@pytest.mark.parametrize(
    "option", [{"label_smoothing": 0.1}, {"z_loss": 1e-2}, {"softcap": 1.5}, {"weight": 23}], ids=str
)
def test_the_criterion_s_options_need_no_logits(tokenizer, tmp_path, option):
    if "weight" in option:
        option = {"weight": torch.linspace(0.5, 2.0, option["weight"])}
    trained = [
        train(tokenizer, prompts(), tmp_path, CrossfadeLoss(FADE, **option), form=form, max_steps=3)
        for form in ("fused", "logits")
    ]
    close(*trained)


def test_what_is_logged_beside_the_loss(tokenizer, tmp_path):
    """Of the expectation loss 1 - p the row weight is p; the tokens' means are those of the model's logits."""
    options = {"max_steps": 1, "learning_rate": 0.0, "logging_strategy": "steps", "logging_steps": 1}
    trainer, _ = train(tokenizer, prompts(), tmp_path, OBJECTIVES["expectation"], **options)
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(1 - logged["p"], rel=1e-5)
    assert logged["weight_mass"] == pytest.approx(logged["p"], rel=1e-6)
    evaluated = trainer.evaluate()
    ces, hits = [], []
    for batch in trainer.get_eval_dataloader():
        labels = batch.pop("labels")[:, 1:].flatten()
        logits = trainer.model(**batch).logits[:, :-1].flatten(0, 1)[labels != -100].detach()
        ces.append(torch.nn.functional.cross_entropy(logits, labels[labels != -100]).item())
        hits.append((logits.argmax(1) == labels[labels != -100]).double().mean().item())
    assert evaluated["eval_ce"] == pytest.approx(sum(ces) / len(ces), rel=1e-5)
    assert evaluated["eval_mean_token_accuracy"] == pytest.approx(sum(hits) / len(hits))
    assert 0 < evaluated["eval_p"] < 1
    assert 0 < evaluated["eval_entropy"] < 4
    plain, _ = train(tokenizer, prompts(), tmp_path, form="none", **options)
    assert not {"ce", "p", "weight_mass"} & plain.state.log_history[0].keys()


def test_lora_trains_the_adapters_alone(tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    trained = []
    for form in ("fused", "logits"):
        torch.manual_seed(3)  # for the adapters
        model = peft.get_peft_model(causal_lm(), config)
        before = {name: value.clone() for name, value in model.named_parameters()}
        trained.append(train(tokenizer, prompts(), tmp_path, OBJECTIVES["deft"], form=form, model=model, max_steps=3))
        moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        assert moved == {name for name in before if "lora" in name}
    close(*trained)


def test_dft_is_trls_dft(tokenizer, tmp_path):
    theirs = train(tokenizer, prompts(), tmp_path, form="none", loss_type="dft")
    close(train(tokenizer, prompts(), tmp_path, CrossfadeLoss(expectation())), theirs)
    ours = train(tokenizer, prompts(), tmp_path, objectives.dft())
    close(ours, theirs)
    losses = [trainer.state.log_history[-1]["train_loss"] for trainer, _ in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_accumulation_is_one_big_batch(tokenizer, tmp_path):
    options = [{"per_device_train_batch_size": 12 // n, "gradient_accumulation_steps": n} for n in (1, 2, 4)]
    first, *others = (train(tokenizer, prompts(), tmp_path, **one) for one in options)
    for other in others:
        close(first, other, atol=1e-6)


def train_on_these_processes(rank=0):
    """Train as one process with twice the batch does, and return the weights and what was logged at each step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = train(
            tokenizer(), prompts(), folder, OBJECTIVES["expectation"], num_train_epochs=1, logging_steps=1,
            per_device_train_batch_size=8 // int(os.environ.get("WORLD_SIZE", "1")), logging_strategy="steps",
            train_sampling_strategy="sequential",
        )  # fmt: skip
    logged = [step for step in trainer.state.log_history if "ce" in step and "loss" in step]
    names = ("loss", "ce", "p", "weight_mass", "entropy", "mean_token_accuracy")
    return {"parameters": parameters(trainer).tolist(), "logged": [[step[name] for name in names] for step in logged]}


def test_two_processes_train_and_log_as_one_does(processes, monkeypatch):
    shared = processes(2, train_on_these_processes)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    alone = train_on_these_processes()
    torch.testing.assert_close(torch.tensor(shared["parameters"]), torch.tensor(alone["parameters"]), rtol=0, atol=1e-6)
    assert len(alone["logged"]) == 3
    for ours, theirs in zip(shared["logged"], alone["logged"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_prompts_are_not_learned(tokenizer, tmp_path):
    """Prompts are ignored, and a batch that holds nothing else has the loss 0 and no gradient."""
    trainer, _ = train(tokenizer, prompts(), tmp_path, max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] == -100).any()
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(0))
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in trainer.model.parameters())


def test_a_killed_run_resumes_with_the_exact_weights_and_parameters(tokenizer, tmp_path):
    whole = train(tokenizer, texts(), tmp_path / "whole", num_train_epochs=3)
    options = {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 3}
    with pytest.raises(KeyboardInterrupt):
        train(tokenizer, texts(), tmp_path / "killed", kill_at=7, **options)
    resumed = train(tokenizer, texts(), tmp_path / "killed", resume=True, **options)
    assert resumed[1] == whole[1][5:]
    close(resumed, whole, atol=1e-7)


def test_mistakes_are_named(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"set SFTConfig\(loss_type='nll'\), got 'dft'"):
        train(tokenizer, texts(), tmp_path, loss_type="dft")
    for form in ("fused", "logits"):
        with pytest.raises(UserError, match=r"label_smoothing_factor would not be used.*label_smoothing=0\.1"):
            train(tokenizer, texts(), tmp_path, form=form, label_smoothing_factor=0.1)
    two = [CrossfadeCallback(CrossfadeLoss(FADE)) for _ in range(2)]
    trainer, _ = train(tokenizer, texts(), tmp_path, max_steps=1)
    trainer.add_callback(two[0])
    with pytest.raises(UserError, match="pass one CrossfadeCallback, got 2"):
        trainer.train()
    with pytest.raises(UserError, match="caps its logits at 2 itself: expected softcap=None"):
        train(tokenizer, texts(), tmp_path, CrossfadeLoss(FADE, softcap=5.0), model=gemma())
    with pytest.raises(UserError, match="expected ignore_index=-100, got 0"):
        train(tokenizer, texts(), tmp_path, CrossfadeLoss(FADE, ignore_index=0))


@pytest.mark.parametrize("options", [{}, {"packing": True, "gradient_accumulation_steps": 2}], ids=str)
def test_a_trainer_has_its_own_loss_whatever_trained_the_model_before(tokenizer, tmp_path, options):
    """TRL's trainers take a model that another one has trained, or has begun to train."""
    options |= {"max_steps": 2, "per_device_train_batch_size": 4}
    model = causal_lm()
    start = [p.detach().clone() for p in model.parameters()]
    for form, kill_at in (("fused", None), ("none", None), ("fused", 1), ("none", None), ("fused", None)):
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.data.copy_(value)
        if kill_at:
            with pytest.raises(KeyboardInterrupt):
                train(tokenizer, texts(), tmp_path, model=model, kill_at=kill_at, **options)
        else:
            again = train(tokenizer, texts(), tmp_path, form=form, model=model, **options)
            clean = train(tokenizer, texts(), tmp_path, form=form, **options)
            close(again, clean, atol=0)
            assert again[0].evaluate()["eval_loss"] == clean[0].evaluate()["eval_loss"]
        assert not model._forward_hooks


def test_eval_loss_is_the_criterion_s(tokenizer, tmp_path):
    trainer, _ = train(tokenizer, texts(), tmp_path, CrossfadeLoss(expectation()), learning_rate=0.0, max_steps=1)
    plain, _ = train(tokenizer, texts(), tmp_path, form="none", learning_rate=0.0, max_steps=1)
    assert 0 < trainer.evaluate()["eval_loss"] < 1 < plain.evaluate()["eval_loss"]


def test_a_trainer_without_the_fused_head_is_named(tmp_path):
    tokens = torch.randint(4, 23, (4, 6))
    trainer = transformers.Trainer(
        causal_lm(),
        transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True),
        train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        callbacks=[CrossfadeCallback(CrossfadeLoss(FADE))],
    )
    with pytest.raises(UserError, match=r"fused output head.*isn't in this trainer"):
        trainer.train()
