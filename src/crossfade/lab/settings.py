"""The settings of a comparison, in groups; what isn't given has a usual value, which depends on the data."""

# Without annotations from the future: the command line makes options of these fields, and reads their types.

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from crossfade.errors import UserError
from crossfade.lab.checks import Noise, Precision, check_choice, check_count, check_positive, check_seed, check_share
from crossfade.lab.trial import Json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Kind(Enum):
    """The kind of data that losses are compared on."""

    TABLE = "a table"
    TEXTS = "texts"
    IMAGES = "a folder of images"


TABLE, TEXTS, IMAGES = Kind
OTHER = (TEXTS, IMAGES)  # than a table


def given(group: "DataclassInstance") -> Json:
    """Return the fields of a dataclass that have another value than their default, by their names."""
    return {one.name: getattr(group, one.name) for one in fields(group) if getattr(group, one.name) != one.default}


@dataclass(frozen=True)
class _Group:
    """Settings that are checked and brought into one form; None is not given."""

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for name, value in given(self).items():
            kind = next(iter(get_args(types[name])), types[name])  # without "| None"
            object.__setattr__(self, name, _checked(name, kind, value))


@dataclass(frozen=True)
class Data:
    """The columns and rows of a table that are used.

    Attributes:
        target: The column with the class.
        test: Another table with rows to test on; otherwise every repeat draws its own.
        categorical: Columns whose numbers are names of categories; also the target, if its many numbers are classes.
        drop: Columns to leave out.
        merge_rare: Classes with fewer rows than this become one, "other".
        drop_rare: Rows of classes with fewer rows than this are left out.
        group: Rows with the same value here, such as those of one patient, stay in one part; the column is no input.
        time: The latest rows by this column are for testing, those before them for validation; it is no input.
    """

    target: str | None = None
    test: Path | None = None
    categorical: tuple[str, ...] | None = None
    drop: tuple[str, ...] | None = None
    merge_rare: int | None = None
    drop_rare: int | None = None
    group: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class Texts(_Group):
    """Settings of texts alone.

    Attributes:
        text: The column with the texts; two columns for pairs of texts (with bert).
        max_length: Words (with bert tokens) that are kept of a text. [default: 128]
        accumulate: With bert: a step's batch comes in so many parts. [default: 1]
    """

    text: tuple[str, ...] | None = None
    max_length: int | None = None
    accumulate: int | None = None


@dataclass(frozen=True)
class Images(_Group):
    """Settings of images alone.

    Attributes:
        image_size: Pixels a side. [default: 32 for images up to 40 pixels, else 64; 224 if pretrained]
        augment: Crop, flip and rotate by up to 10 degrees (full), only flip, or none. [default: full]
        pretrained: Start from torchvision's weights.
    """

    image_size: int | None = None
    augment: Literal["full", "flip", "none"] | None = None
    pretrained: bool = False


