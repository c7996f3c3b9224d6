"""Synthetic results with the columns and the meta of a real comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

SCHEDULES: dict[str, list[tuple[float, float, float]] | None] = {
    "ce": [(0.0, 1.0, 0.0)],
    "f0": [(0.0, 1.0, 1.0)],
    "f0-late": [(0.0, 1.0, 1.0), (0.95, 0.0, 1.0)],
    "gradual": [(k / 6, 1.0, 1 / (1 - 0.2 * k)) if k < 5 else (5 / 6, 0.0, 1.0) for k in range(6)],
    "el": [(0.0, 0.0, 1.0)],
    "focal": None,
}


def names(methods: int) -> list[str]:
    """Names of the first methods; invented ones after those of the default comparison."""
    return [*SCHEDULES, *(f"loss{k}" for k in range(methods))][:methods]


def make(
    datasets: list[str] | int, methods: list[str] | int, repeats: int, epochs: int = 50, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Results, curves and meta of a comparison that finished."""
    rng = np.random.default_rng(seed)
    tasks = datasets if isinstance(datasets, list) else [f"data{k}" for k in range(datasets)]
    losses = methods if isinstance(methods, list) else names(methods)
    keys, results, curves = [], [], []
    for t, task in enumerate(tasks):
        n_test, level = 40 + 35 * t, rng.uniform(0.75, 0.97)
        for repeat in range(repeats):
            shared = rng.normal(0, 0.02)
            for m, loss in enumerate(losses):
                p = float(np.clip(level + shared + rng.normal(0.002 * m, 0.01), 0.05, 1))
                keys.append({"dataset": task, "method": loss, "repeat": repeat})
                results.append(keys[-1] | _result(p, m, n_test, epochs, rng))
                curves.append(_curve(p, m, epochs, rng))
    labels = pd.DataFrame(keys).loc[np.repeat(np.arange(len(keys)), epochs)].reset_index(drop=True)
    lines = {column: np.concatenate([curve[column] for curve in curves]) for column in curves[0]}
    return pd.DataFrame(results), labels.assign(**lines), meta(tasks, losses, repeats, epochs)


def _result(p: float, m: int, n_test: int, epochs: int, rng: np.random.Generator) -> dict[str, Any]:
    accuracy = round(p * n_test) / n_test
    calibration = {"nll": (1 - accuracy) * (2 + 0.5 * m) + 0.01, "ece": 0.02 + 0.01 * m * rng.uniform(), "brier": 1 - p}
    chosen = {"learning_rate": float(rng.choice([0.01, 0.005, 0.001])), "epoch": int(rng.integers(1, epochs + 1))}
    sizes = {"n_train": 3 * n_test, "n_val": n_test, "n_test": n_test, "classes": 3}
    return {"study": "compare", "accuracy": accuracy, **calibration, **chosen, **sizes, "seconds": 0.5}


def _curve(p: float, m: int, epochs: int, rng: np.random.Generator) -> dict[str, Any]:
    done = 1 - np.exp(-np.arange(1, epochs + 1) / (epochs / 8))
    wave = rng.normal(0, 0.004, epochs)
    accuracy = {"val_accuracy": np.clip(p * done + wave, 0, 1), "test_accuracy": np.clip(p * done - wave, 0, 1)}
    nll = {"val_nll": 1.2 - done, "test_nll": (1.2 - done) * (1 + 0.3 * m), "train_loss": 1.1 - done}
    return {"epoch": np.arange(1, epochs + 1), **accuracy, **nll}


def meta(tasks: list[str], losses: list[str], repeats: int, epochs: int) -> dict[str, Any]:
    """The meta of such a comparison."""
    described = [
        {"name": task, "source": "scikit-learn load_iris", "rows": 5 * (40 + 35 * t), "features": 4 + t, "classes": 3,
         "n_train": 3 * (40 + 35 * t), "n_val": 40 + 35 * t, "n_test": 40 + 35 * t, "sha256": f"{t:02x}" * 32}
        for t, task in enumerate(tasks)
    ]  # fmt: skip
    return {
        "title": "Does fading into the expectation loss help?",
        "command": "crossfade compare data.csv --target label --repeats 10",
        "recipe": {"net": "mlp", "width": None, "depth": 1, "epochs": epochs, "batch_size": 8, "momentum": 0.9,
                   "weight_decay": 0.0, "learning_rates": (0.01, 0.005, 0.001), "granularity": "epoch", "tie": "first"},
        "versions": {"crossfade": "0.1.0", "python": "3.11.9", "torch": "2.14.1", "numpy": "2.4.6"},
        "device": "cpu", "commit": "0123abc", "control": losses[0], "missing": [], "seed": 0, "repeats": repeats,
        "datasets": described,
        "methods": [
            {"name": loss, "title": {"ce": "CE", "f0": "CE+EL F=0", "f0-late": "CE+EL F=0,0.5",
                                     "gradual": "CE+EL F=0–0.5", "el": "EL", "focal": "Focal"}.get(loss, loss),
             "schedule": SCHEDULES.get(loss), "g": "" if SCHEDULES.get(loss) else "¼ (1 − p)² ce"}
            for loss in losses
        ],
    }  # fmt: skip
