"""The settings of a comparison, in groups; what isn't given has a usual value, which depends on the data."""

# Without annotations from the future: the command line makes options of these fields, and reads their types.

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from crossfade.errors import UserError
from crossfade.lab.train.checks import check_choice, check_count, check_positive, check_seed, check_share

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Augmentation: TypeAlias = Literal["full", "flip", "none"]
Granularity: TypeAlias = Literal["epoch", "step"]
Precision: TypeAlias = Literal["32-true", "16-mixed", "bf16-mixed"]
Tie: TypeAlias = Literal["first", "last", "loss"]


class Kind(Enum):
    """The kind of data that losses are compared on."""

    TABLE = "a table"
    TEXTS = "texts"
    IMAGES = "a folder of images"


def given(group: "DataclassInstance") -> dict[str, Any]:
    """Return the fields of a dataclass that have another value than their default, by their names."""
    values = {field.name: (getattr(group, field.name), field.default) for field in fields(group)}
    return {name: value for name, (value, default) in values.items() if value != default}


@dataclass(frozen=True)
class _Group:
    """Settings that are checked and brought into one form; None is not given."""

    def __post_init__(self) -> None:
        for name, value in given(self).items():
            object.__setattr__(self, name, _checked(name, value))


@dataclass(frozen=True)
class Data:
    """The columns and rows of a table that are used.

    Attributes:
        target: The column with the class.
        test: Another table with rows to test on; otherwise every repeat draws its own.
        categorical: Columns whose numbers are names of categories; also the target, if its many numbers are classes.
        drop: Columns to leave out.
    """

    target: str | None = None
    test: Path | None = None
    categorical: tuple[str, ...] | None = None
    drop: tuple[str, ...] | None = None


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
    augment: Augmentation | None = None
    pretrained: bool = False


