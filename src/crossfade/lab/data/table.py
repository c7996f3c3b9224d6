"""Tables with features of known kinds and class numbers, and the preprocessed parts of each repeat."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crossfade.errors import UserError
from crossfade.lab.data.columns import MAX_CATEGORIES, Column, Rare, convert, infer, labelled, without_rare
from crossfade.lab.data.reading import Rows, check_names, opened, rows_of_arrays, rows_of_files
from crossfade.lab.data.split import Split, entry
from crossfade.lab.trial import Shape, stream_seed
from crossfade.stats.words import count, listed

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

    Part = tuple[pd.DataFrame, NDArray[np.int64]]

BUILTIN = ("iris", "wine", "breast_cancer", "digits")  # real sets that ship with scikit-learn
# A value hundreds of standard deviations away (amounts, counts) would make SGD diverge in its first step.
_CLIP = 10.0
_DRAWS = 20  # of groups, until each class has rows to train on
_LARGEST = 4 << 30  # bytes of one repeat's inputs


@dataclass(frozen=True, eq=False)
class Table:
    """Rows to learn from, and ``test`` rows if the user has fixed them.

    Attributes:
        features: float64 columns (numbers, dates) and text columns (categories), NaN where missing.
        labels: The class number of each row.
        classes: The names in the order of the class numbers.
        columns: The kind of each feature column.
        test: Features and class numbers of the fixed test rows, or None.
        notes: Decisions the user should know, one line each.
        sha256: The hash of the file's bytes, or of the converted values if there is no file.
        groups: The number of each row's group, or None.
        times: The number of each row's time, in their order, or None.
    """

    name: str
    source: str
    features: pd.DataFrame
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    test: Part | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.int64] | None = None

    @property
    def independent(self) -> bool:
        """Whether each row may be tested by itself: no fixed test rows, no groups, no times."""
        return self.test is None and self.groups is None and self.times is None


def from_file(
    path: Path,
    target: str,
    *,
    test: Path | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    rare: Rare | None = None,
    group: str | None = None,
    time: str | None = None,
) -> Table:
    """Read a table and, if given, its fixed test rows; ``group`` and ``time`` are columns that divide it.

    Raises:
        UserError: a file or column that can't be used.
    """
    rows = without_rare(rows_of_files(path, target, test), rare)
    name = path.name.split(".")[0] or path.name
    table = _table(name, path.name, rows, target, categorical, drop, group=group, time=time)
    with opened(path) as file:
        return replace(table, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def from_arrays(
    X: object,
    y: object,
    *,
    name: str = "data",
    test: tuple[object, object] | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    rare: Rare | None = None,
    group: object = None,
    time: object = None,
) -> Table:
    """Return the table of NumPy arrays or pandas objects, by the same rules as a file's.

    ``group`` and ``time`` are columns' names, or values for the rows.
    """
    rows, by = rows_of_arrays(X, y, test), {"group": group, "time": time}
    for option, given in by.items():
        if given is not None and not isinstance(given, str):
            values, count = np.asarray(given), len(rows[0].frame)
            if values.shape != (count,):
                raise UserError(f"{option}: expected one value for each of {count} rows, got shape {values.shape}")
            by[option] = f"({option})"
            rows[0] = replace(rows[0], frame=rows[0].frame.assign(**{f"({option})": values}))
    table = _table(name, "Python", without_rare(rows, rare), "y", categorical, drop, **by)
    return replace(table, sha256=content_digest(table))


def load_builtin(name: str) -> Table:
    """Return one of ``BUILTIN``."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    rows = Rows(bunch.data, bunch.target, name, f"{name}: target")
    table = _table(name, f"scikit-learn load_{name}", [rows], "target", (), ())
    # The notes would only say that three pixels of the digits are always off.
    return replace(table, notes=(), sha256=content_digest(table))


def content_digest(table: Table) -> str:
    """Return the SHA-256 of the values to train on, which is the same for a CSV, a Parquet file and a data frame."""
    hashed = hashlib.sha256(repr((table.classes, [(c.name, c.kind) for c in table.columns])).encode())
    for features, codes in [(table.features, table.labels), *([table.test] if table.test else [])]:
        hashed.update(codes.tobytes())
        for column in table.columns:
            cells = features[column.name]
            if column.kind == "category":
                hashed.update("\x1f".join(cells.fillna("\x00")).encode())
            else:
                hashed.update(np.where(np.isnan(values := cells.to_numpy()), np.nan, values + 0.0).tobytes())
    return hashed.hexdigest()


