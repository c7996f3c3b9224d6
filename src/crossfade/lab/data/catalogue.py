"""Every data set that the lab knows: where it comes from, whether it is here, and how to get it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crossfade.errors import UserError

__all__ = ["CATALOGUE", "DataSet", "data_set", "default_data_dir"]


@dataclass(frozen=True)
class DataSet:
    """One entry. ``url`` is None where its owner wants you to register: ``how`` says what to do then."""

    name: str
    title: str
    used_by: str
    find: Callable[[Path], str | None]
    how: str
    url: str | None = None
    checksum: str | None = None
    folder: str = ""


def default_data_dir() -> Path:
    """``$CROSSFADE_DATA``, or ``crossfade/data`` in the user's cache folder."""
    if named := os.environ.get("CROSSFADE_DATA"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "crossfade" / "data"


def _uci(data_dir: Path) -> str | None:
    from crossfade.lab.data.uci import uci_tasks

    try:
        tasks, missing = uci_tasks(data_dir)
    except UserError:
        return None
    return f"{len(tasks)} of 121 sets" + (f", without {', '.join(missing)}" if len(missing) < 10 and missing else "")


def _any_of(*places: str) -> Callable[[Path], str | None]:
    def find(data_dir: Path) -> str | None:
        return next((place for place in places if (data_dir / place).exists()), None)

    return find


def _glue(data_dir: Path) -> str | None:
    found = [p.parent.name for p in sorted((data_dir / "glue").glob("*/train.tsv"))]
    return ", ".join(found) or None


CATALOGUE = (
    DataSet(
        "sklearn", "iris, wine, breast cancer, digits", "compare", lambda _: "ships with scikit-learn", "nothing to do"
    ),
    DataSet(
        "uci", "121 UCI sets, prepared and split by Klambauer et al. 2017", "table4", _uci,
        "crossfade data uci --download (39 MB)",
        "http://www.bioinf.jku.at/people/klambauer/data_py.zip", None, "uci121",
    ),
    DataSet(
        "cifar100", "CIFAR-100", "table1, table5, motivating, normmatched",
        _any_of("cifar100.npz", "cifar-100-python", "cifar100"), "crossfade data cifar100 --download (161 MB)",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
    ),
    DataSet(
        "cinic10", "CINIC-10", "table1, table6", _any_of("cinic10.npz", "cinic-10", "cinic10"),
        "crossfade data cinic10 --download (656 MB)",
        "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
        "md5:6ee4d0c996905fe93221de577967a372", "cinic-10",
    ),
    DataSet(
        "tinyimagenet", "Tiny-ImageNet", "table5", _any_of("tiny-imagenet-200", "tinyimagenet"),
        "crossfade data tinyimagenet --download (237 MB)",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip", None, "tiny-imagenet-200",
    ),
    DataSet(
        "imagenet", "ImageNet-2012", "table2, table5", _any_of("imagenet/train"),
        "register at image-net.org, unpack into imagenet/{train,val}/WNID/",
    ),
    DataSet(
        "reviews", "Women's Clothing E-Commerce Reviews", "table3",
        _any_of("reviews", "Womens Clothing E-Commerce Reviews.csv"),
        "from Kaggle (nicapotato/womens-ecommerce-clothing-reviews), the CSV into reviews/",
    ),
    DataSet(
        "glue", "GLUE classification tasks", "figure2", _glue,
        "the datasets library fetches them; or glue/TASK/{train,dev}.tsv",
    ),
)  # fmt: skip


def data_set(name: str) -> DataSet:
    """An entry by name.

    Raises:
        UserError: unknown, with the names there are.
    """
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    raise UserError(f"data set {name!r} is unknown (known: {', '.join(entry.name for entry in CATALOGUE)})")
