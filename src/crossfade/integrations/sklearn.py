"""A classifier for scikit-learn, trained by skorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from torch import Tensor, nn

from crossfade.calibration import Temperature, fit_temperature
from crossfade.integrations._shared import with_reduction
from crossfade.integrations.skorch import CrossfadeCallback, softmax
from crossfade.losses import CrossfadeLoss, Fade
from crossfade.schedules import Schedule


@dataclass(eq=False, repr=False)
class CrossfadeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A neural network classifier for tables, trained with a crossfade: a scikit-learn estimator.

    Works in pipelines, ``GridSearchCV``, ``clone`` and pickles. Inputs are not scaled: put a ``StandardScaler``
    before it.

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), CrossfadeClassifier(max_epochs=50, random_state=0)).fit(X, y)
    >>> model.predict_proba(X).shape
    (150, 3)

    Args:
        schedule: from :mod:`crossfade.schedules`; None means ``gradual()``. It advances by epochs.
        module: a function (n_features, n_classes) -> ``nn.Module`` that returns logits (N, C). None means one hidden
            layer of ``hidden_units`` rectified linear units.
        hidden_units: width of the default network.
        optimizer: class of a torch optimizer, called with the parameters, ``lr`` and ``weight_decay``.
        max_epochs, batch_size, lr, weight_decay: training. The whole set is one batch when it is smaller than
            ``batch_size``.
        class_weight: None, "balanced" or {label: weight}; multiplies ``sample_weight``, outside p.
        label_smoothing: as ``nn.CrossEntropyLoss``'s.
        calibrate: fit one temperature that the logits are divided by (`crossfade.fit_temperature`) on a fifth of each
            class' rows, drawn with ``random_state``. They take no part in training. No answer changes, but what
            ``predict_proba`` says of it. NLL counts rows by ``sample_weight``, classes by no ``class_weight``.
        criterion: a ``Fade`` to train on instead of the mixture of ``schedule``, with options of its own.
        callbacks: skorch callbacks.
        device: of the network, such as "cuda".
        random_state: seeds the network's initial weights and the batches' order; torch's global generator stays as it
            was.
        verbose: 1 prints skorch's table of epochs.

    Attributes:
        classes_: labels, (n_classes,).
        n_features_in_, feature_names_in_: of ``fit``'s X.
        module_: the trained network, which returns logits as they were before the temperature. ``net_`` is the skorch
            net around it, ``history_`` its record of epochs.
        temperature_: what ``predict_proba`` divides logits by; 1 without ``calibrate``.

    The network computes in X's floating type: pass float32 for speed (integers count as float64).
    """

    schedule: Schedule | None = None
    _: KW_ONLY
    module: Callable[[int, int], nn.Module] | None = None
    hidden_units: int = 64
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW
    max_epochs: int = 100
    batch_size: int = 128
    lr: float = 0.01
    weight_decay: float = 0.0
    class_weight: dict[Any, float] | str | None = None
    label_smoothing: float = 0.0
    calibrate: bool = False
    criterion: Fade | None = None
    callbacks: list[Callback] | None = None
    device: str = "cpu"
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train from scratch.

        Args:
            X: (N, n_features) numbers. y: (N,) labels of any kind.
            sample_weight: (N,), >= 0. A row with weight 0 takes no part, and if the whole set is one batch, a row with
                weight 2 counts exactly like two equal rows.

        Raises:
            ValueError: data that scikit-learn's checks refuse; a size or a number of epochs below 1; no row with a
                weight above 0; a ``criterion`` beside a ``schedule`` or ``label_smoothing``.
        """
        for name in ("hidden_units", "max_epochs", "batch_size"):
            value = getattr(self, name)
            if value < 1 and (name, value) != ("batch_size", -1):  # skorch's -1: the whole set
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        features, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, target = np.unique(labels, return_inverse=True)
        given = _check_sample_weight(sample_weight, features, dtype=features.dtype, ensure_non_negative=True)
        weight = given * compute_sample_weight(self.class_weight, labels)
        kept, generator = weight > 0, check_random_state(self.random_state)
        if not kept.any():
            raise ValueError("sample_weight must be above 0 for at least one row, got none")
        seed = generator.randint(np.iinfo(np.int32).max)
        held = _fifth(np.where(kept, target, -1), generator) if self.calibrate else np.zeros_like(kept)
        kept &= ~held
        rows = {
            "X": torch.from_numpy(features[kept]),
            "weight": torch.from_numpy((weight[kept] / weight[kept].mean()).astype(features.dtype)),
        }
        kind = torch.device(self.device).type
        with torch.random.fork_rng([self.device] if kind == "cuda" else []):
            if kind == "cpu":
                torch.default_generator.manual_seed(seed)
            else:  # seeds all accelerators, of which the fork restores this one
                torch.manual_seed(seed)
            self.net_ = self._net(rows["X"].dtype).fit(rows, torch.from_numpy(target[kept]))
        self.temperature_ = self._temperature(features[held], target[held], given[held]) if self.calibrate else 1.0
        self.net_.predict_nonlinearity = partial(softmax, temperature=self.temperature_)
        self.module_ = self.net_.module_
        self.history_ = self.net_.history
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Return the probabilities of ``classes_``, (N, n_classes); rows sum to one."""
        check_is_fitted(self)
        dtype = next(self.module_.parameters()).dtype
        features = validate_data(self, X, reset=False, dtype=np.float64 if dtype == torch.float64 else np.float32)
        probabilities: NDArray[np.floating[Any]] = self.net_.predict_proba({"X": torch.from_numpy(features)})
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each row, (N,)."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def _temperature(self, *rows: NDArray[Any]) -> float:
        """Return the temperature for these features, class numbers and weights; warn if NLL has no minimum."""
        features, target, weight = map(torch.from_numpy, rows)
        found = Temperature(1.0, bounded=True)
        if len(target):
            found = fit_temperature(self.net_.forward({"X": features}), target, weight)
        if found.bounded:
            why = "NLL has no minimum on the rows held out" if len(target) else "no class has five rows to hold one out"
            warnings.warn(f"calibrate: {why}; temperature_ is {found.value:g}", stacklevel=3)
        return found.value

    def _net(self, dtype: torch.dtype) -> _WeightedNet:
        inputs, hidden, outputs = self.n_features_in_, self.hidden_units, len(self.classes_)
        if self.module is not None:
            module = self.module(inputs, outputs)
        else:
            module = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        if self.criterion is not None and (self.schedule is not None or self.label_smoothing):
            raise ValueError("criterion replaces schedule and label_smoothing: leave them at their defaults")
        mixture = CrossfadeLoss(self.schedule, label_smoothing=self.label_smoothing)
        return _WeightedNet(
            module.to(dtype),
            criterion=with_reduction(copy.deepcopy(self.criterion or mixture), "none"),
            optimizer=self.optimizer,
            optimizer__weight_decay=self.weight_decay,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            iterator_train=_Batches,
            iterator_train__shuffle=True,
            iterator_valid=_Batches,
            train_split=None,
            predict_nonlinearity=softmax,
            callbacks=[CrossfadeCallback(), *copy.deepcopy(self.callbacks or [])],
            device=self.device,
            verbose=self.verbose,
        )


