from __future__ import annotations

import pytest
import torch

from crossfade.lab.data.images import ImageSet, ImageTask
from crossfade.lab.nets import SMALL_NETS
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from tests.images.image_cases import noise, tiny


@pytest.fixture
def task() -> ImageTask:
    # 203 isn't a multiple of the batch size: the last batch is ragged
    return ImageTask(ImageSet("toy", tuple("abcd"), noise(203), noise(50, seed=1)))


@pytest.fixture
def recipe() -> ImageRecipe:
    return ImageRecipe(
        net="tiny",
        epochs=3,
        batch_size=20,
        milestones=(1, 2),
        learning_rate=0.05,
        augment=Augment(crop=1, rotation=5),
        dropout=0.1,
    )


@pytest.fixture(autouse=True)
def tiny_nets(monkeypatch):
    monkeypatch.setitem(SMALL_NETS, "tiny", tiny(norm=True))
    monkeypatch.setitem(SMALL_NETS, "tiny_plain", tiny(norm=False))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
