"""The commands whose stores and outputs are kept in this folder, by the name of the folder that holds them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CASES", "HERE", "INPUTS", "SINCE", "elsewhere", "machine"]

HERE = Path(__file__).parent
INPUTS = HERE / "inputs"

_COMPARE = ["--store", "store.db", "--report", "page.html", "--json", "answer.json"]
_STUDY = ["--data-dir", ".", "--scale", "smoke", "--store", "store.db", "--report", "page.md"]

# Each is run in a folder that holds the inputs.
CASES: dict[str, list[str]] = {
    "table": [
        "compare", "plants.csv", "--target", "kind", "--methods", "ce,f0,gradual,el,focal",
        "--loss", "kept_loss:squared", "--repeats", "3", "--epochs", "8", "--learning-rates", "0.05,0.01", *_COMPARE,
    ],
    "lstm": [
        "compare", "remarks.csv", "--text", "remark", "--target", "about", "--methods", "f0,gradual",
        "--loss", "kept_loss:squared", "--repeats", "2", "--epochs", "3", "--width", "8", "--learning-rate", "0.02",
        "--accelerator", "cpu", *_COMPARE,
    ],
    "bert": [
        "compare", "remarks.csv", "--text", "remark", "--target", "about", "--methods", "f0-late,gradual",
        "--net", "bert:tiny-bert", "--repeats", "2", "--epochs", "4", "--max-length", "16", "--learning-rate", "0.05",
        "--accelerator", "cpu", *_COMPARE,
    ],
    "images": [
        "compare", "shapes", "--methods", "ce,f0-late,gradual,cot", "--repeats", "2", "--epochs", "2",
        "--learning-rate", "0.02", "--accelerator", "cpu", *_COMPARE,
    ],
    "table4": [
        "run", "table4", "--data-dir", ".", "--scale", "smoke", "--sets", "balloons,lenses", "--methods",
        "ce,f0,gradual,focal", "--loss", "kept_loss:squared", "--store", "store.db", "--report", "page.html",
    ],
    "table3": ["run", "table3", "--nets", "arch1,arch4", "--methods", "f0,gradual", "--accelerator", "cpu", *_STUDY],
    "figure2": [
        "run", "figure2", "--model", "tiny-bert", "--tasks", "RTE,WNLI", "--methods", "gradual",
        "--learning-rate", "0.05", "--epochs", "2", "--accelerator", "cpu", *_STUDY,
    ],
    "motivating": [
        "run", "motivating", "--datasets", "shapes", "--nets", "resnet20", "--methods", "ce,gradual",
        "--accelerator", "cpu", *_STUDY,
    ],
    "table1": [
        "run", "table1", "--datasets", "cifar100", "--nets", "resnet20", "--methods", "ce,f0-late", "--repeats", "1",
        "--accelerator", "cpu", *_STUDY,
    ],
    "stats": ["stats", "scores.csv", "--control", "ce", "--repeat", "repeat", "--json", "answer.json"],
}  # fmt: skip

# Options whose defaults have changed since: what they must be for the trials of the kept stores.
SINCE: dict[str, list[str]] = {"table": ["--split", "random", "--tie", "first"]}


def elsewhere(command: list[str]) -> list[str]:
    """Return the command with the inputs' full paths: a key must not depend on where the data lies."""
    names = {path.name: str(path) for path in INPUTS.iterdir()} | {".": str(INPUTS)}
    names["bert:tiny-bert"] = f"bert:{names['tiny-bert']}"
    return [names.get(word, word) for word in command]


def machine() -> dict[str, str]:
    """Return what the last digits of trained numbers depend on: processor, vectors, and the version of torch."""
    import torch

    cpu = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in cpu.read_text().splitlines()] if cpu.exists() else []
    about = {name.strip(): value.strip() for name, _, value in lines}
    return {
        "processor": " ".join(about.get(name, "") for name in ("model name", "cpu family", "model")),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