def _table(
    name: str,
    source: str,
    rows: Sequence[Rows],
    target: str,
    categorical: Sequence[str],
    drop: Sequence[str],
    *,
    group: Any = None,
    time: Any = None,
) -> Table:
    """Return the table with encoded labels and converted cells; the training rows determine each column's kind.

    If ``categorical`` contains the label column, ``target``, its numbers are names of classes.
    """
    where, names = rows[0].where, rows[0].frame.columns
    categories = [column for column in categorical if column != target]
    check_names(categories, names, "--categorical", where)
    for option, wanted in {"--drop": drop, "--group": [group], "--time": [time]}.items():
        if target in wanted and target not in names:
            raise UserError(f"{where}: {option} {target!r} is the target; name another column")
        check_names([column for column in wanted if column is not None], names, option, where)
    if group and time:
        raise UserError("--group and --time: rows are divided by one of them; leave out the other")
    classes, ((frame, codes), *tests), notes = labelled(rows, target in categorical)
    columns = [
        infer(frame[column], column, where, column in categories)
        for column in names
        if column not in (*drop, group, time)
    ]
    used = tuple(column for column in columns if column.kind != "unused")
    notes += _notes(columns)
    if not used:
        raise UserError(f"{where}: no column is left to learn from ({'; '.join(notes) or 'only the target'})")
    features, held = _converted(frame, used, where), None
    hashes = _hashes(features, codes)
    for test, numbers in tests:
        missing = [column.name for column in used if column.name not in test.columns]
        if missing:
            raise UserError(
                f"{rows[1].where}: no column {missing[0]!r}, which the training data has ({len(missing)} missing)"
            )
        held = _converted(test, used, rows[1].where), numbers
        copies = int(_hashes(*held).isin(hashes).sum())
        if copies:
            notes.append(f"{copies} of {len(numbers)} test rows are training rows, too: scores there are too good")
    for column in used:
        cells = features[column.name].fillna("" if column.kind == "category" else np.inf)
        if cells.nunique() == len(classes) == len(set(zip(cells, codes, strict=True))):
            notes.append(f"column {column.name!r} equals the target: --drop it unless it is known before the class is")
    duplicates = int(hashes.duplicated().sum())
    if duplicates > len(features) // 100:
        notes.append(
            f"{duplicates} of {len(features)} rows repeat an earlier row: copies may fall into training and test parts"
        )
    groups = times = None
    if group:
        groups = _divider(frame[group], f"{where}: --group {group!r}")
        notes.append(f"column {group!r} says which rows stay together ({groups.max() + 1} groups), and is no input")
        shared = [len(set(frame[group]) & set(test[group])) for test, _ in tests if group in test]
        notes += [f"{number} groups of the test rows are in the training rows, too" for number in shared if number]
    if time:
        notes.append(f"rows are divided by column {time!r}, the same in every repeat; it is no input")
        kind = infer(frame[time], time, where)
        if kind.kind not in ("number", "date"):
            raise UserError(f"{where}: --time {time!r} must hold different numbers, dates or times")
        times = _divider(convert(frame[time], kind, where), f"{where}: --time {time!r}")
    return Table(name, source, features, codes, classes, used, held, tuple(notes), groups=groups, times=times)


def _notes(columns: Sequence[Column]) -> list[str]:
    """Return the notes on columns, one for all numbers that are written alike, such as with decimal commas."""
    alike: dict[object, list[Column]] = {}
    for column in columns:
        if column.note:
            spelling = column.spelling if column.kind == "number" else None
            alike.setdefault(spelling or id(column), []).append(column)
    return [
        f"{first.note}; {listed((one.name for one in more), 3)} likewise" if more else str(first.note)
        for first, *more in alike.values()
    ]


def _hashes(features: pd.DataFrame, codes: NDArray[np.int64]) -> pd.Series:
    """Return a hash of each row, its label included."""
    return pd.util.hash_pandas_object(features.assign(**{" label": codes}), index=False)


