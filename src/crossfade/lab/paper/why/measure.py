"""What is measured at one point: both sides of (18), the rise of the loss under SGD, sharpness, slices."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from crossfade.diagnostics.escaping import EscapingEfficiency, concavity, escaping_efficiency
from crossfade.diagnostics.passes import Batch, PerExample
from crossfade.diagnostics.sharpness import largest_eigenvalue, loss_slice, random_direction
from crossfade.functional import crossfade_loss
from crossfade.lab.paper.why.watched import Arrays, Row
from crossfade.schedules import Weights, weights

__all__ = ["MIXTURES", "along_rows", "loss_of", "minimum_rows", "sharpness_rows", "slice_rows"]

#: The paper's mixtures on both scales. F = 0 and F = 0.5 are the same on both.
MIXTURES: dict[str, Weights] = {
    "ce": Weights(1.0, 0.0),
    "f0": weights(0.0),
    **{f"f{focus:g}": weights(focus) for focus in (0.1, 0.2, 0.3, 0.4)},
    **{f"f{focus:g}-unit": weights(focus, "unit") for focus in (0.1, 0.2, 0.3, 0.4)},
    "el": weights(0.5),
}


def loss_of(value: Weights) -> PerExample:
    """alpha CE + beta EL of each example."""
    return functools.partial(crossfade_loss, alpha=value.alpha, beta=value.beta, reduction="none")


def _batches(data: Arrays, examples: int) -> list[Batch]:
    """Return the first training examples in batches."""
    return list(zip(torch.split(data.x[:examples], 256), torch.split(data.y[:examples], 256), strict=True))


def along_rows(model: nn.Module, data: Arrays, examples: int, probes: int, seed: int) -> Iterator[Row]:
    """One row for each mixture, all from the same probes at the same weights."""
    batches = _batches(data, examples)
    found = escaping_efficiency(model, batches, probes=probes, seed=seed)
    concave = _concave_share(model, batches, found.dimension, seed)
    for name, value in MIXTURES.items():
        yield {**_row(found, name, value), "concave_share": concave}


def _row(found: EscapingEfficiency, name: str, value: Weights) -> dict[str, object]:
    """With m = 1: a batch of m divides every Tr(Sigma) and Tr(H Sigma) by m."""
    product, noise, gain = found.trace_product(value), found.trace_noise(value), found.gain(value)
    row: dict[str, object] = {
        "mixture": name, "alpha": value.alpha, "beta": value.beta, "probes": product.probes,
        "dimension": found.dimension, "max_p": found.max_p, "gradient_norm2": found.gradient_norm2(value),
        "tr_sigma": noise.value, "tr_h": found.trace_hessian(value).value,
        "tr_h_sigma": product.value, "tr_h_sigma_se": product.se, "gain": gain.value, "gain_se": gain.se,
        "matched_ratio": found.matched_ratio(value), "tr_hp_fp": found.trace_hp_fp.value,
        "tr_hp_fp_se": found.trace_hp_fp.se, "tr_fp_fp": found.trace_fp_fp.value,
    }  # fmt: skip
    if value.alpha == 1.0 and value.beta > 0:
        printed, derived = found.printed_margin(value.beta), found.derived_margin(value.beta)
        row |= {
            "printed_bound": found.printed_bound(value.beta).value, "printed_margin": printed.value,
            "printed_margin_se": printed.se, "derived_bound": found.derived_bound(value.beta).value,
            "derived_margin": derived.value, "derived_margin_se": derived.se,
        }  # fmt: skip
    return row


def _concave_share(model: nn.Module, batches: Sequence[Batch], dimension: int, seed: int, directions: int = 4) -> float:
    """The share of (example, random direction) pairs along which p_y is concave, as the derivation of (18) assumes."""
    generator = torch.Generator().manual_seed(seed)
    shares = []
    for _ in range(directions):
        direction = torch.randn(dimension, generator=generator)
        shares.append(float((concavity(model, batches, direction) >= 0).float().mean()))
    return sum(shares) / len(shares)


def minimum_rows(data: Arrays, kind: str, probes: int, walkers: int) -> Iterator[Row]:
    """For CE, and from CE's end for each mixture: L-BFGS to a stationary point, (18) there, the rise under SGD.

    A small ridge (1e-3 |W|^2 / 2) keeps the minimum at finite weights; the measurements are of the loss without it, as
    eq. (16)-(18) are, and ``gradient_norm2`` says what it leaves.
    """
    torch.manual_seed(0)
    x, y = data.x[:1000].double(), data.y[:1000]
    inputs, classes = x.shape[1], data.classes
    hidden = [nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, classes)]  # smooth, so that L-BFGS gets to the bottom
    model = (nn.Linear(inputs, classes) if kind == "linear" else nn.Sequential(*hidden)).double()
    end_of_ce: dict[str, Tensor] = {}
    for name in ("ce", "f0", "f0.2", "f0.4", "f0.4-unit", "el"):
        value = MIXTURES[name]
        if end_of_ce:
            model.load_state_dict(end_of_ce)
        _descend(model, x, y, value)
        end_of_ce = end_of_ce or {key: tensor.clone() for key, tensor in model.state_dict().items()}
        found = escaping_efficiency(model, [(x, y)], probes=probes, seed=0)
        concave = _concave_share64(model, x, y, found.dimension)
        rise = _rise(model, x, y, value, walkers)
        yield {"network": kind, **_row(found, name, value), "concave_share": concave, **rise}


def _concave_share64(model: nn.Module, x: Tensor, y: Tensor, dimension: int) -> float:
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(dimension, generator=generator, dtype=torch.float64)
    return float((concavity(model, [(x, y)], direction) >= 0).double().mean())


_RIDGE = 1e-3


def _objective(model: nn.Module, x: Tensor, y: Tensor, value: Weights) -> Tensor:
    squares = torch.stack([p.square().sum() for p in model.parameters()]).sum()
    return loss_of(value)(model(x), y).mean() + _RIDGE / 2 * squares


def _descend(model: nn.Module, x: Tensor, y: Tensor, value: Weights) -> None:
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=2000, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _objective(model, x, y, value)
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def _rise(model: nn.Module, x: Tensor, y: Tensor, value: Weights, walkers: int) -> Row:
    """The mean rise of the loss with its ridge over SGD steps from here."""
    rate, m = 0.05, 16
    named = {name: p.detach() for name, p in model.named_parameters()}
    start = {name: p.expand(walkers, *p.shape).clone() for name, p in named.items()}

    def objective(parameters: dict[str, Tensor], rows_x: Tensor, rows_y: Tensor) -> Tensor:
        loss = loss_of(value)(torch.func.functional_call(model, parameters, (rows_x,)), rows_y).mean()
        return loss + _RIDGE / 2 * torch.stack([p.square().sum() for p in parameters.values()]).sum()

    gradient = torch.func.vmap(torch.func.grad(objective), in_dims=(0, 0, 0))
    everywhere = torch.func.vmap(objective, in_dims=(0, None, None))
    generator = torch.Generator().manual_seed(0)
    base = float(objective(named, x, y))
    current, rises = start, {}
    for step in range(1, 51):
        rows = torch.randint(0, len(y), (walkers, m), generator=generator)
        slopes = gradient(current, x[rows], y[rows])
        current = {name: p - rate * slopes[name] for name, p in current.items()}
        if step in (1, 10, 50):
            excess = everywhere(current, x, y) - base
            rises[f"rise{step}"] = float(excess.mean())
            rises[f"rise{step}_se"] = float(excess.std()) / walkers**0.5
    return {"sgd_rate": rate, "sgd_batch": m, "ridge": _RIDGE, **rises}


def sharpness_rows(model: nn.Module, data: Arrays, examples: int) -> Iterator[Row]:
    """The largest eigenvalue of the Hessian of CE, F = 0 and EL at this solution, and accuracy and losses there."""
    batches = _batches(data, examples)
    with torch.no_grad():
        test = torch.cat([model(part) for part in torch.split(data.x_test, 500)])
    accuracy = float((test.argmax(1) == data.y_test).double().mean())
    test_ce = float(torch.nn.functional.cross_entropy(test, data.y_test))
    for name in ("ce", "f0", "el"):
        value, _ = largest_eigenvalue(model, batches, loss_of(MIXTURES[name]), tolerance=1e-2)
        with torch.no_grad():
            train = torch.cat([loss_of(MIXTURES[name])(model(x), y) for x, y in batches])
        yield {
            "loss": name, "largest_eigenvalue": value, "train_loss": float(train.mean()), "test_accuracy": accuracy,
            "test_ce": test_ce,
        }  # fmt: skip


def slice_rows(model: nn.Module, data: Arrays, examples: int, points: int = 11) -> Iterator[Row]:
    """1-D and 2-D slices of CE and of EL along filter-normalised random directions (the same for every solution)."""
    batches = _batches(data, min(examples, 512))
    first, second = random_direction(model, 0), random_direction(model, 1)
    steps = torch.linspace(-1, 1, points).tolist()
    for name in ("ce", "el"):
        line = loss_slice(model, batches, loss_of(MIXTURES[name]), [first], steps)
        for s, loss in zip(steps, line.tolist(), strict=True):
            yield {"loss": name, "s": s, "t": None, "value": loss}
        plane = loss_slice(model, batches, loss_of(MIXTURES[name]), [first, second], steps)
        for s, row in zip(steps, plane.tolist(), strict=True):
            for t, loss in zip(steps, row, strict=True):
                yield {"loss": name, "s": s, "t": t, "value": loss}
