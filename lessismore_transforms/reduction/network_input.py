"""Pictures as the input of a network: resized to a square, and normalised.

The measure DeepNet, the probe, the embeddings and the classifiers all resize alike; this room is the lowest of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch.nn import functional as F

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number

RESIZES = ("area", "bilinear")


def resize(pixels: torch.Tensor, size: int, method: str = "bilinear") -> torch.Tensor:
    """Pictures float (B, C, H, W) as (B, C, size, size); nothing is cropped away.

    Args:
        pixels: of any range.
        size: rows and columns of the result.
        method: `bilinear`, with antialiasing; or `area`, the mean over the area of each new pixel, which repeats pixels
            where the picture is smaller.
    """
    if method == "area":
        return F.interpolate(pixels, size=(size, size), mode="area")
    return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Pictures (..., C, H, W) less the mean and divided by the standard deviation.

    Args:
        pixels: float, in 0..1.
        mean: one number or one per channel; three of them make three channels of one.
        std: standard deviation, one number or one per channel.
    """
    middle, width = (pixels.new_tensor(list(values)).view(-1, 1, 1) for values in (mean, std))
    return (pixels - middle) / width


def check_mean_std(mean: object, std: object, advice: str) -> None:
    """Refuse what `normalise` cannot work with.

    Args:
        mean: has to be a list of one number, or of one for each of three channels.
        std: likewise, of numbers above 0.
        advice: what to do about it, for the error.

    Raises:
        UserError: one of them is no such list.
    """
    for name, values, least, above in (("mean", mean, -math.inf, ""), ("std", std, 0, " above 0")):
        if not (
            isinstance(values, (list, tuple))
            and len(values) in (1, 3)
            and all(is_number(value, Real) and least < value < math.inf for value in values)
        ):
            raise UserError(
                f"expected {name} to be a list of one number{above} or three, such as [0.18], found {values!r}: "
                f"{advice}"
            )
