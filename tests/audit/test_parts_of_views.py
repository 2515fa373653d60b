from __future__ import annotations

import pytest
import torch

from lessismore_transforms.audit.parts_of_views import PARTS, only, parts_of
from lessismore_transforms.pretraining.views import View, Views

EVERYTHING = View(
    32, scale=(0.2, 0.5), flip_horizontal=1, rotate=1, jitter=1, brightness=0.5, contrast=0.5, blur=1, sigma=(1, 2),
    solarize=1, noise=1, noise_variance=(0.01, 0.02),
)  # fmt: skip
IMAGES = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SIZES = torch.tensor([[32, 32]] * 3)


def views_of(parts: tuple[str, ...]) -> torch.Tensor:
    views = Views([EVERYTHING], [0.0], [1.0], seed=1)
    (drawn,) = views.draw(SIZES, step=4)
    return views.apply(IMAGES, [only(drawn, parts)])[0]


def test_all_parts_are_the_view_and_none_is_the_picture() -> None:
    assert parts_of([EVERYTHING]) == PARTS
    assert torch.equal(views_of(PARTS), Views([EVERYTHING], [0.0], [1.0], seed=1)(IMAGES, SIZES, step=4)[0])
    assert torch.allclose(views_of(()), IMAGES / 255, atol=1e-6)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_and_its_absence_change_the_view(part: str) -> None:
    assert not torch.allclose(views_of((part,)), views_of(()), atol=1e-3)
    assert not torch.allclose(views_of(tuple(each for each in PARTS if each != part)), views_of(PARTS), atol=1e-3)


def test_a_part_alone_is_what_it_says() -> None:
    assert torch.allclose(views_of(("flip",)), IMAGES.flip(3) / 255, atol=1e-6)
    bright = views_of(("brightness",)) / views_of(()).clamp(min=1e-3)
    middle = (views_of(()) > 0.1) & (views_of(("brightness",)) < 0.999)
    for one, chosen in zip(bright, middle, strict=True):
        assert one[chosen].std() < 1e-3
        assert 0.5 <= one[chosen].mean() <= 1.5


def test_what_changes_no_grey_picture_is_no_part() -> None:
    view = View(32, scale=(1.0, 1.0), ratio=(1.0, 1.0), brightness=0, contrast=0, saturation=1, hue=0.4, blur=0)
    assert parts_of([view]) == ()
    assert parts_of([view, View(32, jitter=0, blur=0)]) == ("crop",)
