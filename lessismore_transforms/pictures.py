"""2-D pictures in files, as grey values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.volumes.images import SUFFIXES

__all__ = ["SUFFIXES", "read_picture"]


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The grey values, uint8 (H, W), of a PNG or JPEG file of any mode; deeper ones by min-max.

    Raises:
        ValueError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            grey = np.asarray(image if deep else image.convert("RGB").convert("L"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): mend it or take it away") from error
    return min_max_uint8(grey) if deep else grey
