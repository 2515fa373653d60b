"""Changes of training pictures on the device, in batch: crop, rotation, brightness, erasing, and mixing of two.

Pictures come normalised and of one size. All random numbers are drawn first (`Augment.draw`), on the CPU, as a function
of seed, process and step alone; applying them (`Augment.apply`) draws nothing. The order is: mirroring above and below,
one affine map for crop, rotation and shift, brightness, contrast, erasing, mixing. What is off costs nothing and
changes nothing, to the bit. Mirroring left and right is that of `loader.PrepareExamples`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number
from lessismore_transforms.training.seeding import seed_for

_RATIO = (3 / 4, 4 / 3)  # width over height of a crop, log-uniform; Szegedy et al. 2015, Section 6
_ERASED_SHARE, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 3.3)  # Zhong et al. 2020, Section 4.1, and torchvision


@dataclass(frozen=True)
class Changes:
    """What is changed, and how much; the defaults change nothing.

    Args:
        flip_vertical: probability that a picture is mirrored above and below.
        crop: the smallest share of the area that a crop takes, uniform up to 1, and is resized back.
        rotation: the largest angle in degrees, uniform to both sides, about the centre; black outside.
        shift: the largest shift along each axis as a share of the side, uniform to both sides; black outside.
        brightness: factor from 1 - b to 1 + b of the pixels in 0..1.
        contrast: factor from 1 - c to 1 + c of their distance from the picture's mean.
        erasing: probability that a rectangle is replaced by the mean of the training pictures (Zhong et al. 2020).
        mixup: alpha of Beta(alpha, alpha), from which the share of the other picture comes (Zhang et al. 2018).
        cutmix: the same of the area that is replaced by that of the other picture (Yun et al. 2019); with both, each
            batch draws which one.

    Raises:
        UserError: a value is out of its range.
    """

    flip_vertical: float = 0.0
    crop: float = 1.0
    rotation: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for names, what, most, usual in (
            (("flip_vertical", "erasing"), "a probability from 0 to 1", 1, 0.5),
            (("brightness", "contrast"), "a strength from 0 to 1", 1, 0.2),
            (("shift",), "a share of the side from 0 to 1", 1, 0.1),
            (("rotation",), "degrees from 0 to 180", 180, 10),
            (("mixup", "cutmix"), "a number from 0, the alpha of a Beta distribution", math.inf, 0.2),
        ):
            for name in names:
                _expect(name, getattr(self, name), what, 0, most, usual)
        _expect("crop", self.crop, "a share of the area above 0, up to 1", math.ulp(0), 1, 0.5)

    @property
    def any(self) -> bool:
        """Whether anything is changed."""
        return any(getattr(self, each.name) != each.default for each in fields(self))


@dataclass(frozen=True)
class Drawn:
    """The random numbers of a batch of B pictures, on the CPU; None where something is off.

    Args:
        flipped: bool (B,).
        maps: float32 (B, 2, 3), from places of the result to those of the picture, both in -1..1, x before y.
        brightness: float32 (B,), factors.
        contrast: float32 (B,), factors.
        erased: int64 (B, 4), top, bottom, left and right of what is erased, all 0 where nothing is.
        partner: int64 (B,), the other picture of each.
        share: of the picture itself, where two are mixed pixel by pixel.
        box: top, bottom, left and right of what is replaced by the other picture, where two are mixed by area.
    """

    flipped: Tensor | None = None
    maps: Tensor | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None
    erased: Tensor | None = None
    partner: Tensor | None = None
    share: float = 1.0
    box: tuple[int, int, int, int] | None = None


class Augment:
    """Change the pictures of a batch, and the labels where pictures are mixed.

    Args:
        changes: what is changed.
        mean: that was subtracted of values in 0..1, one of all channels or one for each.
        std: that was divided by.
        classes: number of classes.
        seed: of the random numbers.
        transpose: whether rows and columns were exchanged, so that above and below are left and right.
    """

    def __init__(
        self,
        changes: Changes,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        classes: int = 2,
        seed: int = 0,
        transpose: bool = False,
    ) -> None:
        self.changes, self.mean, self.std = changes, list(mean), list(std)
        self.classes, self.seed, self.dimension = classes, seed, -1 if transpose else -2

    def __call__(self, images: Tensor, labels: Tensor, *, step: int, rank: int = 0) -> tuple[Tensor, Tensor]:
        """The changed pictures, and their labels or, where pictures are mixed, the shares of all classes.

        Args:
            images: float32 (B, C, S, S), normalised.
            labels: int64 (B,).
            step: of the training.
            rank: of the process.

        Returns:
            float32 (B, C, S, S), and int64 (B,) or float32 (B, classes).
        """
        return self.apply(images, labels, self.draw(len(images), images.shape[-1], step=step, rank=rank))

    def draw(self, count: int, size: int, *, step: int, rank: int = 0) -> Drawn:
        """The random numbers for so many pictures of so many pixels per side."""
        changes, rng = self.changes, np.random.default_rng(seed_for("augment", self.seed, rank, step))
        # Each kind of change always draws its numbers, so that one does not depend on which others are on.
        flipped = rng.random(count) < changes.flip_vertical
        maps = _affine_maps(rng, changes, count)
        factors = rng.uniform(-1, 1, (2, count)) * [[changes.brightness], [changes.contrast]] + 1
        erased = _boxes(rng, count, size) * (rng.random(count) < changes.erasing)[:, None]
        partner = rng.permutation(count)
        by_area = rng.random() < (0.5 if changes.mixup else 1.0)
        drawn = Drawn(
            flipped=torch.from_numpy(flipped) if changes.flip_vertical else None,
            maps=torch.from_numpy(maps.astype(np.float32)) if _moves(changes) else None,
            brightness=torch.from_numpy(factors[0].astype(np.float32)) if changes.brightness else None,
            contrast=torch.from_numpy(factors[1].astype(np.float32)) if changes.contrast else None,
            erased=torch.from_numpy(erased) if changes.erasing else None,
        )
        if not (changes.mixup or changes.cutmix):
            return drawn
        own = {name: value for name, value in vars(drawn).items() if name not in ("partner", "share", "box")}
        pairs = torch.from_numpy(partner)
        if changes.cutmix and by_area:
            return Drawn(**own, partner=pairs, box=_box(rng, 1 - rng.beta(changes.cutmix, changes.cutmix), size))
        return Drawn(**own, partner=pairs, share=float(rng.beta(changes.mixup, changes.mixup)))

    @torch.no_grad()
    def apply(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, S, S) and labels (B,) changed as these random numbers say."""
        device = images.device
        if drawn.flipped is not None:
            images = torch.where(_along(drawn.flipped, device), images.flip(self.dimension), images)
        if any(part is not None for part in (drawn.maps, drawn.brightness, drawn.contrast)):
            images = self._in_grey_values(images, drawn)
        if drawn.erased is not None:
            images = images.masked_fill(_inside(drawn.erased, images.shape[-1], device), 0.0)
        if drawn.partner is None:
            return images, labels
        return self._mixed(images, labels, drawn)

    def _in_grey_values(self, images: Tensor, drawn: Drawn) -> Tensor:
        """What is done with values in 0..1, of which 0 is black."""
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        x = images * std + mean
        if drawn.maps is not None:
            grid = F.affine_grid(drawn.maps.to(images.device), list(images.shape), align_corners=False)
            x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if drawn.brightness is not None:
            x = (x * _along(drawn.brightness, images.device)).clamp_(0, 1)
        if drawn.contrast is not None:
            middle = x.mean((1, 2, 3), keepdim=True)
            x = (middle + (x - middle) * _along(drawn.contrast, images.device)).clamp_(0, 1)
        return (x - mean) / std

    def _mixed(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        assert drawn.partner is not None
        partner, size = drawn.partner.to(images.device), images.shape[-1]
        if drawn.box is not None:
            top, bottom, left, right = drawn.box
            mixed = images.clone()
            mixed[..., top:bottom, left:right] = images[partner][..., top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / size**2  # what is left of the picture: Yun et al. 2019, eq. 1
        else:
            share = drawn.share
            mixed = share * images + (1 - share) * images[partner]  # Zhang et al. 2018, eq. 1
        truth = F.one_hot(labels, self.classes).to(images.dtype)  # (B, classes)
        return mixed, share * truth + (1 - share) * truth[partner]


def _moves(changes: Changes) -> bool:
    return changes.crop < 1 or changes.rotation > 0 or changes.shift > 0


def _affine_maps(rng: np.random.Generator, changes: Changes, count: int) -> NDArray[np.float64]:
    """Maps (N, 2, 3) from the result to the picture: the crop of a picture that was rotated and shifted."""
    area = rng.uniform(changes.crop, 1, count)
    drawn = _log_uniform(rng, _RATIO, count)
    ratio = drawn if changes.crop < 1 else np.ones(count)
    # Where a side were longer than the picture's it is as long: torchvision draws again, up to ten times.
    sides = np.minimum(1, np.sqrt([area * ratio, area / ratio]))  # (2, N): width, height
    centre = rng.uniform(-1, 1, (2, count)) * (1 - sides) - 2 * changes.shift * rng.uniform(-1, 1, (2, count))
    angle = np.deg2rad(changes.rotation) * rng.uniform(-1, 1, count)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # (2, 2, N)
    linear = turn * sides[None]
    moved = np.einsum("ijn,jn->in", turn, centre)[:, None]  # (2, 1, N)
    maps: NDArray[np.float64] = np.concatenate([linear, moved], axis=1).transpose(2, 0, 1)
    return maps


def _boxes(rng: np.random.Generator, count: int, size: int) -> NDArray[np.int64]:
    """Top, bottom, left and right (N, 4) of rectangles that are erased, all inside of the picture."""
    area = rng.uniform(*_ERASED_SHARE, count) * size**2
    ratio = _log_uniform(rng, _ERASED_RATIO, count)
    sides = np.clip(np.rint(np.sqrt([area * ratio, area / ratio])), 1, size).astype(np.int64)  # (2, N)
    first = rng.integers(0, size - sides + 1)
    return np.stack([first[0], first[0] + sides[0], first[1], first[1] + sides[1]], axis=1)


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], count: int) -> NDArray[np.float64]:
    low, high = map(math.log, bounds)
    values: NDArray[np.float64] = np.exp(rng.uniform(low, high, count))
    return values