def _divider(values: pd.Series, where: str) -> NDArray[np.int64]:
    """Return each cell's number in the order of the different cells; none may be missing."""
    if values.isna().any():
        raise UserError(f"{where}: {int(values.isna().sum())} rows have none; fill them in, or leave these rows out")
    if values.nunique() < 3:
        raise UserError(f"{where}: has {values.nunique()} different values, and 3 are needed, one for each part")
    return pd.factorize(values.to_numpy(), sort=True)[0].astype(np.int64)  # also of numbers and words together


def _converted(frame: pd.DataFrame, used: Sequence[Column], where: str) -> pd.DataFrame:
    columns = {column.name: convert(frame[column.name], column, where) for column in used}
    return pd.DataFrame(columns).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class TableTask:
    """A table, and the division of its rows in each repeat: stratified, by groups, or by time, the same in each.

    Args:
        table: The rows.
        test_size: Share of the rows in the test part, in (0, 1); the validation part is as large. With fixed test
            rows it is the validation part's share of the other rows.
        seed: The seed of splits, initial weights and batches.
        folds: Instead of being drawn anew in each repeat, test parts are the folds of a stratified cross-validation:
            one fold a repeat, of as many as it takes to make them no larger than ``test_size``, then other folds.

    Raises:
        UserError: too few rows, of a class or in all, for this division; folds where rows aren't independent.
    """

    table: Table
    test_size: float = 0.2
    seed: int = 0
    folds: bool = False

    def __post_init__(self) -> None:
        if self.folds and not self.table.independent:
            raise UserError(
                f"{self.table.source}: fixed test rows, --group and --time leave no folds; leave --split out, too"
            )
        rows, classes = len(self.table.labels), len(self.table.classes)
        part, drawn = self._drawn
        if self.table.groups is not None or self.table.times is not None:
            self._parts(0)
            return
        if part < classes or rows - drawn * part < classes:
            raise UserError(
                f"{self.table.source}: {rows} rows can't be divided so that each part holds all {classes} classes "
                f"(test size {self.test_size:g}: {count(part, 'row')}); change --test-size, add rows or merge classes"
            )
        counts = np.bincount(self.table.labels, minlength=classes)
        if self.folds and counts.max() < (number := ceil(1 / self.test_size)):
            raise UserError(
                f"{self.table.source}: {number} folds (test size {self.test_size:g}) need a class of at least {number} "
                f"rows, and the largest has {counts.max()}; raise --test-size, or take --split random"
            )
        kept = counts  # the least number of each class's rows in the training part, whichever rows are drawn
        for left in [rows - part * done for done in range(drawn)]:
            kept = kept * (left - part) // left
        if not kept.all():
            small = int(np.argmin(np.where(kept == 0, counts, rows)))
            raise UserError(
                f"{self.table.source}: class {self.table.classes[small]!r} has {counts[small]} rows, too few to leave "
                f"one to train on at test size {self.test_size:g}; lower --test-size, add rows, or merge the class"
            )

    @property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def content(self) -> Mapping[str, object]:
        """What decides the numbers: values, division, seed, and the version of the preprocessing here."""
        by = {"groups": self.table.groups, "times": self.table.times}
        hashes = {name: hashlib.sha256(rows.tobytes()).hexdigest() for name, rows in by.items() if rows is not None}
        return {
            "data": content_digest(self.table),
            "test_size": self.test_size,
            "seed": self.seed,
            "preprocessing": 1,
            "fixed_test": self.table.test is not None or self.table.times is not None,
            **hashes,
            **({"split": "folds"} if self.folds else {}),
        }

    @cached_property
    def shape(self) -> Shape:
        """The approximate numbers of rows, inputs and classes."""
        categories = [self.table.features[c.name].nunique() for c in self.table.columns if c.kind == "category"]
        inputs = sum(min(number, MAX_CATEGORIES) for number in categories) + len(self.table.columns) - len(categories)
        return Shape(len(self.table.labels), inputs, len(self.table.classes))

    def split(self, repeat: int) -> Split:
        """Return the rows of one repeat as float32, preprocessed by a pipeline fitted on its training part alone.

        Raises:
            UserError: the inputs would not fit into memory.
        """
        (train, y_train), (val, y_val), (test, y_test) = self._parts(repeat)
        pipeline, source = _preprocessor(self.table), self.table.source
        with warnings.catch_warnings():  # unseen categories and all-missing training columns: handled as documented
            warnings.simplefilter("ignore", UserWarning)
            x_train = pipeline.fit_transform(train)
            rows, inputs = len(y_train) + len(y_val) + len(y_test), x_train.shape[1]
            if 4 * inputs * rows > _LARGEST:
                raise UserError(
                    f"{source}: {rows} rows of {inputs} inputs need {4 * inputs * rows / 2**30:.0f} GiB; use fewer "
                    "rows, or --drop columns with many categories"
                )
            x_val, x_test = pipeline.transform(val), pipeline.transform(test)
        own = None
        if self.table.groups is None:  # rows of a group aren't independent; fixed ones are numbered after the others
            own = np.arange(len(y_test)) + len(self.table.labels) if self.table.test else self._rows(repeat)[-1]
        return Split(x_train, y_train, x_val, y_val, x_test, y_test, len(self.table.classes), own)

    def describe(self) -> dict[str, str | int]:
        table, parts = self.table, [labels for _, labels in self._parts(0)]
        return entry(self, table.source, len(table.columns), parts, table.sha256)

    @property
    def _drawn(self) -> tuple[int, int]:
        """The number of rows in a part that is drawn, and the number of such parts."""
        return int(np.ceil(self.test_size * len(self.table.labels))), 1 if self.table.test else 2

    def _rows(self, repeat: int) -> list[NDArray[np.int64]]:
        """Return the places of the training, the validation and (unless the test rows are fixed) the test rows."""
        from sklearn.model_selection import StratifiedKFold

        table, state = self.table, stream_seed(self.content, repeat, "split") % 2**32
        rows, held = np.arange(len(table.labels)), []
        if self.folds:
            around, fold = divmod(repeat, ceil(1 / self.test_size))
            shuffled = stream_seed(self.content, around, "folds") % 2**32
            folds = StratifiedKFold(ceil(1 / self.test_size), shuffle=True, random_state=shuffled)
            with warnings.catch_warnings():  # a class may have fewer rows than there are folds
                warnings.simplefilter("ignore", UserWarning)
                rows, out = list(folds.split(rows, table.labels))[fold]
            held.append(out)
        for number in range(len(held), self._drawn[1]):
            rows, out = self._divided(rows, (state + number) % 2**32, number)
            held.append(out)
        lost = set(range(len(table.classes))) - set(table.labels[rows].tolist())
        if lost:
            raise UserError(
                f"{table.source}: divided by --group or --time, class {table.classes[min(lost)]!r} has no row to train "
                f"on in repeat {repeat}; lower --test-size, or merge or remove the class"
            )
        return [rows, *reversed(held)]

    def _parts(self, repeat: int) -> list[Part]:
        """Return (features, labels) of the training, the validation and the test part."""
        table = self.table
        parts = [(table.features.iloc[at], table.labels[at]) for at in self._rows(repeat)]
        return [*parts, table.test] if table.test else parts

    def _divided(self, rows: NDArray[np.int64], state: int, number: int) -> tuple[NDArray[np.int64], ...]:
        """Return the rest of the rows and those of the part that is drawn as the first (0) or second (1)."""
        from sklearn.model_selection import GroupShuffleSplit, train_test_split

        table, part = self.table, self._drawn[0]
        if table.times is not None:  # rows of one time stay together
            last = np.sort(table.times[rows])[-part:]  # of fewer rows all, and perhaps none
            first = last.min(initial=table.times.max())
            return rows[table.times[rows] < first], rows[table.times[rows] >= first]
        if table.groups is None:
            kept, out = train_test_split(rows, test_size=part, stratify=table.labels[rows], random_state=state)
            return kept, out
        share = self.test_size / (1.0 - self.test_size * number)  # of the groups that are left
        draws = GroupShuffleSplit(_DRAWS, test_size=share, random_state=state)
        try:
            found = [(rows[kept], rows[out]) for kept, out in draws.split(rows, groups=table.groups[rows])]
        except ValueError:  # so few groups that none is left
            return rows[:0], rows
        whole = len(np.unique(table.labels[rows]))  # the first draw that leaves all classes to train on
        return next((one for one in found if len(np.unique(table.labels[one[0]])) == whole), found[0])


def _preprocessor(table: Table) -> ColumnTransformer:
    """Return the scikit-learn pipeline, not yet fitted.

    Numbers and dates: missing cells get the median and a column that marks them; zero mean and unit variance, clipped
    at +-10 standard deviations. Categories: one column for each, with the rarest ones pooled and missing cells as a
    category; one that the training part lacks counts as a rare one, or, where there are none, is 0 in every column.
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
