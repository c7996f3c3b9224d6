"""A criterion and its copy with another reduction always have the same weights; helpers of the integrations."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from crossfade import CrossfadeLoss, linear
from crossfade.integrations._shared import with_reduction


def test_weights_are_shared_through_every_change():
    criterion = CrossfadeLoss(linear(), weight=torch.tensor([1.0, 2.0, 3.0]))
    total = with_reduction(criterion, "sum")
    logits, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, -100])
    count = criterion.weight[target[:4]].sum()
    changes = [
        lambda: criterion.at(0.5),
        lambda: criterion.half().at(0.25),
        lambda: criterion.to(torch.float32),
        lambda: criterion.at(1.0),
    ]
    for change in changes:
        change()
        assert total.alpha is criterion.alpha
        torch.testing.assert_close(total(logits, target) / count, criterion(logits, target))
    assert criterion.reduction == "mean"


def test_copies_stay_together():
    pair = [criterion := CrossfadeLoss(linear()), with_reduction(criterion, "sum")]
    first, second = copy.deepcopy(pair)
    first.at(1.0)
    assert second.alpha == 0
    assert criterion.alpha == 1


def test_other_criteria_are_refused():
    with pytest.raises(TypeError, match=r"criterion must be a crossfade\.CrossfadeLoss, got CrossEntropyLoss"):
        with_reduction(nn.CrossEntropyLoss(), "sum")


def test_the_package_loads_no_framework():
    code = "import sys, crossfade.integrations; print({'torch', 'lightning', 'transformers', 'trl'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_top_level_names_load_what_they_need_when_they_are_used():
    """Comparisons need pandas and the classifier skorch, so neither comes with the package or with a star."""
    code = (
        "import sys; from crossfade import *; import crossfade; heavy = {'pandas', 'skorch', 'sklearn'}\n"
        "print(heavy & set(sys.modules), {'compare', 'CrossfadeClassifier'} <= set(dir(crossfade)))\n"
        "from crossfade import CrossfadeClassifier, compare\n"
        "print(CrossfadeClassifier.__name__, compare.__name__)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "set() True\nCrossfadeClassifier compare\n"
    code = "import sys, crossfade; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
