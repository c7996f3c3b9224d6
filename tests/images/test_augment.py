"""Batched kernels against torchvision's one image at a time, and what the choices depend on."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torchvision.transforms.functional as TF
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomErasing

from crossfade.errors import UserError
from crossfade.lab.data.images import ImageSet, ImageTask, Part
from crossfade.lab.train.deep.augment import Draws, Pixels, _turn_hue, draw
from crossfade.lab.train.deep.feeds import ImageFeed, Place, bounds
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from tests.examples import examples

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
FULL = Augment(crop=4, rotation=15, jitter=0.4, erasing=0.5, hue=0.1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, height: int = 32, width: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator(seed))


def normalised(image: torch.Tensor) -> torch.Tensor:
    return (image - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


def moved(image: torch.Tensor, border: int, draws: Draws, at: int) -> torch.Tensor:
    """Return what torchvision's crop, flip and rotation make of bytes with the same choices."""
    _, height, width = image.shape
    image = TF.crop(TF.pad(image, [border]), int(draws.top[at]), int(draws.left[at]), height, width)
    if draws.mirror is not None and draws.mirror[at]:
        image = TF.hflip(image)
    return image if draws.angle is None else TF.rotate(image, math.degrees(float(draws.angle[at])))


def between_pixels(height: int, width: int, angle: float) -> torch.Tensor:
    """Return where a rotated pixel comes from the line between two pixels, which is nearest to neither."""
    y = torch.arange(height, dtype=torch.float64).view(-1, 1) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64).view(1, -1) - (width - 1) / 2
    row = x * math.sin(angle) + y * math.cos(angle) + (height - 1) / 2
    column = x * math.cos(angle) - y * math.sin(angle) + (width - 1) / 2
    # Single precision, ours and theirs, is off by up to 1e-6 of a pixel.
    return torch.stack([(place % 1 - 0.5).abs() for place in (row, column)]).amin(0) < 1e-5


def coloured(image: torch.Tensor, draws: Draws, at: int) -> tuple[torch.Tensor, float]:
    """Return what torchvision's jitter makes of an image in [0, 1], and how far single precision may be off."""
    if draws.factor is None:
        return image, 1e-7
    adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    rounding = 3e-6 if (draws.kind[at] == 3).any() else 5e-7  # most of it is the hue's, in theirs as in ours
    for kind, factor in zip(draws.kind[at].tolist(), draws.factor[at].tolist(), strict=True):
        image = adjust[kind](image, factor)
        # What was off before is stretched: a blend is factor * image + (1 - factor) * another.
        rounding *= {0: max(factor, 1.0), 3: 1.0}.get(kind, factor + abs(1 - factor))
    return image, rounding


@examples(25)
@given(
    st.integers(0, 2**40), st.integers(4, 40), st.integers(4, 40), st.integers(1, 6),
    st.sampled_from([0.0, 15.0, 180.0]), st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([0.0, 0.1, 0.5]),
)  # fmt: skip
def test_crop_flip_rotate_and_jitter_are_torchvisions(seed, height, width, crop, rotation, jitter, hue):
    """Rotation isn't continuous between two pixels: such a pixel is left out, and colours start from ours.

    A step with the contrast would carry one such pixel's difference into the mean grey, and so into every pixel.
    """
    raw = images(9, height, width)
    draws = draw(Augment(crop=crop, rotation=rotation, jitter=jitter, hue=hue), 9, height, width, generator(seed))
    index = torch.tensor([8, 0, 3, 3])
    own = draws.rows(index)
    unchanged = Pixels(raw, torch.zeros(3), torch.ones(3), border=crop)
    turned = unchanged.batch(index, replace(own, factor=None, kind=None))
    batch = Pixels(raw, MEAN, STD, border=crop).batch(index, own)
    for place, at in enumerate(index.tolist()):
        same = (255 * turned[place]).round() == moved(raw[at], crop, draws, at)
        if draws.angle is not None:
            same |= between_pixels(height, width, float(draws.angle[at]))
        assert same.all()
        expected, rounding = coloured(turned[place], draws, at)
        atol = rounding / float(STD.min()) + 1e-6
        torch.testing.assert_close(batch[place], normalised(expected), atol=atol, rtol=0)


