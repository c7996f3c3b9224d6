"""``crossfade list`` and ``crossfade data``: the names that the command line knows, and the data sets."""

from __future__ import annotations

import sys
from pathlib import Path

from crossfade.cli.options import Quiet
from crossfade.errors import UserError

_NETWORKS = {
    "Networks for tables": {
        "linear": "one layer, inputs x classes: the paper's first network",
        "mlp": "hidden layers with ReLU, as wide as the inputs: the paper's second network; --width, --depth",
    },
    "Networks for images": {
        "small images": "resnet8 resnet20 resnet32 resnet44 resnet56 resnet110 resnet18_small resnet34_small",
        "": "preactresnet18 resnext29 resnext29_8x64d shufflenetv2_small",
        "any images": "every classifier of torchvision: resnet18, resnet50, efficientnet_b0, vit_b_16, ...; "
        "--pretrained",
    },
    "Networks for texts": {
        "lstm": "word vectors, LSTM layers, a linear layer: --width, --depth",
        "bert:NAME": "a transformer of the Hugging Face hub, or a folder with one: bert:bert-base-uncased",
    },
}
_COMPARE = "methods x repeats on your tables, texts or images, or on four real data sets: crossfade compare"


def data(
    name: str | None = None, /, *, data_dir: Path | None = None, download: bool = False, quiet: Quiet = False
) -> int:
    """List the data sets that the lab knows, where they come from and whether they are here; or get one.

    Args:
        name: One data set, whose copy is checked as well; without it, all are listed.
        data_dir: Where the data is, or goes. Default: $CROSSFADE_DATA, or crossfade/data in the user's cache folder.
        download: Fetch and unpack NAME. A download that was broken off goes on where it stopped.
    """
    from crossfade.lab.data.sources import CATALOGUE, default_data_dir

    folder = data_dir or default_data_dir()
    if name is not None and name not in CATALOGUE:
        raise UserError(f"data set {name!r} is unknown (known: {', '.join(CATALOGUE)})")
    if download and name is None:
        raise UserError("--download needs the name of a data set: crossfade data NAME --download")
    entries = [CATALOGUE[name]] if name else list(CATALOGUE.values())
    if download:
        from crossfade.lab.data.fetch import get

        get(entries[0], folder, (lambda done, total: None) if quiet else _Line())
    width = max(len(entry.name) for entry in entries)
    print(f"data folder: {folder}")
    good = True
    for entry in entries:
        here = entry.here(folder)
        print(f"{entry.name:{width}}  {entry.title} ({entry.used_by})")
        print(f"{'':{width}}  {'here: ' + here if here else 'not here. ' + entry.how}")
        if name and entry.url:
            print(f"{'':{width}}  from {entry.url}")
        if name and here:
            from crossfade.lab.data.fetch import check

            good, about = check(entry, folder)
            if about:
                print(f"{'':{width}}  checked: {about}")
    return 1 if download and not good else 0


class _Line:
    """Progress of a download: one line that is overwritten on a terminal; in a log, one line for every tenth."""

    _tenth = -1

    def __call__(self, done: int, total: int) -> None:
        tenth = 10 * done // total if total else done >> 25
        line = f"{done / 1e6:.0f} {f'of {total / 1e6:.0f} ' if total else ''}MB"
        if sys.stderr.isatty():
            print(f"\r{line} ", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif tenth != self._tenth:
            self._tenth = tenth
            print(line, file=sys.stderr, flush=True)


def show(*, quiet: Quiet = False) -> int:
    """List the methods, networks and studies that can be named."""
    from crossfade.cli import STUDIES
    from crossfade.lab.methods import DEFAULT_METHODS, MATCHED, METHODS, OBJECTIVES

    stars = dict.fromkeys((*DEFAULT_METHODS, MATCHED), "*")
    named = {
        method.name + stars.get(method.name, ""): f"{method.title}. {method.note}".rstrip(" .") for method in METHODS
    }
    studies = {name: f"{command.help} crossfade run {name}" for name, command in STUDIES.items()}
    shown = {
        "Methods (* compared by default on tables)": named,
        "Further methods of run finetune": {one.name: f"{one.title}. {one.note}" for one in OBJECTIVES},
        **_NETWORKS,
        "Studies": {"compare": _COMPARE, **studies},
    }
    for heading, entries in shown.items():
        print(heading)
        width = max(map(len, entries))
        for name, text in entries.items():
            print(f"  {name.ljust(width)}  {text}")
        print()
    return 0
