"""From pictures in memory to the input of the network: resized, scaled to 0..1, normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lessismore_transforms.classification.examples import Split
from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.network_input import RESIZES, check_mean_std, normalise, resize


class Prepare:
    """A transform of items `{"image": uint8 (C, H, W), ...}`: resized, in 0..1, normalised.

    Args:
        size: rows and columns of the result, pixels.
        mean: mean of values in 0..1, one of all channels, or one for each.
        std: standard deviation, one of all channels, or one for each.
        resize: `area`, the mean over the area of each new pixel, which repeats pixels where the picture is smaller
            (released code, MONAI's `Resize`); or `bilinear` with antialiasing.
        transpose: exchange rows and columns, as the reader of the released code does.

    Raises:
        UserError: a value is out of range.
    """

    def __init__(
        self,
        size: int = 224,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        *,
        resize: str = "area",
        transpose: bool = False,
    ) -> None:
        if not isinstance(size, int) or size < 1:
            raise UserError(f"expected an image_size of 1 pixel or more, found {size!r}; 224 is usual")
        if resize not in RESIZES:
            raise UserError(f"expected a resize out of {', '.join(RESIZES)}, found {resize!r}; area is usual")
        check_mean_std(mean, std, "leave it out to take that of the training pictures")
        self.size, self.resize, self.transpose = size, resize, transpose
        self.mean, self.std = list(mean), list(std)

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The item with its picture as float32 (C, size, size)."""
        image = resized(item["image"].mT if self.transpose else item["image"], self.size, self.resize)
        return {**item, "image": normalise(image, self.mean, self.std)}


def resized(image: torch.Tensor, size: int, method: str = "area") -> torch.Tensor:
    """A picture uint8 (C, H, W) as float32 (C, size, size) in 0..1."""
    return resize(image[None].float() / 255, size, method)[0]


def statistics_of(
    split: Split,
    size: int,
    *,
    resize: str = "area",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of a split's resized pictures, in 0..1, or the given values.

    Each picture has the same weight, whatever its size; the deviation is that of all pixels of all pictures.

    Args:
        split: the training pictures, without a transform.
        size: rows and columns of the network's input, pixels.
        resize: see `Prepare`.
        mean: used instead of the mean of the pictures.
        std: used instead of the standard deviation of the pictures.
    """
    if mean is None or std is None:
        pixels = (resized(split[index]["image"], size, resize).double() for index in range(len(split)))
        moments = torch.stack([torch.stack([x.mean((1, 2)), x.square().mean((1, 2))]) for x in pixels])
        first, second = moments.mean(dim=0)  # (C,)
        mean = first.tolist() if mean is None else mean
        std = (second - first.square()).clamp_min(1e-12).sqrt().tolist() if std is None else std
    as_list = [[value] if isinstance(value, (int, float)) else list(value) for value in (mean, std)]
    return as_list[0], as_list[1]
