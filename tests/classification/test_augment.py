"""Changes of training pictures: values by hand and by torchvision, and what is drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import functional as tv

from lessismore_transforms.classification.augment import Augment, Changes, Drawn

EVERYTHING = Changes(0.5, 0.3, 20.0, 0.1, 0.4, 0.4, 0.5, 0.4, 1.0)
MEAN, STD = 0.4, 0.2


def pictures(count: int = 6, channels: int = 1, size: int = 8) -> torch.Tensor:
    """Normalised pictures (B, C, S, S) of random pixels in 0..1."""
    pixels = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(count))
    return (pixels - MEAN) / STD


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images * STD + MEAN


def augment(changes: Changes = EVERYTHING, **options: Any) -> Augment:
    return Augment(changes, **({"mean": [MEAN], "std": [STD], "classes": 3} | options))


def applied(images: torch.Tensor, **drawn: Any) -> torch.Tensor:
    made, labels = augment().apply(images, torch.arange(len(images)) % 3, Drawn(**drawn))
    assert torch.equal(labels, torch.arange(len(images)) % 3)
    return made


def maps(*rows: Any, count: int = 6) -> torch.Tensor:
    return torch.tensor([rows] * count, dtype=torch.float32)


def test_what_is_off_changes_nothing_and_draws_nothing() -> None:
    assert not Changes().any
    assert all(replace(Changes(), **{name: value}).any for name, value in vars(EVERYTHING).items())
    images = pictures()
    made, labels = augment(Changes()).apply(images, torch.arange(6), augment(Changes()).draw(6, 8, step=1))
    assert made is images
    assert torch.equal(labels, torch.arange(6))


def test_geometry_by_hand() -> None:
    images = pictures()
    torch.testing.assert_close(applied(images, maps=maps([1, 0, 0], [0, 1, 0])), images)
    turned = applied(images, maps=maps([0, -1, 0], [1, 0, 0]))  # the place (x, y) shows what is at (-y, x)
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)), rtol=0, atol=1e-4)
    right = pixels(
        applied(images, maps=maps([1, 0, -0.5], [0, 1, 0]))
    )  # two of eight pixels to the right, black behind
    torch.testing.assert_close(right[..., 2:], pixels(images)[..., :-2], rtol=0, atol=1e-5)
    torch.testing.assert_close(right[..., :2], torch.zeros(6, 1, 8, 2), rtol=0, atol=1e-5)
    corner = applied(images, maps=maps([0.5, 0, -0.5], [0, 0.5, -0.5]))  # the upper left quarter, twice as large
    twice = F.interpolate(images[..., :5, :5], scale_factor=2, mode="bilinear")  # with one pixel beyond it
    torch.testing.assert_close(corner[..., 1:, 1:], twice[..., 1:8, 1:8], rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_and_contrast_are_those_of_torchvision(channels: int) -> None:
    images = pictures(3, 1).expand(-1, channels, -1, -1)  # torchvision's grey of colours is weighted
    brightness, contrast = torch.tensor([0.6, 1.0, 1.4]), torch.tensor([1.3, 0.5, 0.9])
    options = {"mean": [MEAN] * channels, "std": [STD] * channels}
    made, _ = augment(**options).apply(images, torch.zeros(3), Drawn(brightness=brightness, contrast=contrast))
    for number in range(3):
        expected = tv.adjust_brightness(pixels(images[number]), brightness[number].item())
        expected = tv.adjust_contrast(expected, contrast[number].item())
        torch.testing.assert_close(pixels(made[number]), expected, rtol=0, atol=1e-4)  # luma's weights sum to 0.9999


def test_what_is_erased_is_the_mean_of_the_training() -> None:
    images = pictures(2)
    made = applied(images, erased=torch.tensor([[2, 5, 1, 3], [0, 0, 0, 0]]))
    assert (pixels(made[0, 0, 2:5, 1:3]) == MEAN).all()
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[2:5, 1:3] = False
    assert torch.equal(made[0, 0][outside], images[0, 0][outside])
    assert torch.equal(made[1], images[1])


def test_mixed_pictures_have_mixed_labels_and_losses() -> None:
    images, labels = pictures(3), torch.tensor([0, 2, 2])
    partner = torch.tensor([1, 2, 0])
    mixed, shares = augment().apply(images, labels, Drawn(partner=partner, share=0.7))
    torch.testing.assert_close(mixed, 0.7 * images + 0.3 * images[partner])
    torch.testing.assert_close(shares, torch.tensor([[0.7, 0, 0.3], [0, 0, 1], [0.3, 0, 0.7]]))
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    expected = 0.7 * F.cross_entropy(logits, labels) + 0.3 * F.cross_entropy(logits, labels[partner])
    torch.testing.assert_close(F.cross_entropy(logits, shares), expected)
    cut, shares = augment().apply(images, labels, Drawn(partner=partner, box=(0, 4, 6, 8)))
    assert torch.equal(cut[..., :4, 6:], images[partner][..., :4, 6:])
    assert torch.equal(cut[..., 4:, :], images[..., 4:, :])
    assert torch.equal(cut[..., :6], images[..., :6])
    torch.testing.assert_close(shares[0], torch.tensor([1 - 8 / 64, 0, 8 / 64]))


def test_what_is_drawn_is_in_its_range_and_all_over_it() -> None:
    drawn = augment(replace(EVERYTHING, rotation=0.0, shift=0.0)).draw(4000, 32, step=1)
    linear, centre = drawn.maps[:, :, :2], drawn.maps[:, :, 2]
    width, height = linear[:, 0, 0], linear[:, 1, 1]
    assert (linear[:, 0, 1] == 0).all()
    assert (centre.abs() + torch.stack([width, height], dim=1) <= 1 + 1e-6).all()  # inside of the picture
    area, ratio = (width * height).numpy(), (width / height).log().numpy()
    cut = np.isclose(torch.maximum(width, height).numpy(), 1)
    assert 0.3 - 1e-6 <= area.min() < 0.31
    assert area[~cut].mean() < 0.65
    assert np.abs(ratio).max() <= math.log(4 / 3) + 1e-6
    for factors in (drawn.brightness, drawn.contrast):
        assert 0.6 <= factors.min() < 0.61
        assert 1.39 < factors.max() <= 1.4
    erased = drawn.erased
    assert 0.45 < (erased[:, 1] > 0).float().mean() < 0.55
    assert (erased >= 0).all()
    assert (erased <= 32).all()
    some = erased[erased[:, 1] > 0]
    shares = (some[:, 1] - some[:, 0]) * (some[:, 3] - some[:, 2]) / 32**2
    assert shares.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    assert 0.45 < drawn.flipped.float().mean() < 0.55
    assert sorted(drawn.partner.tolist()) == list(range(4000))


def test_angles_and_shifts() -> None:
    drawn = augment(Changes(rotation=30)).draw(2000, 8, step=1)
    angles = torch.rad2deg(torch.atan2(drawn.maps[:, 1, 0], drawn.maps[:, 0, 0]))
    assert (torch.linalg.det(drawn.maps[:, :, :2]) - 1).abs().max() < 1e-6
    assert -30 <= angles.min() < -29
    assert 29 < angles.max() <= 30
    assert (drawn.maps[:, :, 2] == 0).all()
    shifted = augment(Changes(shift=0.1)).draw(2000, 8, step=1).maps
    assert torch.equal(shifted[:, :, :2], torch.eye(2).expand(2000, -1, -1))
    assert 0.195 < shifted[:, :, 2].abs().max() <= 0.2  # a tenth of the side, which is two long


def test_shares_and_boxes_of_mixtures() -> None:
    """Beta(1, 1) is uniform; a box has the share's area unless the border cuts it."""
    mixup = [augment(Changes(mixup=1.0)).draw(2, 8, step=step) for step in range(400)]
    assert all(each.box is None for each in mixup)
    assert np.mean([each.share for each in mixup]) == pytest.approx(0.5, abs=0.06)
    assert np.std([each.share for each in mixup]) == pytest.approx(1 / math.sqrt(12), abs=0.03)
    cutmix = [augment(Changes(cutmix=1.0)).draw(2, 64, step=step).box for step in range(400)]
    assert all(box is not None and 0 <= box[0] <= box[1] <= 64 and 0 <= box[2] <= box[3] <= 64 for box in cutmix)
    inner = [box for box in cutmix if box[0] > 0 and box[1] < 64 and box[2] > 0 and box[3] < 64]
    assert all(abs((box[1] - box[0]) - (box[3] - box[2])) <= 1 for box in inner)
    both = [augment(Changes(mixup=1.0, cutmix=1.0)).draw(2, 64, step=step).box is None for step in range(400)]
    assert 160 < sum(both) < 240