@dataclass(frozen=True)
class Training(_Group):
    """The training of the networks, whatever the data are.

    Attributes:
        methods: Losses to compare, see `crossfade list`, or "all". [default: ce,f0,f0-late,gradual; tables: + el,focal]
        loss: Your own loss g(ce), as module:function or file.py:function.
        repeats: Splits of the data, with their own initial weights. [default: tables: 10; texts: 5; images: 3]
        seed: Another number gives other splits, weights and batches. [default: 0]
        test_size: Share of the data to test on; as much is for validation. [default: 0.2]
        net: Tables: mlp (ReLU) or linear. Texts: lstm, or bert:NAME with a model of the Hugging Face hub or a folder.
            Images: resnet20, resnet32, resnet18_small, ... or a classifier of torchvision.
            [default: tables: mlp; texts: lstm; images: resnet20]
        width: Units in a hidden layer; of texts: cells of an LSTM, and numbers in a word's vector.
            [default: as many as inputs; texts: 50]
        depth: Hidden layers; layers of an LSTM. [default: 1]
        epochs: Passes over the training data. [default: tables: 50; texts: 10, with bert 3; images: 60]
        batch_size: Examples in a step, over all devices.
            [default: tables: 8; texts: 64, with bert 32, fewer for few texts; images: 64]
        learning_rates: Tables: tried for each method; the best on validation rows counts. [default: 0.01,0.005,0.001]
        learning_rate: Texts: of Adam; of AdamW with bert, falling to zero. [default: 0.001; with bert 0.00002]
            Images: falls tenfold at 1/2, 2/3 and 5/6 of the training. [default: 0.1; pretrained 0.01]
        momentum: Tables: of SGD. [default: 0.9]
        weight_decay: Of SGD. [default: tables: 0; images: 0.0001]
        granularity: Tables: a schedule moves at every epoch or at every step. [default: epoch]
        tie: Tables: which epoch among equal validation accuracies: first, last, or lowest loss. [default: first]
        precision: Images, and texts with bert. [default: 32-true]
    """

    methods: tuple[str, ...] | None = None
    loss: tuple[str, ...] | None = None
    repeats: int | None = None
    seed: int | None = None
    test_size: float | None = None
    net: str | None = None
    width: int | None = None
    depth: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rates: tuple[float, ...] | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    granularity: Granularity | None = None
    tie: Tie | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that decides a comparison's numbers, except the data."""

    training: Training = Training()
    texts: Texts = Texts()
    images: Images = Images()

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "Settings":
        """Return settings from values by their names; None is not given.

        Raises:
            UserError: an unknown name (with the nearest one) or a value out of range.
        """
        groups = (Training, Texts, Images)
        known = [field.name for group in groups for field in fields(group)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise UserError(f"setting {name!r} is unknown ({hint})")
        said: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        own = [{field.name: said[field.name] for field in fields(group) if field.name in said} for group in groups]
        return cls(Training(**own[0]), Texts(**own[1]), Images(**own[2]))

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """Return the settings of a TOML file; names may be written with ``-`` or ``_``.

        Raises:
            UserError: not there, not TOML, an unknown name or a value out of range.
        """
        try:
            with path.open("rb") as file:
                raw = tomllib.load(file)
        except OSError as error:
            raise UserError(f"--config {path}: can't be read ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"--config {path}: not valid TOML ({error})") from None
        try:
            return cls.of({name.replace("-", "_"): value for name, value in raw.items()})
        except UserError as error:
            raise UserError(f"--config {path}: {error}") from None

    def given(self) -> dict[str, Any]:
        """Return the settings that are given, by their names."""
        return given(self.training) | given(self.texts) | given(self.images)


# Options that don't suit all data: the kinds of data that they suit, the same in words, and their names.
_SUITS: tuple[tuple[tuple[Kind, ...], str, tuple[str, ...]], ...] = (
    ((Kind.TABLE, Kind.TEXTS), "a table", ("target", "test", "categorical", "width", "depth", "workers")),
    ((Kind.TABLE,), "a table without --text", ("drop", "momentum", "granularity", "tie")),
    ((Kind.TABLE,), "a table without --text; other data have --learning-rate", ("learning_rates",)),
    ((Kind.TABLE, Kind.IMAGES), "a table without --text, or a folder of images", ("weight_decay",)),
    ((Kind.TEXTS,), "a table with --text COLUMN", ("text", "max_length", "accumulate")),
    (
        (Kind.TEXTS, Kind.IMAGES),
        "a folder of images, or a table with --text COLUMN",
        ("precision", "accelerator", "devices", "nodes"),
    ),
    (
        (Kind.TEXTS, Kind.IMAGES),
        "a folder of images, or a table with --text COLUMN; a table alone has --learning-rates",
        ("learning_rate",),
    ),
    (
        (Kind.IMAGES,),
        "a folder of images",
        ("pretrained", "image_size", "augment", "compile", "logger", "keep_weights"),
    ),
)


def check_kind(kind: Kind, where: str, *groups: "DataclassInstance") -> None:
    """Refuse options that don't suit the data.

    Args:
        kind: What the data are.
        where: Their file or folder; "" for none.
        groups: Dataclasses with options.

    Raises:
        UserError: names the option, and the data that it needs.
    """
    for name in (name for group in groups for name in given(group)):
        for kinds, needed, names in _SUITS:
            if name in names and kind not in kinds:
                if not where:
                    raise UserError(f"{option(name)} needs {needed}")
                what = "not a folder" if Kind.IMAGES in kinds else kind.value
                raise UserError(f"{where}: {what}; {option(name)} needs {needed}")


def option(name: str) -> str:
    """Return a setting's name as the command line writes it."""
    return "--" + name.replace("_", "-")


_CHOICES = {
    "augment": get_args(Augmentation),
    "granularity": get_args(Granularity),
    "precision": get_args(Precision),
    "tie": get_args(Tie),
}


def _checked(name: str, value: Any) -> Any:
    """Return a setting in the one form that it has in a store.

    Raises:
        UserError: it is out of range, or of another type.
    """
    shown = name.replace("_", "-")
    match name:
        case "methods" | "loss" | "text":
            words = _several(value)
            if not all(isinstance(word, str) and word.strip() for word in words):
                raise UserError(f"{shown}: expected names, separated by commas, got {value!r}")
            return tuple(words) if name == "text" else tuple(dict.fromkeys(word.strip() for word in words))
        case "learning_rates":
            rates = tuple(dict.fromkeys(_positive(shown, rate) for rate in _several(value)))
            if not rates:
                raise UserError(f"{shown} must be one or more numbers above 0, got none")
            return rates
        case "learning_rate" | "weight_decay":
            return _positive(shown, value, zero=name == "weight_decay")
        case "momentum":
            momentum = _number(shown, value)
            check_share(shown, momentum)
            return momentum
        case "test_size":
            share = _number(shown, value)
            if not 0.0 < share < 0.5:
                raise UserError(f"{shown} must be above 0 and below 0.5 (as much is for validation), got {share!r}")
            return share
        case "repeats" | "width" | "depth" | "epochs" | "batch_size" | "max_length" | "accumulate" | "image_size":
            check_count(shown, value)
            if name == "image_size" and not 8 <= value <= 1024:
                raise UserError(f"{shown} must be from 8 to 1024 pixels, got {value}")
        case "seed":
            check_seed(value)
        case "net" if not isinstance(value, str):
            raise UserError(f"{shown} must be a name, got {value!r}")
        case "pretrained" if not isinstance(value, bool):
            raise UserError(f"{shown} must be true or false, got {value!r}")
        case _ if name in _CHOICES:
            check_choice(shown, value, _CHOICES[name])
    return value


def _several(value: Any) -> Sequence[Any]:
    """Return a list or tuple as it is, words separated by commas as several, and anything else as one."""
    if isinstance(value, str):
        return value.split(",")
    return value if isinstance(value, list | tuple) else [value]


def _number(name: str, value: object) -> float:
    """Return a number as a float: 0 and 0.0 would be two keys in a store."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{name} must be a number, got {value!r}")
    return float(value)


def _positive(name: str, value: object, *, zero: bool = False) -> float:
    number = _number(name, value)
    check_positive(name, number, zero=zero)
    return number