@given(st.floats(-0.5, 0.5), st.integers(0, 2**40))
def test_hue_is_torchvisions_on_greys_pure_colours_and_ties(shift, seed):
    """Colours with two or three equal channels lie on the borders between the circle's sectors."""
    levels = torch.tensor([0.0, 0.25, 1.0])
    border = torch.cartesian_prod(levels, levels, levels).T.view(3, 1, 27)
    batch = torch.stack([border, torch.rand(3, 1, 27, generator=generator(seed))])
    turned = _turn_hue(batch, torch.tensor([shift, -shift]))
    for at, own in enumerate((shift, -shift)):
        # Each of the two is within 1.5e-6 of the exact colour: an angle of up to 13 sixths is rounded three times.
        torch.testing.assert_close(turned[at], TF.adjust_hue(batch[at], own), atol=3e-6, rtol=0)
    back = _turn_hue(turned, torch.tensor([-shift, shift]))
    torch.testing.assert_close(back, batch, atol=5e-6, rtol=0)
    assert torch.equal(turned.amax(1), batch.amax(1))


def test_rotation_agrees_with_pillows():
    raw = images(6)
    draws = replace(draw(Augment(rotation=15), 6, 32, 32, generator()), top=None, left=None, mirror=None)
    batch = Pixels(raw, torch.zeros(3), torch.ones(3), border=4).batch(torch.arange(6), draws) * 255
    for at in range(6):
        turned = TF.rotate(Image.fromarray(raw[at].permute(1, 2, 0).numpy()), math.degrees(float(draws.angle[at])))
        same = (TF.pil_to_tensor(turned).float() - batch[at]).abs() < 0.5
        assert same.float().mean() > 0.99


def test_erasing_sets_the_box_and_nothing_else_to_the_mean():
    raw = images(200)
    draws = draw(Augment(crop=0, flip=False, erasing=1.0), 200, 32, 32, generator())
    pixels, every = Pixels(raw, MEAN, STD), torch.arange(200)
    plain, erased = pixels.batch(every), pixels.batch(every, draws)
    for at, (top, left, bottom, right) in enumerate(draws.box.tolist()):
        expected = plain[at].clone()
        expected[:, top:bottom, left:right] = 0
        assert torch.equal(erased[at], expected)
        assert 0 <= top <= bottom <= 32
        assert 0 <= left <= right <= 32


def test_erased_boxes_are_distributed_like_torchvisions():
    """Areas, shapes and places of 4,000 boxes against RandomErasing's own, by two-sample Kolmogorov-Smirnov tests."""
    box = draw(Augment(crop=0, flip=False, erasing=1.0), 4000, 32, 32, generator(3)).box.float()
    ours = torch.stack([box[:, 0], box[:, 1], box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]], 1)
    torch.manual_seed(0)
    image = torch.ones(3, 32, 32)
    theirs = torch.tensor(
        [RandomErasing.get_params(image, (0.02, 0.4), (0.3, 1 / 0.3), [0.0])[:4] for _ in range(4000)]
    )
    for column in range(4):
        assert stats.ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue > 1e-3


def test_probabilities_and_ranges():
    draws = draw(replace(FULL, erasing=0.3), 20_000, 32, 32, generator(5))
    assert abs((draws.mirror == 255).float().mean() - 0.5) < 0.02
    assert set(draws.mirror.tolist()) == {0, 255}
    assert torch.bincount(draws.top).tolist() == pytest.approx([20_000 / 9] * 9, rel=0.1)
    assert len(torch.bincount(draws.left)) == 9
    assert abs((draws.box.sum(1) > 0).float().mean() - 0.3) < 0.02
    assert stats.kstest(draws.angle.numpy() / math.radians(15), "uniform", (-1, 2)).pvalue > 1e-3
    hue = draws.kind == 3
    assert stats.kstest(draws.factor[~hue].numpy(), "uniform", (0.6, 0.8)).pvalue > 1e-3
    assert stats.kstest(draws.factor[hue].numpy(), "uniform", (-0.1, 0.2)).pvalue > 1e-3
    for kinds, orders in ((draws.kind, 24), (draw(Augment(jitter=0.4), 20_000, 32, 32, generator(5)).kind, 6)):
        found = torch.unique(kinds, dim=0, return_counts=True)[1]
        assert len(found) == orders
        assert found.min() > 20_000 / orders * 0.8


