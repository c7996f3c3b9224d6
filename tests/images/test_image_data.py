"""Reading of image sets and class folders, their division, and what is said when something is wrong."""

from __future__ import annotations

import io
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossfade.errors import UserError
from crossfade.lab.data import image_sets
from crossfade.lab.data.image_sets import load_folder, load_images
from crossfade.lab.data.images import ImageSet, ImageTask, Part, stream_task
from crossfade.lab.data.sources import find_imagenet
from tests.images.image_cases import noise


def picture(path: Path, size: tuple[int, int] = (32, 32), seed: int = 0, mode: str = "RGB", **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def folder(root: Path, parts: tuple[str, ...] = ("",), classes: str = "ab", each: int = 4, **options) -> Path:
    for at, part in enumerate(parts):
        for name in classes:
            for number in range(each):
                picture(root / part / name / f"{number}.png", seed=hash((at, name, number)) % 2**31, **options)
    return root


@pytest.fixture
def small(monkeypatch):
    """Published counts cut down, so that complete copies fit into a test."""
    for name, (train, test, classes, size) in {
        "cifar100": (6, 3, 3, 32),
        "cinic10": (16, 8, 2, 32),
        "tinyimagenet": (8, 3, 2, 64),
    }.items():
        known = image_sets.IMAGE_SETS[name]
        changed = replace(known, train=train, test=test, classes=classes, size=size)
        monkeypatch.setitem(image_sets.IMAGE_SETS, name, changed)


def arrays(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % classes


def test_an_npz_and_torchvisions_files_are_the_same_data_set(small, tmp_path):
    (x, y), (tx, ty) = arrays(6, 3), arrays(3, 3, seed=1)
    names = ["apple", "bear", "cup"]
    one, two = tmp_path / "one", tmp_path / "two"
    (one).mkdir()
    np.savez(one / "cifar100.npz", x_train=x, y_train=y, x_test=tx, y_test=ty, class_names=np.array(names))
    raw = two / "cifar-100-python"
    raw.mkdir(parents=True)
    turn = np.array([4, 2, 0, 1, 5, 3])  # another row order
    for file, images, labels in (("train", x[turn], y[turn]), ("test", tx, ty)):
        data = {b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), b"fine_labels": labels.tolist()}
        (raw / file).write_bytes(pickle.dumps(data))
    (raw / "meta").write_bytes(pickle.dumps({b"fine_label_names": [name.encode() for name in names]}))
    first, second = load_images("cifar100", one), load_images("cifar100", two)
    assert first.sha256 == second.sha256
    assert first.classes == tuple(names)
    assert torch.equal(first.train.images, second.train.images)
    rows = {image.tobytes(): int(label) for image, label in zip(x.transpose(0, 3, 1, 2), y, strict=True)}
    assert {
        im.numpy().tobytes(): int(la) for im, la in zip(first.train.images, first.train.labels, strict=True)
    } == rows


def old_pickle(data: dict) -> bytes:
    """As Python 2 wrote it: str keys that are bytes to us, and text to torchvision."""
    raw = pickle.dumps(data, protocol=2)
    for word in (b"data", b"labels", b"label_names", b"fine_labels", b"fine_label_names", b"cat", b"dog", b"fox"):
        length = len(word).to_bytes(4, "little")
        raw = raw.replace(b"X" + length + word, b"T" + length + word)
    return raw


def test_torchvision_reads_the_same_cifar100(small, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    raw, (x, y), (tx, ty) = tmp_path / "cifar-100-python", arrays(6, 3), arrays(3, 3, seed=1)
    raw.mkdir()
    for file, images, labels in (("train", x, y), ("test", tx, ty)):
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        (raw / file).write_bytes(old_pickle({"data": planes, "fine_labels": labels.tolist()}))
    (raw / "meta").write_bytes(old_pickle({"fine_label_names": ["cat", "dog", "fox"]}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    ours = load_images("cifar100", tmp_path)
    for training, part in ((True, ours.train), (False, ours.test)):
        theirs = CIFAR100(str(tmp_path), train=training)
        expected = {np.asarray(image).transpose(2, 0, 1).tobytes(): label for image, label in theirs}
        assert {im.numpy().tobytes(): int(la) for im, la in zip(part.images, part.labels, strict=True)} == expected
    assert ours.classes == tuple(theirs.classes)


def test_torchvision_reads_the_same_cifar10(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    known = image_sets.IMAGE_SETS["cifar10"]
    monkeypatch.setitem(image_sets.IMAGE_SETS, "cifar10", replace(known, train=10, test=3, classes=3))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    raw, (x, y), (tx, ty) = tmp_path / "cifar-10-batches-py", arrays(10, 3), arrays(3, 3, seed=1)
    raw.mkdir()
    batches = {f"data_batch_{k}": (x[2 * k - 2 : 2 * k], y[2 * k - 2 : 2 * k]) for k in range(1, 6)}
    for file, (images, labels) in {**batches, "test_batch": (tx, ty)}.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        (raw / file).write_bytes(old_pickle({"data": planes, "labels": labels.tolist()}))
    (raw / "batches.meta").write_bytes(old_pickle({"label_names": ["cat", "dog", "fox"]}))
    ours = load_images("cifar10", tmp_path)
    for training, part in ((True, ours.train), (False, ours.test)):
        theirs = CIFAR10(str(tmp_path), train=training)
        expected = {np.asarray(image).transpose(2, 0, 1).tobytes(): label for image, label in theirs}
        assert {im.numpy().tobytes(): int(la) for im, la in zip(part.images, part.labels, strict=True)} == expected
    assert ours.classes == tuple(theirs.classes)


def test_cinic_learns_from_train_and_valid(small, tmp_path):
    folder(tmp_path / "cinic-10", ("train", "valid", "test"))
    data = load_images("cinic10", tmp_path)
    assert (len(data.train), len(data.test), data.classes) == (16, 8, ("a", "b"))


def test_tiny_imagenet_reads_its_notes(small, tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n01", "n02"):
        for number in range(4):
            picture(root / "train" / name / "images" / f"{name}_{number}.JPEG", (64, 64), number)
    for number in range(3):
        picture(root / "val" / "images" / f"val_{number}.JPEG", (64, 64), number, mode="L")
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{n}.JPEG\tn0{2 - n % 2}\t0\t0\t1\t1\n" for n in range(3))
    )
    data = load_images("tinyimagenet", tmp_path)
    assert sorted(data.test.labels.tolist()) == [0, 1, 1]
    assert data.train.images.shape == (8, 3, 64, 64)


def test_imagenet_layout(tmp_path):
    folder(tmp_path / "imagenet", ("train", "val"), each=3, size=(70, 50))
    place = find_imagenet(tmp_path)
    task = stream_task(place, 2, 1, "ImageNet · x")
    assert (task.shape[0], len(task.split(0).test)) == (4, 2)
    with pytest.raises(UserError, match=r"6 images, expected 1,281,167"):
        stream_task(place, None, None, "x")
    (place / "val" / "b").rename(place / "val" / "c")
    with pytest.raises(UserError, match="class b is in only one"):
        stream_task(place, 2, 1, "x")


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda d: (d / "cifar100.npz").unlink(), r"not in .*how to get it"),
        (lambda d: (d / "cifar100.npz").write_bytes(b"PK\x03\x04junk"), "can't be read as an npz"),
        (lambda d: np.savez(d / "cifar100.npz", x_train=1), "no array y_train, x_test, y_test"),
        (lambda d: (d / "cifar100.npz").write_bytes(_npy()), "can't be read as an npz"),
        (lambda d: _save(d, x_train=arrays(6, 3)[0].astype(float)), r"uint8 \(N, H, W, 3\)"),
        (lambda d: _save(d, y_train=np.zeros(5, int)), "labels must be 6 whole numbers"),
        (lambda d: _save(d, x_train=arrays(5, 3)[0], y_train=arrays(5, 3)[1]), "5 training images, expected 6"),
        (lambda d: _save(d, y_test=np.array([0, 1, 1])), "no image of class '2' in the test part"),
        (lambda d: _save(d, y_test=np.array([0, 1, 7])), r"must be in \[0, 3\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(small, tmp_path, break_it, says):
    _save(tmp_path)
    break_it(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        load_images("cifar100", tmp_path)
    assert "\n" not in str(caught.value)


def _npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


def _save(place: Path, **changes) -> None:
    (x, y), (tx, ty) = arrays(6, 3), arrays(3, 3, seed=1)
    np.savez(place / "cifar100.npz", **{"x_train": x, "y_train": y, "x_test": tx, "y_test": ty, **changes})


def test_a_pickle_that_runs_code_is_refused(small, tmp_path):
    raw = tmp_path / "cifar-100-python"
    raw.mkdir()
    (raw / "train").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="isn't plain data"):
        load_images("cifar100", tmp_path)


def test_a_pickle_of_another_data_set_is_one_line(small, tmp_path):
    raw = tmp_path / "cifar-100-python"
    raw.mkdir()
    for content in ({b"data": np.zeros((6, 3072), np.uint8), b"labels": [0] * 6}, [1, 2], 5):
        (raw / "train").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"train: damaged \(.*\); get the archive again"):
            load_images("cifar100", tmp_path)


# Class folders


def test_a_folder_of_class_folders(tmp_path):
    data = load_folder(folder(tmp_path))
    assert (data.classes, len(data.train), data.test) == (("a", "b"), 8, None)
    with Image.open(tmp_path / "b" / "2.png") as image:
        assert torch.equal(data.train.images[6], torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()))


def test_given_parts_are_used(tmp_path):
    three = load_folder(folder(tmp_path / "x", ("train", "val", "test")))
    assert (len(three.train), len(three.validation), len(three.test)) == (8, 8, 8)
    two = load_folder(folder(tmp_path / "y", ("train", "Validation")))
    assert two.validation is None
    assert len(two.test) == 8


def test_images_of_any_kind_become_squares_of_one_size(tmp_path):
    picture(tmp_path / "a" / "wide.jpg", (80, 50))
    picture(tmp_path / "a" / "deep" / "grey.png", (50, 90), mode="L")
    picture(tmp_path / "b" / "clear.png", (64, 64), mode="RGBA")
    picture(tmp_path / "b" / "palette.gif", (64, 70), mode="P")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    assert load_folder(tmp_path).train.images.shape == (4, 3, 64, 64)
    assert load_folder(tmp_path, size=24).train.images.shape == (4, 3, 24, 24)


def test_sixteen_bit_greys_keep_their_shades_and_wider_pixels_are_named(tmp_path):
    grey = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) % 256
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(grey * 257).save(tmp_path / name / "x.png")
    Image.fromarray(grey * 257).save(tmp_path / "b" / "y.tiff")
    data = load_folder(tmp_path)
    assert all(torch.equal(image[0], torch.from_numpy(grey.astype(np.uint8))) for image in data.train.images)
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "a" / "float.tiff")
    with pytest.raises(UserError, match=r"float\.tiff \(32 bits a pixel, expected 8 or 16\)"):
        load_folder(tmp_path)


@pytest.mark.parametrize("largest", [4095, 65535])
def test_sixteen_bit_pgm_files_keep_their_shades(tmp_path, largest):
    grey = np.arange(1024) * largest // 1023
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.pgm").write_bytes(b"P5 32 32 %d\n" % largest + grey.astype(">u2").tobytes())
    expected = (grey * 255 / largest).reshape(32, 32)
    assert np.abs(load_folder(tmp_path).train.images[0, 0].numpy() - expected).max() <= 1


def test_files_in_hidden_folders_are_no_examples(tmp_path):
    picture(folder(tmp_path) / "a" / ".thumbnails" / "0.png")
    assert len(load_folder(tmp_path).train) == 8


def test_a_photograph_is_turned_the_way_its_camera_was_held(tmp_path):
    for name in "ab":
        picture(tmp_path / name / "x.png", (32, 32))
    with Image.open(tmp_path / "a" / "x.png") as image:
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down
        image.save(tmp_path / "a" / "x.png", exif=exif)
        straight = np.asarray(image.rotate(180)).transpose(2, 0, 1)
    assert np.array_equal(load_folder(tmp_path).train.images[0].numpy(), straight)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda d: truncate(d / "a" / "1.png"), r"1 image\(s\) can't be read: .*1\.png \(truncated\)"),
        (lambda d: (d / "b" / "0.png").write_bytes(b""), r"0\.png \(empty file\)"),
        (lambda d: (d / "b" / "0.png").write_bytes(b"hello"), r"0\.png \(not an image\)"),
        (lambda d: [p.unlink() for p in (d / "b").iterdir()], "b: a class folder without images"),
        (lambda d: shutil.rmtree(d / "b"), "at least two class"),
        (lambda d: folder(d, ("val",)), "has val but no train folder"),
        (lambda d: [(d / a).rename(d / b) for a, b in (("a", "train"), ("b", "Test"))], "but no class folders"),
        (lambda d: folder(d, ("train", "val", "valid")), "two of train, val, valid are the same part"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(tmp_path, break_it, says):
    break_it(folder(tmp_path))
    with pytest.raises(UserError, match=says) as caught:
        load_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_classes_must_be_the_same_in_every_part(tmp_path):
    folder(tmp_path / "x", ("train",), "abc")
    folder(tmp_path / "x", ("test",), "ab")
    with pytest.raises(UserError, match="no image of class 'c' in the test part"):
        load_folder(tmp_path / "x")
    folder(tmp_path / "x", ("test",), "cd")
    with pytest.raises(UserError, match="class 'd' isn't in the training part"):
        load_folder(tmp_path / "x")
    folder(tmp_path / "y", ("train",))
    with pytest.raises(UserError, match="neither val nor test"):
        load_folder(tmp_path / "y")


# Division


def test_parts_are_disjoint_stratified_and_differ_by_repeat():
    data = ImageSet("x", tuple("abcd"), noise(100))
    task = ImageTask(data, select="validation", test_size=0.2)
    split = task.split(0)
    parts = (split.train, split.validation, split.test)
    assert [len(part) for part in parts] == [64, 16, 20]
    assert len({image.numpy().tobytes() for part in parts for image in part.images}) == 100
    for part in parts:
        assert len(set(torch.bincount(part.labels).tolist())) == 1
    again, other = task.split(0), task.split(1)
    assert torch.equal(split.test.images, again.test.images)
    assert not torch.equal(split.test.images, other.test.images)
    seeded = ImageTask(data, select="validation", test_size=0.2, seed=1).split(0)
    assert not torch.equal(split.test.images, seeded.test.images)


def test_means_are_of_the_training_part_alone():
    split = ImageTask(ImageSet("x", tuple("abcd"), noise(100), noise(40, seed=2)), per_class=5).split(0)
    assert len(split.train) == 20
    plain = split.train.images.double() / 255
    torch.testing.assert_close(split.mean, plain.mean((0, 2, 3)))
    torch.testing.assert_close(split.std, plain.std((0, 2, 3), correction=0))


def test_a_class_too_small_to_be_divided_is_named():
    part = Part(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 0, 1, 1]))
    with pytest.raises(UserError, match=re.escape("class 'b' has 2 image(s), and 3 are needed")):
        ImageTask(ImageSet("x", ("a", "b"), part), select="validation")


def test_a_plane_without_variation_stays_finite():
    part = Part(torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.arange(6) % 2)
    assert ImageTask(ImageSet("x", ("a", "b"), part, part)).split(0).std.tolist() == [1, 1, 1]
