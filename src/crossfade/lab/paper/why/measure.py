"""Measurements at given weights: both sides of (18), the rise of the loss under SGD, sharpness, slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfade.diagnostics.escaping import EscapingEfficiency, concavity, escaping_efficiency
from crossfade.diagnostics.passes import Batch, PerExample
from crossfade.diagnostics.sharpness import largest_eigenvalue, loss_slice, random_direction
from crossfade.functional import crossfade_loss
from crossfade.lab.paper.why.watched import Arrays, Row
from crossfade.schedules import Weights, weights

#: The paper's mixtures on both scales. F = 0 and F = 0.5 are the same on both.
MIXTURES: dict[str, Weights] = {
    "ce": Weights(1.0, 0.0),
    "f0": weights(0.0),
    **{f"f{focus:g}": weights(focus) for focus in (0.1, 0.2, 0.3, 0.4)},
    **{f"f{focus:g}-unit": weights(focus, "unit") for focus in (0.1, 0.2, 0.3, 0.4)},
    "el": weights(0.5),
}
#: Those that are minimised and simulated.
SELECTED = ("ce", "f0", "f0.2", "f0.4", "f0.4-unit", "el")


def _loss(value: Weights) -> PerExample:
    return partial(crossfade_loss, alpha=value.alpha, beta=value.beta, reduction="none")


def _batches(data: Arrays, examples: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(data.x[:examples], 256), torch.split(data.y[:examples], 256), strict=True))


def along_rows(model: nn.Module, data: Arrays, examples: int, probes: int, seed: int) -> Iterator[Row]:
    """Yield a row for each mixture, all from the same probes at the same weights."""
    batches = _batches(data, examples)
    found = escaping_efficiency(model, batches, probes=probes, seed=seed)
    directions = torch.Generator().manual_seed(seed)
    concave = [_concave_share(model, batches, found.dimension, directions) for _ in range(4)]
    for name, value in MIXTURES.items():
        yield {**_row(found, name, value), "concave_share": sum(concave) / len(concave)}


def _row(found: EscapingEfficiency, name: str, value: Weights) -> dict[str, object]:
    """Return the row of one mixture with m = 1; a batch of m divides Tr(Sigma) and Tr(H Sigma) by m."""
    product, gain, hp_fp = found.trace_product(value), found.gain(value), found.trace_hp_fp
    row: dict[str, object] = {
        "mixture": name,
        "alpha": value.alpha,
        "beta": value.beta,
        "probes": product.probes,
        "dimension": found.dimension,
        "max_p": found.max_p,
        "gradient_norm2": found.gradient_norm2(value),
        "tr_sigma": found.trace_noise(value).value,
        "tr_h": found.trace_hessian(value).value,
        "tr_h_sigma": product.value,
        "tr_h_sigma_se": product.se,
        "gain": gain.value,
        "gain_se": gain.se,
        "matched_ratio": found.matched_ratio(value),
        "tr_hp_fp": hp_fp.value,
        "tr_hp_fp_se": hp_fp.se,
        "tr_fp_fp": found.trace_fp_fp.value,
    }
    if value.alpha == 1.0 and value.beta > 0:
        sides = {
            "printed": (found.printed_bound(value.beta), found.printed_margin(value.beta)),
            "derived": (found.derived_bound(value.beta), found.derived_margin(value.beta)),
        }
        for side, (bound, margin) in sides.items():
            row |= {f"{side}_bound": bound.value, f"{side}_margin": margin.value, f"{side}_margin_se": margin.se}
    return row


def _concave_share(model: nn.Module, batches: Sequence[Batch], dimension: int, generator: torch.Generator) -> float:
    """Return the share of examples whose p_y is concave along a random direction, as the derivation of (18) assumes."""
    dtype = next(model.parameters()).dtype
    direction = torch.randn(dimension, generator=generator, dtype=dtype)
    return float((concavity(model, batches, direction) >= 0).to(dtype).mean())


def minimum_rows(data: Arrays, kind: str, probes: int, walkers: int) -> Iterator[Row]:
    """Yield, for each mixture, (18) at one of its stationary points and the rise of the loss under SGD started there.

    L-BFGS finds CE's point first, and from there those of the others. A small ridge (1e-3 |W|^2 / 2) keeps the minimum
    at finite weights. The measurements are of the loss without it, as in eq. (16)-(18); ``gradient_norm2`` tells how
    far its gradient is from zero.
    """
    torch.manual_seed(0)
    x, y = data.x[:1000].double(), data.y[:1000]
    inputs, classes = x.shape[1], data.classes
    hidden = [nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, classes)]  # smooth, so that L-BFGS converges
    model = (nn.Linear(inputs, classes) if kind == "linear" else nn.Sequential(*hidden)).double()
    ce_state: dict[str, Tensor] = {}
    for name in SELECTED:
        value = MIXTURES[name]
        if ce_state:
            model.load_state_dict(ce_state)
        _descend(model, x, y, value)
        ce_state = ce_state or {key: tensor.clone() for key, tensor in model.state_dict().items()}
        found = escaping_efficiency(model, [(x, y)], probes=probes, seed=0)
        concave = _concave_share(model, [(x, y)], found.dimension, torch.Generator().manual_seed(0))
        rise = _rise(model, x, y, value, walkers)
        yield {"network": kind, **_row(found, name, value), "concave_share": concave, **rise}


_RIDGE = 1e-3


def _objective(model: nn.Module, value: Weights, parameters: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return the mean loss with its ridge for the model with these parameters."""
    loss = _loss(value)(torch.func.functional_call(model, dict(parameters), (x,)), y).mean()
    return loss + _RIDGE / 2 * torch.stack([p.square().sum() for p in parameters.values()]).sum()


