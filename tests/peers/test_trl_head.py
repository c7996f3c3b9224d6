"""TRL's fused output head on a tiny model, against the fused loss and its statistics of the same hidden states."""

from __future__ import annotations

import pytest
import torch

import crossfade as cf

pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")

from trl.trainer.utils import add_fused_lm_head  # noqa: E402


@pytest.mark.parametrize("softcap", [None, 0.5])
def test_log_probabilities_entropy_and_hits(softcap: float | None) -> None:
    """TRL: hidden[:, :-1] against labels[:, 1:], -100 ignored, 0 there; loss_type "nll" and "dft" from the same."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=23, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config.final_logit_softcapping = softcap
    model = transformers.LlamaForCausalLM(config)
    labels = torch.randint(23, (3, 7))
    tokens, labels[:, :3] = labels.clone(), -100
    hidden = model.model(tokens).last_hidden_state
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    theirs = model(input_ids=tokens, labels=labels, fused_lm_head=True)

    def loss(**options: object) -> tuple[torch.Tensor, cf.functional.LossStats]:
        return cf.linear_crossfade_loss(
            hidden, model.lm_head.weight, labels, softcap=softcap, shift=1, return_stats=True, **options
        )

    nll, stats = loss(beta=0.0)
    torch.testing.assert_close(nll, theirs.loss)
    torch.testing.assert_close(stats.ce, -theirs.log_probs.detach())
    torch.testing.assert_close(stats.entropy, theirs.entropy.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(stats.correct, theirs.is_top1.bool())
    assert torch.equal(stats.valid, theirs.label_mask)
    dft = (-theirs.log_probs * theirs.log_probs.exp().detach()).sum() / theirs.label_mask.sum()
    torch.testing.assert_close((stats.p * stats.ce).sum() / stats.valid.sum(), dft.detach())
    head = model.lm_head.weight
    for ours, trls in ((nll, theirs.loss), (loss(alpha=0.0)[0], dft)):
        actual, expected = (torch.autograd.grad(x, head, retain_graph=True)[0] for x in (ours, trls))
        torch.testing.assert_close(actual, expected)