def _box(rng: np.random.Generator, share: float, size: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a square of this share of the area, its centre anywhere, cut at the border."""
    half = size * math.sqrt(share) / 2
    ends = [
        int(np.clip(round(float(centre) + side), 0, size))
        for centre in rng.uniform(0, size, 2)
        for side in (-half, half)
    ]
    return ends[0], ends[1], ends[2], ends[3]


def _inside(boxes: Tensor, size: int, device: torch.device) -> Tensor:
    """Whether each pixel is in the box of its picture: bool (B, 1, S, S) of boxes (B, 4)."""
    top, bottom, left, right = boxes.to(device).T[..., None]  # (B, 1) each
    place = torch.arange(size, device=device)
    rows, columns = (place >= top) & (place < bottom), (place >= left) & (place < right)  # (B, S)
    inside: Tensor = (rows[:, :, None] & columns[:, None])[:, None]
    return inside


def _along(values: Tensor, device: torch.device) -> Tensor:
    """Values (B,) as (B, 1, 1, 1) on a device."""
    return values.to(device)[:, None, None, None]


def _expect(name: str, value: Any, what: str, least: float, most: float, usual: float) -> None:
    if not is_number(value, int, float) or not least <= value <= most or math.isinf(value):
        raise UserError(f"expected {name} to be {what}, found {value!r}; {usual:g} is usual")
