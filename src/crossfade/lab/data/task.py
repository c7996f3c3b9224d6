"""A table as a task: one stratified split for each repeat, preprocessed by what its training part alone can tell."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.data.columns import MAX_CATEGORIES
from crossfade.lab.data.split import Split, entry
from crossfade.lab.data.table import Table, content_digest
from crossfade.lab.trial import Shape, stream_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.compose import ColumnTransformer

# A feature some hundred standard deviations out (amounts, counts) would make the first step of SGD its last.
_CLIP = 10.0
_LARGEST = 4 << 30  # bytes of one repeat's inputs


@dataclass(frozen=True, eq=False)
class TableTask:
    """A table, and how its rows are divided.

    Args:
        table: The rows.
        test_size: Share of the rows in the test part, in (0, 1); the validation part is as large. With fixed test
            rows it is the validation part's share of the others.
        seed: The user's number; another one gives other splits, initial weights and batches.
    """

    table: Table
    test_size: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        rows, classes = len(self.table.labels), len(self.table.classes)
        part = int(np.ceil(self.test_size * rows))
        parts = 1 if self.table.test else 2
        if part < classes or rows - parts * part < classes:
            raise UserError(
                f"{self.table.source}: {rows} rows can't be divided so that each part holds all {classes} classes "
                f"(test size {self.test_size:g}: {part} rows); change --test-size, add rows or merge classes"
            )
        counts = np.bincount(self.table.labels, minlength=classes)
        kept = counts  # at least so many rows of each class are left to train on, however the draws fall
        for left in [rows - part * done for done in range(parts)]:
            kept = kept * (left - part) // left
        if not kept.all():
            small = int(np.argmin(np.where(kept == 0, counts, rows)))
            raise UserError(
                f"{self.table.source}: class {self.table.classes[small]!r} has {counts[small]} rows, too few to leave "
                f"one to train on at test size {self.test_size:g}; lower --test-size, add rows, or merge the class"
            )

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.table.name

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What decides the numbers: values, division, seed, and the number of this module's way to preprocess."""
        return {
            "data": content_digest(self.table),
            "test_size": self.test_size,
            "seed": self.seed,
            "preprocessing": 1,
            "fixed_test": self.table.test is not None,
        }

    @cached_property
    def shape(self) -> Shape:
        """Rows, inputs and classes, roughly."""
        categories = [self.table.features[c.name].nunique() for c in self.table.columns if c.kind == "category"]
        inputs = sum(min(number, MAX_CATEGORIES) for number in categories) + len(self.table.columns) - len(categories)
        return Shape(len(self.table.labels), inputs, len(self.table.classes))

    def split(self, repeat: int) -> Split:
        """Return the rows of one repeat as float32, by a pipeline fitted on its training part alone.

        Raises:
            UserError: the inputs would not fit into memory, or aren't finite.
        """
        parts = self._parts(repeat)
        pipeline = preprocessor(self.table)
        with warnings.catch_warnings():  # unseen categories and all-missing training columns: handled as documented
            warnings.simplefilter("ignore", UserWarning)
            inputs = [pipeline.fit_transform(parts[0][0])]
            self._check_size(inputs[0].shape[1])
            inputs += [pipeline.transform(features) for features, _ in parts[1:]]
        x = [np.ascontiguousarray(part, dtype=np.float32) for part in inputs]
        if not all(np.isfinite(part).all() for part in x):
            raise UserError(f"{self.table.source}: a column's numbers are too large to be scaled; rescale or --drop it")
        (_, y_train), (_, y_val), (_, y_test) = parts
        return Split(x[0], y_train, x[1], y_val, x[2], y_test, len(self.table.classes))

    def describe(self) -> dict[str, Any]:
        """Return one entry of the report's ``datasets``."""
        sizes = [len(labels) for _, labels in self._parts(0)]
        table, features, classes = self.table, len(self.table.columns), len(self.table.classes)
        return entry(table.name, table.source, features=features, classes=classes, sizes=sizes, sha256=table.sha256)

    def _parts(self, repeat: int) -> list[tuple[Any, NDArray[np.int64]]]:
        """Return (features, labels) of the training, the validation and the test part."""
        from sklearn.model_selection import train_test_split

        table, state = self.table, stream_seed(self.content, repeat, "split") % 2**32
        rows = np.arange(len(table.labels))
        part = int(np.ceil(self.test_size * len(rows)))
        held = []
        for number in range(1 if table.test else 2):
            rows, out = train_test_split(
                rows, test_size=part, stratify=table.labels[rows], random_state=(state + number) % 2**32
            )
            held.append(out)
        chosen = [rows, *reversed(held)]
        parts = [(table.features.iloc[at], table.labels[at]) for at in chosen]
        return [*parts, table.test] if table.test else parts

    def _check_size(self, inputs: int) -> None:
        needed = 4 * inputs * (len(self.table.labels) + (len(self.table.test[1]) if self.table.test else 0))
        if needed > _LARGEST:
            raise UserError(
                f"{self.table.source}: {len(self.table.labels)} rows of {inputs} inputs need {needed / 2**30:.0f} GiB; "
                "use fewer rows, or --drop columns with many categories"
            )


def preprocessor(table: Table) -> ColumnTransformer:
    """Return the scikit-learn pipeline, not yet fitted.

    Numbers and dates: the median for missing cells with a column that says so, zero mean and unit variance, cut at
    +-10 standard deviations. Categories: one column each, the rarest pooled, a missing cell is a category; a category
    first met after training counts as a rare one.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    numbers = [column.name for column in table.columns if column.kind != "category"]
    categories = [column.name for column in table.columns if column.kind == "category"]
    median = SimpleImputer(strategy="median", add_indicator=True)
    own_category = SimpleImputer(strategy="constant", fill_value="(missing)")
    cut = FunctionTransformer(np.clip, kw_args={"a_min": -_CLIP, "a_max": _CLIP})
    encoder = OneHotEncoder(
        drop="if_binary", handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False
    )
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(median, StandardScaler(), cut), numbers),
            ("categories", make_pipeline(own_category, encoder), categories),
        ],
        sparse_threshold=0.0,
    )
