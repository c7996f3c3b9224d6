"""How much memory may still be taken, and what is refused because it needs more."""

import math

import pytest
from torch import nn

from crossfade.errors import UserError
from crossfade.lab import hardware
from crossfade.lab.hardware import available_memory, check_memory, check_trials
from crossfade.lab.nets import build
from crossfade.lab.nets.memory import training_memory
from crossfade.lab.train.lstm.recipe import LstmRecipe
from crossfade.lab.train.tables.recipe import Recipe
from crossfade.lab.trial import Shape

GIB = 2**30


def machine(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


FREE = {"proc/meminfo": "MemTotal: 9000000 kB\nMemFree: 1000 kB\nMemAvailable: 4194304 kB\nHugePages_Total: 0\n"}


def test_without_any_limit_what_the_machine_has_counts(tmp_path):
    assert available_memory(tmp_path) == math.inf
    assert available_memory(machine(tmp_path, FREE)) == 4 * GIB
    assert 0 < available_memory() < math.inf


@pytest.mark.parametrize("place", ["", "a.slice", "a.slice/b.scope"])
def test_a_limit_of_version_two_counts_on_every_level_and_the_cache_may_be_taken(tmp_path, place):
    group = f"sys/fs/cgroup/{place}/"
    files = {group + "memory.max": f"{2 * GIB}\n", group + "memory.current": f"{GIB}\n"}
    files |= {group + "memory.stat": f"anon 5\ninactive_file {GIB // 2}\n", "proc/self/cgroup": "0::/a.slice/b.scope\n"}
    files.setdefault("sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n")
    assert available_memory(machine(tmp_path, FREE | files)) == 1.5 * GIB


def test_a_limit_of_version_one_counts_in_a_container_too(tmp_path):
    """There the group is the root of what is mounted, whatever its path says."""
    group = "sys/fs/cgroup/memory/"
    files = {group + "memory.limit_in_bytes": f"{3 * GIB}\n", group + "memory.usage_in_bytes": f"{GIB}\n"}
    files |= {"proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n"}
    assert available_memory(machine(tmp_path, FREE | files)) == 2 * GIB


def test_a_limit_without_its_use_is_no_limit(tmp_path):
    files = {"sys/fs/cgroup/memory.max": f"{GIB}\n", "proc/self/cgroup": "0::/\n"}
    assert available_memory(machine(tmp_path, FREE | files)) == 4 * GIB


def test_what_needs_more_is_refused_with_what_is_there(monkeypatch):
    monkeypatch.setattr(hardware, "available_memory", lambda: 2.0 * GIB)
    check_memory("these", 2.0 * GIB, "do less")
    with pytest.raises(UserError, match=r"^these need about 3.0 GiB of memory, and 2.0 GiB are available; do less$"):
        check_memory("these", 3.0 * GIB, "do less")
    check_trials(100_000)
    with pytest.raises(UserError, match="1,000,000 trials need"):
        check_trials(1_000_000)


def test_the_estimates_hold_what_was_measured():
    """Peaks in MiB above that of a tiny training: tables of 200 x 3000 at width 3000, LSTMs on 300 words."""
    shape, three_rates = Shape(200, 3000, 2), Recipe(learning_rates=(0.01, 0.005, 0.001))
    for methods, measured in ((6, 1316), (2, 760)):
        assert measured / 1.2 < three_rates.memory(shape, methods) / 2**20 < 1.5 * measured
    for width, methods, measured in ((400, 4, 140), (800, 4, 555), (400, 2, 87)):
        recipe = LstmRecipe(embedding=width, hidden=width)
        assert measured / 1.5 < recipe.memory(Shape(300, 300, 2), methods) / 2**20 < 2 * measured
    assert three_rates.memory(Shape(60, 20_000, 2), 7) > 50 * GIB


@pytest.mark.parametrize(
    ("net", "shape", "measured"),
    [
        ("resnet20", (512, 3, 32, 32), 1093),
        ("resnet18_small", (64, 3, 32, 32), 744),
        ("resnet50", (8, 3, 224, 224), 1352),
        ("densenet121", (8, 3, 224, 224), 1343),
        ("efficientnet_b0", (8, 3, 224, 224), 983),
        ("vit_b_16", (8, 3, 224, 224), 2112),
    ],
)
def test_the_estimate_of_an_image_network_holds_what_was_measured(net, shape, measured):
    """Peaks in MiB of two steps of SGD above what there was before the network."""
    found = training_memory(lambda: build(net, 10), shape, moments=1) / 2**20
    assert measured / 1.5 < found < 1.3 * measured
    assert training_memory(lambda: build(net, 10), shape, moments=1, half=True) / 2**20 < found


def test_the_estimate_of_a_transformer_holds_what_was_measured(tmp_path):
    from transformers import BertConfig

    from crossfade.lab.nets.pretrained import empty_classifier

    config = BertConfig(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024)
    config.save_pretrained(tmp_path)
    for size, measured in ((16, 630), (64, 1828)):
        found = training_memory(lambda: empty_classifier(str(tmp_path), 3), (size, 128), moments=2) / 2**20
        assert measured / 1.3 < found < 1.3 * measured


def test_a_network_that_cannot_run_without_values_counts_by_its_weights():
    class Odd(nn.Linear):
        def forward(self, x):
            return float(x.sum()) * super().forward(x)

    assert training_memory(lambda: Odd(1000, 1000, bias=False), (5, 1000, 1, 1), moments=2) == 4 * 4e6