def test_everything_is_a_function_of_seed_process_and_step() -> None:
    images, labels = pictures(8, 3), torch.arange(8) % 3
    made = [augment(seed=seed)(images, labels, step=step, rank=rank) for seed, step, rank in ((1, 2, 3),) * 2]
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])
    for seed, step, rank in ((2, 2, 3), (1, 3, 3), (1, 2, 0)):
        assert not torch.equal(augment(seed=seed)(images, labels, step=step, rank=rank)[0], made[0][0])
    alone = augment(Changes(rotation=20.0)).draw(8, 8, step=5)
    others = augment(Changes(rotation=20.0, flip_vertical=0.5, brightness=0.2, erasing=1.0, mixup=1.0)).draw(
        8, 8, step=5
    )
    assert torch.equal(alone.maps, others.maps)  # what one change draws does not depend on which others are on
    assert images.shape == made[0][0].shape


def test_above_and_below_of_transposed_pictures() -> None:
    images, flipped = pictures(2), torch.tensor([True, False])
    for transpose, dimension in ((False, 2), (True, 3)):
        made, _ = augment(transpose=transpose).apply(images, torch.zeros(2), Drawn(flipped=flipped))
        assert torch.equal(made[0], images[:1].flip(dimension)[0])
        assert torch.equal(made[1], images[1])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("erasing", 1.5, "expected erasing to be a probability from 0 to 1, found 1.5; 0.5 is usual"),
        ("crop", 0, "expected crop to be a share of the area above 0, up to 1, found 0; 0.5 is usual"),
        ("rotation", 200, "expected rotation to be degrees from 0 to 180, found 200; 10 is usual"),
        ("mixup", -1, "expected mixup to be a number from 0, the alpha of a Beta distribution, found -1; 0.2 is usual"),
        ("cutmix", math.inf, "found inf"),
        ("contrast", "0.2", "expected contrast to be a strength from 0 to 1, found '0.2'; 0.2 is usual"),
        ("shift", True, "expected shift to be a share of the side from 0 to 1, found True"),
    ],
)
def test_what_is_out_of_range(name: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Changes(**{name: value})