def test_one_choice_does_not_change_another():
    some, more = (draw(a, 50, 32, 32, generator(7)) for a in (Augment(), FULL))
    assert torch.equal(some.top, more.top)
    assert torch.equal(some.mirror, more.mirror)
    assert some.angle is None
    assert some.box is None


def test_batches_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    list(_feed(_split(30), FULL, 8))
    assert torch.equal(before, torch.get_rng_state())


def _split(count: int):
    part = Part(images(count), torch.arange(count) % 3)
    return ImageTask(ImageSet("x", tuple("abc"), part, part)).split(0)


def _feed(split, augment, size, rank=0, world=1):
    recipe = ImageRecipe(augment=augment, batch_size=size)
    return ImageFeed(split.train, split, recipe, 1, Place(torch.device("cpu"), rank, world))


def _scored(split, rank=0, world=1):
    return ImageFeed(split.test, split, ImageRecipe(), None, Place(torch.device("cpu"), rank, world), scored=5)


def _epoch(batches, epoch: int) -> dict[int, torch.Tensor]:
    batches.set_epoch(epoch)
    return {int(i): image for x, _, index, _ in batches for i, image in zip(index, x, strict=True)}


def test_an_image_is_augmented_alike_at_any_batch_size_and_number_of_processes():
    split = _split(45)
    whole = _epoch(_feed(split, FULL, 16), 4)
    assert sorted(whole) == list(range(45))
    small = _epoch(_feed(split, FULL, 5), 4)
    shared = [_epoch(_feed(split, FULL, 16, rank, 3), 4) for rank in range(3)]
    assert not set(shared[0]) & set(shared[1])
    for other in (small, {**shared[0], **shared[1], **shared[2]}):
        assert sorted(other) == list(range(45))
        assert all(torch.equal(whole[i], other[i]) for i in whole)
    later = _epoch(_feed(split, FULL, 16), 5)
    assert not all(torch.equal(whole[i], later[i]) for i in whole)


@given(st.integers(1, 200), st.integers(1, 50))
def test_bounds_cover_everything_once(count, size):
    marks = bounds(count, size)
    assert marks[0] == 0
    assert marks[-1] == count
    steps = [b - a for a, b in itertools.pairwise(marks)]
    assert all(step == size for step in steps[:-1])
    assert len(steps) == 1 or size / 4 <= steps[-1] < 1.25 * size


def test_shares_add_up_to_the_mean_over_the_global_batch():
    split, parts = _split(25), [_feed(_split(25), Augment(), 10, rank, 2) for rank in range(2)]
    for (_, one, _, share), (_, two, _, other) in zip(*parts, strict=True):
        weighted = (one.float().mean() * share + two.float().mean() * other) / 2
        assert weighted.item() == pytest.approx(torch.cat([one, two]).float().mean().item())
    assert len(split.train) == 25


def test_scoring_takes_images_as_they_are_in_order():
    split = _split(12)
    x = torch.cat([x for x, *_ in _scored(split)])
    expected = (split.test.images.double() / 255 - split.mean.view(3, 1, 1)) / split.std.view(3, 1, 1)
    torch.testing.assert_close(x.double(), expected, atol=2e-6, rtol=1e-5)
    index = torch.cat([i for rank in range(2) for *_, i, _ in _scored(split, rank, 2)])
    assert sorted(index.tolist()) == list(range(12))


def test_recipes_without_hue_keep_the_keys_they_had_before_there_was_one():
    assert ImageRecipe().to_dict()["augment"] == {"crop": 4, "flip": True, "rotation": 0, "jitter": 0, "erasing": 0}
    assert ImageRecipe(augment=FULL).to_dict()["augment"]["hue"] == 0.1


@pytest.mark.parametrize(
    ("name", "value"),
    [("crop", -1), ("crop", 1.5), ("rotation", 200.0), ("erasing", 1.1), ("jitter", -1), ("hue", 0.6)],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(UserError, match=name):
        Augment(**{name: value})
