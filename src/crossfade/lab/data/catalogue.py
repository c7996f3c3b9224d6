"""Every data set that the lab knows: where it comes from, whether it is here, and how to get it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crossfade.errors import UserError


@dataclass(frozen=True)
class DataSet:
    """A data set that the lab knows.

    Attributes:
        name: What the command line calls it.
        title: What people call it.
        used_by: The studies that use it.
        find: Says what of it is in a data folder, None for nothing.
        how: How to get it.
        url: Of the archive; None where the owner wants you to register.
        checksum: Of the archive, where the owner tells one.
        folder: Where the archive is unpacked.
    """

    name: str
    title: str
    used_by: str
    find: Callable[[Path], str | None]
    how: str
    url: str | None = None
    checksum: str | None = None
    folder: str = ""


def default_data_dir() -> Path:
    """Return ``$CROSSFADE_DATA``, or ``crossfade/data`` in the user's cache folder."""
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
        name="sklearn",
        title="iris, wine, breast cancer, digits",
        used_by="compare",
        find=lambda _: "ships with scikit-learn",
        how="nothing to do",
    ),
    DataSet(
        name="uci",
        title="121 UCI sets, prepared and split by Klambauer et al. 2017",
        used_by="table4",
        find=_uci,
        how="crossfade data uci --download (39 MB)",
        url="http://www.bioinf.jku.at/people/klambauer/data_py.zip",
        folder="uci121",
    ),
    DataSet(
        name="cifar100",
        title="CIFAR-100",
        used_by="table1, table5, motivating, normmatched",
        find=_any_of("cifar100.npz", "cifar-100-python", "cifar100"),
        how="crossfade data cifar100 --download (161 MB)",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        checksum="md5:eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
    ),
    DataSet(
        name="cinic10",
        title="CINIC-10",
        used_by="table1, table6",
        find=_any_of("cinic10.npz", "cinic-10", "cinic10"),
        how="crossfade data cinic10 --download (656 MB)",
        url="https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
        checksum="md5:6ee4d0c996905fe93221de577967a372",
        folder="cinic-10",
    ),
    DataSet(
        name="tinyimagenet",
        title="Tiny-ImageNet",
        used_by="table5",
        find=_any_of("tiny-imagenet-200", "tinyimagenet"),
        how="crossfade data tinyimagenet --download (237 MB)",
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        folder="tiny-imagenet-200",
    ),
    DataSet(
        name="imagenet",
        title="ImageNet-2012",
        used_by="table2, table5",
        find=_any_of("imagenet/train"),
        how="register at image-net.org, unpack into imagenet/{train,val}/WNID/",
    ),
    DataSet(
        name="reviews",
        title="Women's Clothing E-Commerce Reviews",
        used_by="table3",
        find=_any_of("reviews", "Womens Clothing E-Commerce Reviews.csv"),
        how="from Kaggle (nicapotato/womens-ecommerce-clothing-reviews), the CSV into reviews/",
    ),
    DataSet(
        name="glue",
        title="GLUE classification tasks",
        used_by="figure2",
        find=_glue,
        how="the datasets library fetches them; or glue/TASK/{train,dev}.tsv",
    ),
)


def data_set(name: str) -> DataSet:
    """Return the data set of this name.

    Raises:
        UserError: unknown, with the names there are.
    """
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    raise UserError(f"data set {name!r} is unknown (known: {', '.join(entry.name for entry in CATALOGUE)})")
