"""Pictures as the input of a network: values by hand and by Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lessismore_transforms.reduction.network_input import normalise, resize


def test_area_is_the_mean_of_what_a_pixel_covers_and_repeats_small_pictures() -> None:
    ramp = torch.arange(16.0).view(1, 1, 4, 4)
    small = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    assert torch.equal(resize(ramp, 2, "area")[0, 0], small)
    assert torch.equal(
        resize(small[None, None], 4, "area")[0, 0], small.repeat_interleave(2, 0).repeat_interleave(2, 1)
    )


@pytest.mark.parametrize("shape", [(40, 64), (10, 12), (33, 32)])
def test_bilinear_is_pillows_without_rounding(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR))
    made = resize(torch.from_numpy(picture)[None, None], 32)
    assert made.shape == (1, 1, 32, 32)
    np.testing.assert_allclose(made[0, 0].numpy(), expected, atol=1e-5)


def test_normalised_by_one_number_or_one_per_channel() -> None:
    pixels = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    assert normalise(pixels, [0.5], [0.25]).flatten().tolist() == [-2.0, 0.0, 2.0]
    three = normalise(pixels, [0.0, 0.5, 1.0], [1.0, 0.5, 0.25])  # (1, 3, 1, 3)
    assert three[0, :, 0].tolist() == [[0.0, 0.5, 1.0], [-1.0, 0.0, 1.0], [-4.0, -2.0, 0.0]]