def _fifth(target: NDArray[Any], generator: np.random.RandomState) -> NDArray[np.bool_]:
    """Return which rows are held out: a fifth of each class, drawn and rounded down; none of class -1."""
    held = np.zeros(len(target), bool)
    for label in np.unique(target[target >= 0]):
        rows = generator.permutation(np.flatnonzero(target == label))
        held[rows[: len(rows) // 5]] = True
    return held


class _WeightedNet(NeuralNetClassifier):  # type: ignore[misc]
    """A net whose loss is the mean of weighted row losses. The weights are part of X and have the mean 1."""

    def infer(self, x: dict[str, Tensor], **fit_params: Any) -> Any:
        return super().infer(x["X"], **fit_params)

    def get_loss(self, y_pred: Tensor, y_true: Tensor, X: Any = None, training: bool = False) -> Tensor:
        losses: Tensor = super().get_loss(y_pred, y_true, X=X, training=training)
        weight: Tensor = X["weight"].to(losses.device)
        return (losses * weight).mean()


@dataclass
class _Batches:
    """A loader with the arguments that skorch gives a ``DataLoader``. Slicing is faster than collating single rows."""

    dataset: Dataset
    batch_size: int
    shuffle: bool = False

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        count = len(self.dataset)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        rows, labels = self.dataset.X, self.dataset.y
        for index in torch.split(order, self.batch_size):
            # For predictions there are no labels, and skorch doesn't look at what comes in their place.
            yield {name: values[index] for name, values in rows.items()}, index if labels is None else labels[index]
