from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from crossfade.errors import UserError
from crossfade.lab.data.uci import UCI_NAMES, find_uci, uci_tasks
from tests.lab.uci_copy import write_uci

SHARED = Path(__file__).parents[3] / "shared" / "data" / "uci121.zip"


def test_the_published_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    tasks, missing = uci_tasks(write_uci(tmp_path))
    assert [task.name for task in tasks] == ["breast-cancer-wisc-diag", "iris", "wine"]
    assert len(missing) == 118
    iris = tasks[1]
    test = np.loadtxt(tmp_path / "uci121" / "iris" / "folds_py.dat", delimiter=",")
    x = np.loadtxt(tmp_path / "uci121" / "iris" / "iris_py.dat", delimiter=",").astype(np.float32)
    for split in range(4):
        first, again = iris.split(split), iris.split(split + 4)
        np.testing.assert_array_equal(first.x_test, x[test[:, split] == 1])
        np.testing.assert_array_equal(first.x_train, again.x_train)
        assert len(first.y_train) + len(first.y_val) + len(first.y_test) == 150
    assert iris.describe()["classes"] == 3


def test_content_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    task = uci_tasks(write_uci(tmp_path / "a"), ("wine",))[0][0]
    moved = uci_tasks(shutil.copytree(tmp_path / "a", tmp_path / "b"), ("wine",))[0][0]
    assert moved.content == task.content
    path = tmp_path / "b" / "uci121" / "wine" / "wine_py.dat"
    path.write_text(path.read_text().replace("1", "2", 1))
    assert uci_tasks(tmp_path / "b", ("wine",))[0][0].content != task.content


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 121 UCI sets"):
        uci_tasks(tmp_path)
    write_uci(tmp_path)
    with pytest.raises(UserError, match="did you mean 'iris'"):
        uci_tasks(tmp_path, ("iriss",))
    wine = tmp_path / "uci121" / "wine"
    labels = wine / "labels_py.dat"
    labels.write_text("\n".join(labels.read_text().split("\n")[:-9]) + "\n")
    with pytest.raises(UserError, match="isn't complete"):
        uci_tasks(tmp_path, ("wine",))[0][0].split(0)
    (wine / "wine_py.dat").write_text("a,b\n")
    with pytest.raises(UserError, match="comma-separated numbers"):
        uci_tasks(tmp_path, ("wine",))[0][0].split(0)
    (wine / "wine_py.dat").unlink()
    assert uci_tasks(tmp_path, ("wine", "iris"))[1] == ["wine"]


@pytest.mark.data
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/uci121.zip")
def test_the_real_copy(tmp_path: Path) -> None:
    shutil.unpack_archive(SHARED, tmp_path / "uci121")
    folder = find_uci(tmp_path)
    assert folder is not None
    tasks, missing = uci_tasks(tmp_path)
    assert missing == ["miniboone"]
    assert {task.name for task in tasks} | set(missing) == set(UCI_NAMES)
    sizes = {task.name: task.shape for task in tasks if task.name in ("adult", "trains", "plant-shape")}
    assert sizes == {"adult": (48842, 14, 2), "trains": (10, 29, 2), "plant-shape": (1600, 64, 100)}
