"""Figure 2: BERT fine-tuned on GLUE's classification tasks, and the profile of the four methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crossfade.errors import UserError
from crossfade.lab.paper.text_study import MIXTURES, TextPlan, check_scale, plan_of
from crossfade.lab.train.deep.text_recipe import TextRecipe
from crossfade.lab.trial import Trial

__all__ = ["CHOICES", "plan_figure2"]

CHOICES = (
    "printed: length 64, learning rate 2e-5, six epochs, four seeds, scored on the dev part (it chooses nothing here: "
    "the last epoch counts)",
    "not printed: AdamW without weight decay, a rate that falls linearly to zero, no warm-up, gradient norm at most 1, "
    "batch 32: what the Hugging Face Trainer does by default; loss weights move by steps",
    "WNLI stands beside the seven tasks and isn't in the profile",
)

# epochs, training examples at most, seeds at most
_SHORTENED = {"smoke": (1, 64, 1), "short": (3, 800, 2)}


def plan_figure2(
    data_dir: Path,
    command: str | Sequence[str],
    *,
    model: str = "bert-base-uncased",
    scale: str = "paper",
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    repeats: int | None = None,
    epochs: int | None = None,
    limit: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    accumulate: int = 1,
    precision: str = "32-true",
) -> TextPlan:
    """Write the study down as trials; tasks whose data isn't to be had are named, and the rest is planned.

    Raises:
        UserError: unknown names, values out of range, a model that can't be used, or no data at all.
    """
    from crossfade.lab.data.glue import GLUE, load_glue
    from crossfade.lab.data.texts import TextTask
    from crossfade.lab.methods import method
    from crossfade.lab.train.deep.text_models import check_model

    check_scale(scale, repeats)
    known = {task.name.lower(): task for task in GLUE}
    unknown = sorted({name.lower() for name in tasks} - set(known))
    if unknown:
        raise UserError(f"--tasks: {unknown[0]!r} isn't in GLUE (there are {', '.join(t.name for t in GLUE)})")
    recipe, seeds = TextRecipe(model, precision=precision, accumulate=accumulate), 4  # type: ignore[arg-type]
    if scale != "paper":
        short_epochs, most, seeds = _SHORTENED[scale]
        recipe = replace(recipe, epochs=short_epochs, evaluate=(short_epochs,), scale=scale)
        limit = limit or most
    said = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    recipe = replace(recipe, **{key: value for key, value in said.items() if value is not None})  # type: ignore[arg-type]
    printed = TextRecipe(model)
    changed = [f"{key} {value:g}" for key, value in said.items() if value not in (None, getattr(printed, key))]
    changed += [f"at most {limit:,} examples"] if limit else []
    recipe = replace(recipe, digest=check_model(model, recipe.max_length))
    chosen = [method(name) for name in dict.fromkeys(["ce", *(methods or MIXTURES)])]
    trials, missing = [], []
    notes = [f"not the paper's protocol: {', '.join(changed)}"] if changed and scale == "paper" else []
    for name in [one.lower() for one in tasks] or known:
        try:
            data = load_glue(known[name], data_dir)
        except UserError as error:
            missing.append(str(error))
            continue
        rows, used = known[name].rows, min(limit or len(data.train), len(data.train))
        label = data.name if used >= rows else f"{data.name} ({used:,} of {rows:,} rows)"
        task = TextTask(data, "last", limit=limit, label=label)
        notes += list(data.notes)
        trials += [Trial("figure2", task, one, recipe, at) for at in range(repeats or seeds) for one in chosen]
    if not trials:
        raise UserError(f"figure2: no data. {missing[0]}")
    title = f"Figure 2: {recipe.net} on GLUE"
    return plan_of(
        "figure2", title, trials, command, scale=scale, missing=missing, notes=notes, choices=CHOICES,
    )  # fmt: skip
