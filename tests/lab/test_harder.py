"""Wrong labels and fewer training rows: which rows they change, how many, and that nothing else changes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade import compare
from crossfade.errors import UserError
from crossfade.lab.data.harder import HarderTask, wrong
from crossfade.lab.data.images import ImageTask
from crossfade.lab.data.table import TableTask, load_builtin
from crossfade.lab.data.texts import TextPart, TextSet, TextTask
from crossfade.lab.methods import method
from crossfade.lab.train import Recipe
from crossfade.lab.trial import Trial

KINDS = ("symmetric", "class-dependent")
TASK = TableTask(load_builtin("wine"), folds=True)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.sampled_from(KINDS))
def test_exactly_the_share_becomes_wrong(labels, share, kind):
    labels = np.array(labels, dtype=np.int64)
    made = wrong(labels, 5, share, kind, np.random.default_rng(0))
    changed = made != labels
    assert made.min() >= 0
    assert made.max() < 5
    if kind == "symmetric":
        assert changed.sum() == round(share * len(labels))
    for number in range(5) if kind == "class-dependent" else ():
        own = labels == number
        assert changed[own].sum() == (round(share * own.sum()) if number < 4 else 0)
        assert (made[own & changed] == number + 1).all()


def test_symmetric_errors_are_spread_over_all_other_classes():
    made = wrong(np.zeros(3000, np.int64), 4, 0.5, "symmetric", np.random.default_rng(0))
    counts = np.bincount(made, minlength=4)
    assert counts[0] == 1500
    assert abs(counts[1:] - 500).max() < 4 * (1500 / 3 * 2 / 3) ** 0.5
    assert (wrong(np.ones(9, np.int64), 2, 1.0, "symmetric", np.random.default_rng(0)) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("validation", [False, True])
def test_only_labels_change_and_never_the_test_rows(kind, validation):
    clean, noisy = TASK.split(1), HarderTask(TASK, 0.4, kind, validation).split(1)
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(noisy, f"x_{part}"), getattr(clean, f"x_{part}"))
        changed = (getattr(noisy, f"y_{part}") != getattr(clean, f"y_{part}")).mean()
        expected = part == "train" or (validation and part == "val")
        assert (changed > 0.2) == expected
        assert changed == 0 or expected
    np.testing.assert_array_equal(noisy.test_rows, clean.test_rows)


def test_more_noise_keeps_the_errors_there_are_and_repeats_are_the_same():
    labels = [HarderTask(TASK, share).split(2).y_train for share in (0.1, 0.3, 0.3)]
    clean = TASK.split(2).y_train
    assert ((labels[0] != clean) <= (labels[1] != clean)).all()
    np.testing.assert_array_equal(labels[1], labels[2])
    assert (labels[1] != HarderTask(TASK, 0.3).split(3).y_train[: len(clean)]).any()


def test_fewer_rows_of_each_class_are_rows_of_the_training_part():
    whole, part = TASK.split(0), HarderTask(TASK, size=0.1).split(0)
    kept = np.bincount(part.y_train)
    assert kept.tolist() == [max(1, round(0.1 * count)) for count in np.bincount(whole.y_train)]
    assert {row.tobytes() for row in part.x_train} <= {row.tobytes() for row in whole.x_train}
    np.testing.assert_array_equal(part.x_test, whole.x_test)
    assert HarderTask(TASK, size=0.001).split(0).y_train.tolist() == [0, 1, 2]


def test_texts_and_images_get_wrong_labels_too():
    rng = np.random.default_rng(0)
    texts = TextPart(tuple(f"word{n}" for n in range(60)), rng.integers(0, 3, 60))
    task = TextTask(TextSet("texts", ("a", "b", "c"), texts))
    from crossfade.lab.data.images import ImageSet, Part

    pixels = Part(torch.randint(0, 255, (60, 3, 4, 4), dtype=torch.uint8), torch.from_numpy(rng.integers(0, 3, 60)))
    images = ImageTask(ImageSet("images", ("a", "b", "c"), pixels), select="validation")
    for one in (task, images):
        clean, noisy = one.split(0), HarderTask(one, 0.5, validation=True).split(0)
        for name in ("train", "validation"):
            before, after = getattr(clean, name).codes, getattr(noisy, name).codes
            assert (before != after).sum() == round(0.5 * len(before))
            assert type(getattr(noisy, name).labels) is type(getattr(clean, name).labels)
        np.testing.assert_array_equal(clean.test.codes, noisy.test.codes)
        assert len(HarderTask(one, size=0.5).split(0).train) < len(clean.train)


def test_keys_tell_noise_apart_and_stored_trials_stay():
    harder = [HarderTask(TASK), HarderTask(TASK, 0.2), HarderTask(TASK, 0.2, "class-dependent")]
    harder += [HarderTask(TASK, 0.2, validation=True), HarderTask(TASK, size=0.5)]
    keys = [Trial("compare", task, method("ce"), Recipe(), 0).key for task in (TASK, *harder)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(harder)


def test_a_comparison_says_what_was_made_wrong(tmp_path):
    options = {"methods": ["ce", "gce"], "repeats": 2, "epochs": 3, "store": tmp_path / "s.db"}
    X, y = np.random.default_rng(0).normal(size=(90, 3)), np.arange(90) % 3
    with pytest.warns(UserWarning, match="30 % of the training and validation rows of each class but the last got"):
        noisy = compare(X, y, label_noise=0.3, noise_kind="class-dependent", noisy_validation=True, **options)
    assert any("got a wrong label on purpose" in note for note in noisy.meta["notes"])
    assert noisy.settings["label_noise"] == 0.3
    assert noisy.settings["noise_kind"] == "class-dependent"
    assert len(compare(X, y, **options).results) == 4  # other trials than those with wrong labels
    for bad, message in (
        ({"label_noise": 0}, "label-noise must be a share above 0 and below 1, got 0"),
        ({"label_noise": 1.0}, "label-noise must be a share above 0 and below 1, got 1"),
        ({"noise_kind": "symmetric"}, "add --label-noise"),
        ({"noisy_validation": True}, "add --label-noise"),
        ({"label_noise": 0.2, "noise_kind": "uniform"}, "noise-kind"),
    ):
        with pytest.raises(UserError, match=message):
            compare(X, y, **options, **bad)
