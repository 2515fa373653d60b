from __future__ import annotations

import numpy as np
import pytest
import torch

from lessismore_transforms.classification.examples import Example, Examples, Split
from lessismore_transforms.classification.preprocessing import Prepare, statistics_of

RAMP = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 6) * 20  # rows of 0..100 and 120..220


def test_area_is_the_mean_of_what_a_pixel_covers_and_repeats_small_pictures() -> None:
    small = Prepare(2)({"image": RAMP, "label": 1})
    assert small["label"] == 1
    expected = torch.tensor([[[20.0, 80], [140, 200]]]) / 255
    torch.testing.assert_close(small["image"], expected)
    large = Prepare(4)({"image": expected.mul(255).to(torch.uint8)})["image"]
    torch.testing.assert_close(large, expected.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_normalised_per_channel_and_transposed() -> None:
    colour = torch.stack([RAMP[0], RAMP[0] + 5, RAMP[0] + 10])
    plain = Prepare(2)({"image": colour})["image"]
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2, 4])
    made = Prepare(2, mean.tolist(), std.tolist(), transpose=True)({"image": colour})["image"]
    torch.testing.assert_close(made, ((plain.mT - mean[:, None, None]) / std[:, None, None]))


def test_bilinear_equals_pillow() -> None:
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)
    made = Prepare(32, resize="bilinear")({"image": torch.from_numpy(picture)[None]})["image"]
    expected = Image.fromarray(picture.astype(np.float32), mode="F").resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(made[0] * 255, np.asarray(expected), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": 0}, "expected an image_size of 1 pixel or more, found 0"),
        ({"resize": "cubic"}, "expected a resize out of area, bilinear, found 'cubic'"),
        ({"std": (0.0,)}, r"list of one number above 0 or three, such as \[0.18\], found \(0.0,\): leave it out"),
        ({"mean": (0.1, 0.2)}, r"expected mean to be a list of one number or three, such as .*, found \(0.1, 0.2\): "),
        ({"mean": ["a"], "std": [1]}, r"expected mean to be a list of one number or three, .*, found \['a'\]: leave"),
        ({"mean": [0.5], "std": ["a"]}, r"expected std to be .*, found \['a'\]"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Prepare(**settings)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_all_pixels_of_the_resized_training_pictures(channels: int) -> None:
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (8 * k, 8, channels), np.uint8) for k in (1, 2, 3)]  # each a multiple of 8
    images = [image[..., 0] if channels == 1 else image for image in images]
    examples = tuple(Example(str(k), k % 2, "train" if k < 2 else "val") for k in range(3))
    split = Split(Examples("task", ("a", "b"), examples, images, channels), "train")
    mean, std = statistics_of(split, 8)
    arrays = [images[0], images[1].reshape(8, 2, 8, *images[1].shape[2:]).mean(axis=1)]
    pixels = np.stack(arrays).reshape(-1, channels) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-6)
    assert statistics_of(split, 8, mean=[0.25]) == ([0.25], std)