@dataclass(frozen=True)
class Training(_Group):
    """The training of the networks, whatever the data are.

    Attributes:
        methods: Losses to compare, see `crossfade list`, or "all". ce-matched has the step size of gradual without its
            shape. [default: ce,f0,f0-late,gradual; tables: + el,focal,ce-matched; images: + ce-matched]
        loss: Your own loss g(ce), as module:function or file.py:function.
        schedule: Your own fade: a function of progress in [0, 1] that returns (alpha, beta), named like a loss.
        repeats: Splits of the data, with their own initial weights. [default: tables: 10; texts: 5; images: 3]
        seed: Another number gives other splits, weights and batches. [default: 0]
        test_size: Share of the data to test on; as much is for validation. [default: 0.2]
        split: Tables: folds, so that the repeats test every row equally often, or random test rows.
            [default: folds; random with --test, --group or --time]
        net: Tables: mlp (ReLU) or linear. Texts: lstm, or bert:NAME with a model of the Hugging Face hub or a folder.
            Images: resnet20, resnet32, resnet18_small, ... or a classifier of torchvision.
            [default: tables: mlp; texts: lstm; images: resnet20]
        width: Units in a hidden layer; of texts: cells of an LSTM, and numbers in a word's vector.
            [default: as many as inputs; texts: 50]
        depth: Hidden layers; layers of an LSTM. [default: 1]
        epochs: Passes over the training data. [default: tables: 50; texts: 10, with bert 3; images: 60]
        batch_size: Examples in a step, over all devices.
            [default: tables: 8; texts: 64, with bert 32, fewer for few texts; images: 64]
        learning_rates: Tables: tried for each method; the best on validation rows counts.
            [default: 0.1,0.03,0.01,0.003,0.001, and further ones where the best is the first or the last]
        learning_rate: Texts: of Adam; of AdamW with bert, falling to zero. [default: 0.001; with bert 0.00002]
            Images: falls tenfold at 1/2, 2/3 and 5/6 of the training. [default: 0.1; pretrained 0.01]
        momentum: Tables: of SGD. [default: 0.9]
        weight_decay: Of SGD. [default: tables: 0; images: 0.0001]
        lr_schedule: Tables: every method's rate stays constant, or falls to 0 as a cosine does. [default: constant]
        granularity: Tables: schedules move at every epoch or at every step. [default: epoch]
        metric: Tables: the score that chooses the rate and the epoch, and is compared: accuracy, balanced accuracy, or
            macro-F1. [default: accuracy]
        select: The epoch that counts: best on validation data, or last, so that schedules are judged at their end.
            [default: best]
        tie: Tables: what counts of equal validation scores: the mean over all of them (expected), or one rate and its
            first epoch, last, or that of the lowest loss. [default: expected]
        precision: Images, and texts with bert. [default: 32-true]
        label_noise: Share of the training rows that get a wrong label, drawn at random: how much your data would bear.
            Test rows keep theirs. [default: none]
        noise_kind: Wrong labels are symmetric, each other class equally often, or class-dependent: each class but the
            last loses this share of its rows to the class after it, in their order. [default: symmetric]
        noisy_validation: Validation rows get wrong labels, too, as where nobody knows which labels are right.
        equivalent: Differences up to so many points don't matter: the probability that the true one is so small is
            told, and what is probable is called practically equivalent.
    """

    methods: tuple[str, ...] | None = None
    loss: tuple[str, ...] | None = None
    schedule: tuple[str, ...] | None = None
    repeats: int | None = None
    seed: int | None = None
    test_size: float | None = None
    split: Literal["folds", "random"] | None = None
    net: str | None = None
    width: int | None = None
    depth: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rates: tuple[float, ...] | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    lr_schedule: Literal["constant", "cosine"] | None = None
    granularity: Literal["epoch", "step"] | None = None
    metric: Literal["accuracy", "balanced", "f1"] | None = None
    select: Literal["best", "last"] | None = None
    tie: Literal["expected", "first", "last", "loss"] | None = None
    precision: Precision | None = None
    label_noise: float | None = None
    noise_kind: Noise | None = None
    noisy_validation: bool = False
    equivalent: float | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that decides a comparison's numbers, except the data."""

    training: Training = Training()
    texts: Texts = Texts()
    images: Images = Images()

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "Settings":
        """Return settings from values by their names, of which None is not given; an unknown name is a UserError."""
        place = {field.name: at for at, group in enumerate((Training, Texts, Images)) for field in fields(group)}
        said: tuple[Json, ...] = ({}, {}, {})
        for name, value in values.items():
            if name not in place:
                near = difflib.get_close_matches(name, place, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(place)}"
                raise UserError(f"setting {name!r} is unknown ({hint})")
            if value is not None:
                said[place[name]][name] = value.tolist() if hasattr(value, "tolist") else value  # NumPy's numbers
        return cls(Training(**said[0]), Texts(**said[1]), Images(**said[2]))

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """Return the settings of a TOML file; names may be written with ``-`` or ``_``."""
        try:
            with path.open("rb") as file:
                raw = tomllib.load(file)
            return cls.of({name.replace("-", "_"): value for name, value in raw.items()})
        except OSError as error:
            reason = f"can't be read ({error.strerror})"
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            reason = f"not valid TOML ({error})"
        except UserError as error:
            reason = str(error)
        raise UserError(f"--config {path}: {reason}")

    def given(self, *names: str) -> Json:
        """Return the settings that are given, by their names: all, or those of these names."""
        found = given(self.training) | given(self.texts) | given(self.images)
        return {name: value for name, value in found.items() if not names or name in names}


