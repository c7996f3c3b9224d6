"""A callback for TRL's SFTTrainer that computes the loss per token on TRL's own fused output head."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from crossfade._transforms import evaluate
from crossfade.errors import UserError
from crossfade.integrations import transformers
from crossfade.losses import Fade


class CrossfadeCallback(transformers.CrossfadeCallback):
    """A callback that replaces the loss: ``SFTTrainer(..., callbacks=[CrossfadeCallback(CrossfadeLoss())])``.

    The trainer computes each token's log-probability in tiles, without the (tokens x vocabulary) logits, and its
    ``loss_type="nll"`` sums them. In the model's output this callback replaces -ce by -g(ce), with the criterion's g,
    such as alpha ce + beta (1 - exp(-ce)). TRL still does prompt masking, packing, accumulation over batches and
    processes, and its metrics. With ``expectation()`` as the schedule the gradients are those of ``loss_type="dft"``.
    The model itself stays as it is: another trainer of the same model has its own loss.

    A TRL without that fused head takes the full logits instead:
    ``SFTTrainer(..., callbacks=[fade], compute_loss_func=fade.compute_loss)``, as the Hugging Face Trainer does.

    Raises:
        UserError: a ``loss_type`` other than "nll", a ``label_smoothing_factor``, options of the criterion that
            need the full logits, or a trainer that needs the other form.
    """

    def __init__(self, criterion: Fade) -> None:
        super().__init__(criterion)
        self._used = False  # whether the trainer's loss has come from the criterion

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_init_end(args, state, control, **kwargs)
        if getattr(args, "loss_type", "nll") != "nll":
            raise UserError(
                f"the criterion is the loss: set SFTConfig(loss_type='nll'), got {args.loss_type!r} "
                "(DFT's gradients are CrossfadeLoss(expectation())'s)"
            )
        self._used = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._used:
            raise UserError(
                "the loss didn't come from the criterion, because this trainer has no fused output head or another "
                "compute_loss_func: pass SFTTrainer(..., callbacks=[fade], compute_loss_func=fade.compute_loss)"
            )

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of the full logits, as ``compute_loss_func``."""
        self._used = True
        return super().compute_loss(*args, **kwargs)

    def replaced(self, output: Any) -> Any:
        """Return the output of the fused head with minus the losses in place of the log-probabilities."""
        log_probs = getattr(output, "log_probs", None)
        if log_probs is not None:
            criterion = self.criterion
            if criterion.weight is not None or criterion.label_smoothing or criterion.softcap or criterion.z_loss:
                raise UserError(
                    "class weights, label smoothing, softcap and z_loss need the logits of all classes: "
                    "pass SFTTrainer(..., callbacks=[fade], compute_loss_func=fade.compute_loss)"
                )
            if criterion.ignore_index != -100:
                raise UserError(
                    f"TRL's head ignores the label -100: expected ignore_index=-100, got {criterion.ignore_index}"
                )
            self._used = True
            self._move_to(log_probs.device)
            # Ignored tokens have log_probs = 0, and there g needn't be 0; a token with p = 1 has no gradient either.
            output.log_probs = -evaluate(criterion.g(), -log_probs).masked_fill(log_probs == 0, 0.0)
        return output


def _with_criterion(compute_loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``SFTTrainer.compute_loss`` for trainers with a :class:`CrossfadeCallback`, unchanged for all others."""

    @functools.wraps(compute_loss)
    def of_trainer(self: SFTTrainer, model: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        fades = [c for c in self.callback_handler.callbacks if isinstance(c, CrossfadeCallback)]
        if len(fades) > 1:
            raise UserError(f"a trainer has one loss: pass one CrossfadeCallback, got {len(fades)}")
        if not fades or self.compute_loss_func is not None:  # with full logits the fused head only serves TRL's metrics
            return compute_loss(self, model, *args, **kwargs)
        return compute_loss(self, lambda *a, **k: fades[0].replaced(model(*a, **k)), *args, **kwargs)

    return of_trainer


# A callback never sees its trainer, and a hook on the model would change the loss of every other trainer of that model.
SFTTrainer.compute_loss = _with_criterion(SFTTrainer.compute_loss)
