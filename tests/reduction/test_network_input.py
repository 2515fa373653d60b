"""Pictures as the input of a network: values by hand and by Pillow."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.network_input import check_mean_std, normalise, resize


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


@pytest.mark.parametrize("wrong", [["a"], "abc", 0.5, None, [], [0.1, 0.2], [math.nan], [math.inf], [True], [None]])
def test_a_mean_or_std_that_is_no_list_of_numbers_is_refused(wrong: object) -> None:
    check_mean_std([0.5], (1, 0.5, 2.0), "")
    check_mean_std((-0.5, 0, 1), [np.float32(0.25)], "")
    for name, given in (("mean", (wrong, [1.0])), ("std", ([0.5], wrong))):
        with pytest.raises(UserError, match=rf"^expected {name} to be .*, found {re.escape(repr(wrong))}: drop it$"):
            check_mean_std(*given, "drop it")
    for least in (0, -1.0):
        with pytest.raises(UserError, match="expected std to be a list of one number above 0 or three"):
            check_mean_std([0.5], [1.0, least, 1.0], "")