# What options need that don't suit all data: the data in words, their kinds, and the names of the options.
_NEEDS: dict[str, tuple[tuple[Kind, ...], tuple[str, ...]]] = {
    "a table": (
        (TABLE, TEXTS),
        ("target", "test", "categorical", "merge_rare", "drop_rare", "width", "depth", "workers"),
    ),
    "a table without --text": (
        (TABLE,),
        ("drop", "split", "group", "time", "momentum", "lr_schedule", "granularity", "metric", "tie"),
    ),
    "a table without --text; other data have --learning-rate": ((TABLE,), ("learning_rates",)),
    "a table without --text, or a folder of images": ((TABLE, IMAGES), ("weight_decay",)),
    "a table with --text COLUMN": ((TEXTS,), ("text", "max_length", "accumulate")),
    "a folder of images, or a table with --text COLUMN": (OTHER, ("precision", "accelerator", "devices", "nodes")),
    "a folder of images, or a table with --text COLUMN; a table alone has --learning-rates": (
        OTHER,
        ("learning_rate",),
    ),
    "a folder of images": ((IMAGES,), ("pretrained", "image_size", "augment", "compile", "logger", "keep_weights")),
}


def check_kind(kind: Kind, where: str, names: Iterable[str]) -> None:
    """Raise UserError for an option of these names that doesn't suit the data in the file or folder ``where``."""
    for name in names:
        for needed, (kinds, names) in _NEEDS.items():
            if name in names and kind not in kinds:
                what = "not a folder" if IMAGES in kinds else kind.value
                raise UserError((f"{where}: {what}; " if where else "") + f"{option(name)} needs {needed}")


def option(name: str) -> str:
    """Return a setting's name as the command line writes it."""
    return "--" + name.replace("_", "-")


def _checked(name: str, kind: object, value: object) -> object:
    """Return a setting of this type in the one form that it has in a store."""
    shown = name.replace("_", "-")
    if get_origin(kind) is Literal:
        check_choice(shown, value, get_args(kind))
    elif name == "seed":
        check_seed(value)
    elif kind is int:
        check_count(shown, value)
        if name == "image_size" and value not in range(8, 1025):
            raise UserError(f"{shown} must be from 8 to 1024 pixels, got {value}")
    elif kind is float:
        return _number(name, value)
    elif kind == tuple[float, ...]:
        rates = tuple(dict.fromkeys(_number(name, rate) for rate in _several(value)))
        if not rates:
            raise UserError(f"{shown} must be one or more numbers above 0, got none")
        return rates
    elif kind == tuple[str, ...]:
        words = _several(value)
        if not all(isinstance(word, str) and word.strip() for word in words):
            raise UserError(f"{shown}: expected names, separated by commas, got {value!r}")
        return tuple(words) if name == "text" else tuple(dict.fromkeys(word.strip() for word in words))
    elif type(value) is not kind:
        raise UserError(f"{shown} must be {'true or false' if kind is bool else 'a name'}, got {value!r}")
    return value


def _several(value: object) -> Sequence[Any]:
    """Return a list or tuple as it is, words separated by commas as several, and anything else as one."""
    if isinstance(value, str):
        return value.split(",")
    return value if isinstance(value, list | tuple) else [value]


def _number(name: str, value: object) -> float:
    """Return a number in the setting's range as a float: 0 and 0.0 would be two keys in a store."""
    shown = name.replace("_", "-")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{shown} must be a number, got {value!r}")
    if name == "label_noise" and not 0.0 < value < 1.0:
        raise UserError(f"{shown} must be a share above 0 and below 1, got {value!r}")
    if name == "momentum":
        check_share(shown, float(value))
    elif name not in ("test_size", "label_noise"):
        check_positive(shown, float(value), zero=name == "weight_decay")
    elif name == "test_size" and not 0.0 < value < 0.5:
        raise UserError(f"{shown} must be above 0 and below 0.5 (as much is for validation), got {value!r}")
    return float(value)
