"""A callback for the Hugging Face Trainer that also provides the ``compute_loss_func``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

from crossfade._transforms import Transform
from crossfade.errors import UserError
from crossfade.integrations._shared import with_reduction
from crossfade.losses import Fade


class CrossfadeCallback(TrainerCallback):  # type: ignore[misc]
    """A callback that moves the criterion with the Trainer's step, and computes the loss: pass it for both.

    >>> from crossfade import CrossfadeLoss
    >>> fade = CrossfadeCallback(CrossfadeLoss())
    >>> options = dict(callbacks=[fade], compute_loss_func=fade.compute_loss)  # Trainer(model, args, ..., **options)

    Progress is ``state.global_step / state.max_steps``, which the Trainer restores on resume. Labels are shifted for
    exactly the models whose labels the Trainer itself shifts (decoder-only language models).

    Args:
        criterion: a ``CrossfadeLoss``, any ``Fade``, or a g of :mod:`crossfade.objectives`, such as ``deft()``. Its
            ``reduction`` is not used, the Trainer's rule is: the sum over all targets divided by
            ``num_items_in_batch``, which counts all micro-batches of an optimizer step on all processes. With class
            weights the sum is divided by that count, too.

    Raises:
        UserError: a Trainer whose loss isn't this one's; a criterion with a ``shift`` or an ``ignore_index`` other than
            the Trainer's -100; ``TrainingArguments(label_smoothing_factor=...)``, which belongs to its own loss.
    """

    _used = False  # whether the trainer's loss has come from the criterion

    def __init__(self, criterion: Fade | Transform) -> None:
        self.criterion = cast(Fade, criterion if isinstance(criterion, nn.Module) else Fade(lambda: criterion))
        self._summed = with_reduction(self.criterion, "sum")
        if self.criterion.shift:
            raise UserError(f"the Trainer itself shifts the labels: expected shift=0, got {self.criterion.shift}")
        if self.criterion.ignore_index != -100:  # its count of targets would hold the ignored ones
            raise UserError(
                f"the Trainer ignores the label -100: expected ignore_index=-100, got {self.criterion.ignore_index}; "
                "exchange that label for -100 in the data"
            )
        self._shift: bool | None = None

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.label_smoothing_factor > 0:
            raise UserError(
                "the criterion is the loss, and label_smoothing_factor would not be used: set it to 0 and pass "
                f"{type(self.criterion).__name__}(..., label_smoothing={args.label_smoothing_factor})"
            )
        self._shift = shifts_labels(kwargs["model"])
        self._used = False

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        self.criterion.at(min(state.global_step / state.max_steps, 1.0))

    def on_step_end(self, *_: object, **__: object) -> None:
        if not self._used:
            raise UserError(
                "the loss didn't come from the criterion (TRL's fused output head, which takes it by itself, isn't in "
                "this trainer): pass Trainer(..., callbacks=[fade], compute_loss_func=fade.compute_loss)"
            )

    def compute_loss(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Return the loss of a batch, as the Trainer's ``compute_loss_func``.

        Args:
            outputs: the model's output, a mapping with ``logits`` or a tuple that starts with them: (B, C), or (B, T,
                C) for tokens.
            labels: class indices (B) or (B, T), -100 where ignored, or class probabilities of the logits' shape, which
                the labels of a decoder-only language model can't be.
            num_items_in_batch: the number to divide by; None means the number of this batch's targets.

        Raises:
            UserError: the callback isn't in the Trainer, the outputs or the inputs lack logits or labels, or labels
                that are class probabilities would be shifted.
        """
        if self._shift is None:
            raise UserError(
                "compute_loss is used without its callback: pass the same object to Trainer(callbacks=[fade], "
                "compute_loss_func=fade.compute_loss)"
            )
        if labels is None:
            raise UserError(
                "the batch has no labels: the dataset needs a column 'labels', and a model whose forward has no such "
                "argument needs TrainingArguments(remove_unused_columns=False)"
            )
        self._used = True
        logits = logits_of(outputs)
        self.criterion.to(logits.device)  # which the first batch shows
        labels = labels.to(logits.device)
        if self._shift:
            if labels.shape == logits.shape:
                raise UserError(
                    "class probabilities can't be labels of a model whose labels the Trainer shifts: expected class "
                    f"indices of shape {tuple(logits.shape[:-1])}, got shape {tuple(labels.shape)}"
                )
            labels = F.pad(labels, (0, 1), value=-100)[..., 1:]
        if labels.shape == logits.shape[:-1]:
            logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        if num_items_in_batch is None:
            num_items_in_batch = labels.ne(-100).sum()
        count = torch.as_tensor(num_items_in_batch, device=logits.device)
        if labels.shape == logits.shape:  # class probabilities: the Trainer has counted C entries for each target
            count = count / logits.shape[-1]
        total: Tensor = self._summed(logits, labels)
        # A step in which all labels are ignored counts 0 items: its loss is 0, not NaN.
        return total / count.clamp(min=1)


def shifts_labels(model: nn.Module) -> bool:
    """Return whether position t predicts label t + 1, by the Trainer's own rule for counting the items of a batch."""
    unwrap = getattr(model, "get_base_model", None)  # PEFT
    inner = unwrap() if callable(unwrap) else model
    causal = LOSS_MAPPING.get(getattr(inner, "loss_type", None)) is ForCausalLMLoss
    return causal and not getattr(getattr(inner, "config", None), "is_encoder_decoder", False)


def logits_of(outputs: Any) -> Tensor:
    """Return the logits of a model's output.

    Raises:
        UserError: it holds none.
    """
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if isinstance(logits, (tuple, list)):
        logits = logits[0]
    if not isinstance(logits, Tensor):
        raise UserError(
            "the model's output holds no logits (a fused loss, such as use_liger_kernel's, never builds them): "
            f"expected a mapping with 'logits' or a tuple of tensors, got {type(outputs).__name__}"
        )
    return logits
