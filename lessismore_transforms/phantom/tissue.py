"""Made pictures of stained tissue: pink ground, purple nuclei, in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_GROUND, _NUCLEUS = (226.0, 168.0, 200.0), (104.0, 62.0, 138.0)  # red, green and blue of eosin and haematoxylin


def tissue(rng: np.random.Generator, size: int, *, nuclei: float, radius: float, ground: float = 1.0) -> Pixels:
    """A picture of tissue, uint8 (size, size, 3).

    Args:
        rng: of where nuclei are, and of noise and stain, which differ from picture to picture.
        size: rows and columns.
        nuclei: how many there are, on average, in 32 x 32 pixels.
        radius: of a nucleus, pixels.
        ground: how much of the pink is there, 0 for white.
    """
    rows, columns = np.mgrid[:size, :size]
    count = int(rng.poisson(nuclei * (size / 32) ** 2))
    depth = np.zeros((size, size))
    for row, column, scale in zip(*rng.uniform(0, size, (2, count)), rng.uniform(0.8, 1.2, count), strict=True):
        distance = np.hypot(rows - row, columns - column)
        depth = np.maximum(depth, np.clip(radius * scale + 0.5 - distance, 0, 1))
    stain = rng.normal(0, 4, 3)
    pink = 255 - ground * (255 - np.array(_GROUND))
    picture = pink + depth[..., None] * (np.array(_NUCLEUS) - pink) + stain + rng.normal(0, 5, (size, size, 3))
    pixels: Pixels = np.rint(np.clip(picture, 0, 255)).astype(np.uint8)
    return pixels