def _descend(model: nn.Module, x: Tensor, y: Tensor, value: Weights) -> None:
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=2000, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _objective(model, value, dict(model.named_parameters()), x, y)
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def _rise(model: nn.Module, x: Tensor, y: Tensor, value: Weights, walkers: int) -> Row:
    """Return the mean rise of the loss with its ridge after 1, 10 and 50 steps of SGD from these weights."""
    rate, m = 0.05, 16
    objective = partial(_objective, model, value)
    gradient = torch.func.vmap(torch.func.grad(objective))
    losses = torch.func.vmap(objective, in_dims=(0, None, None))
    generator = torch.Generator().manual_seed(0)
    start = {name: p.detach() for name, p in model.named_parameters()}
    base = float(objective(start, x, y))
    current, rises = {name: p.expand(walkers, *p.shape).clone() for name, p in start.items()}, {}
    for step in range(1, 51):
        rows = torch.randint(0, len(y), (walkers, m), generator=generator)
        slopes = gradient(current, x[rows], y[rows])
        current = {name: p - rate * slopes[name] for name, p in current.items()}
        if step in (1, 10, 50):
            excess = losses(current, x, y) - base
            rises[f"rise{step}"] = float(excess.mean())
            rises[f"rise{step}_se"] = float(excess.std()) / walkers**0.5
    return {"sgd_rate": rate, "sgd_batch": m, "ridge": _RIDGE, **rises}


@torch.no_grad()
def sharpness_rows(model: nn.Module, data: Arrays, examples: int) -> Iterator[Row]:
    """Yield the largest Hessian eigenvalue of CE, F = 0 and EL at this solution, with accuracy and losses there."""
    device = next(model.parameters()).device
    batches = [(x.to(device), y.to(device)) for x, y in _batches(data, examples)]
    test = torch.cat([model(part.to(device)).cpu() for part in torch.split(data.x_test, 500)])
    for name in ("ce", "f0", "el"):
        loss = _loss(MIXTURES[name])
        eigenvalue, _ = largest_eigenvalue(model, batches, loss, tolerance=1e-2)
        yield {
            "loss": name,
            "largest_eigenvalue": eigenvalue,
            "train_loss": float(torch.cat([loss(model(x), y) for x, y in batches]).mean()),
            "test_accuracy": float((test.argmax(1) == data.y_test).double().mean()),
            "test_ce": float(F.cross_entropy(test, data.y_test)),
        }


def slice_rows(model: nn.Module, data: Arrays, examples: int, points: int = 11) -> Iterator[Row]:
    """Yield 1-D and 2-D slices of CE and EL along filter-normalised random directions, the same for every solution."""
    batches = _batches(data, min(examples, 512))
    first, second = random_direction(model, 0), random_direction(model, 1)
    steps = torch.linspace(-1, 1, points).tolist()
    for name in ("ce", "el"):
        line = loss_slice(model, batches, _loss(MIXTURES[name]), [first], steps)
        for s, loss in zip(steps, line.tolist(), strict=True):
            yield {"loss": name, "s": s, "t": None, "value": loss}
        plane = loss_slice(model, batches, _loss(MIXTURES[name]), [first, second], steps)
        for s, row in zip(steps, plane.tolist(), strict=True):
            for t, loss in zip(steps, row, strict=True):
                yield {"loss": name, "s": s, "t": t, "value": loss}
