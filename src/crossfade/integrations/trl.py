"""A callback for TRL's SFTTrainer that computes the loss per token on TRL's own fused output head."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from crossfade._transforms import Mixture
from crossfade.errors import UserError
from crossfade.integrations import transformers
from crossfade.losses import CrossfadeLoss


class CrossfadeCallback(transformers.CrossfadeCallback):
    """A callback that replaces the loss: ``SFTTrainer(..., callbacks=[CrossfadeCallback(CrossfadeLoss())])``.

    The trainer computes each token's log-probability in tiles, without the (tokens x vocabulary) logits, and its
    ``loss_type="nll"`` sums them. In the model's output this callback replaces -ce by -g(ce), with
    g(ce) = alpha ce + beta (1 - exp(-ce)). TRL still does prompt masking, packing, accumulation over batches and
    processes, and its metrics. With ``expectation()`` as the schedule the gradients are those of ``loss_type="dft"``.

    A TRL without that fused head takes the full logits instead:
    ``SFTTrainer(..., callbacks=[fade], compute_loss_func=fade.compute_loss)``, as the Hugging Face Trainer does.

    Raises:
        UserError: a ``loss_type`` other than "nll", class weights or label smoothing (both need the full logits), or
            a TRL that needs the other form.
    """

    def __init__(self, criterion: CrossfadeLoss) -> None:
        super().__init__(criterion)
        self._form: str | None = None  # "logits" or "fused", once the trainer has shown which it uses

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_init_end(args, state, control, **kwargs)
        if getattr(args, "loss_type", "nll") != "nll":
            raise UserError(
                f"the criterion is the loss: set SFTConfig(loss_type='nll'), got {args.loss_type!r} "
                "(DFT's gradients are CrossfadeLoss(expectation())'s)"
            )
        kwargs["model"].register_forward_hook(self._replace)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._form is None:
            raise UserError(
                "this version of TRL has no fused output head: pass SFTTrainer(..., callbacks=[fade], "
                "compute_loss_func=fade.compute_loss)"
            )

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of the full logits, as ``compute_loss_func``."""
        self._form = "logits"
        return super().compute_loss(*args, **kwargs)

    def _replace(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Replace the log-probabilities in the model's output by minus the losses."""
        log_probs = getattr(output, "log_probs", None)
        if log_probs is None or self._form == "logits":  # with full logits the fused head only serves TRL's metrics
            return
        if self.criterion.weight is not None or self.criterion.label_smoothing > 0:
            raise UserError(
                "class weights and label smoothing need the logits of all classes: "
                "pass SFTTrainer(..., callbacks=[fade], compute_loss_func=fade.compute_loss)"
            )
        self._form = "fused"
        self._move_to(log_probs.device)
        # Ignored tokens have log_probs = 0, and g(0) = 0.
        g = Mixture(self.criterion.alpha.clone(), self.criterion.beta.clone())
        output.log_probs = -g(-log_probs)
