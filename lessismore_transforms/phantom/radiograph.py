"""Made chest X-rays: bright body, dark lungs, ribs, and opacities in the lungs of the ill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


def chest_xrays(rng: np.random.Generator, size: int, count: int, *, pneumonia: bool) -> list[Pixels]:
    """Several X-rays of one person, uint8 (size, size), who stands a little otherwise in each."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    width, height = rng.uniform(0.11, 0.14), rng.uniform(0.26, 0.32)
    blots = [(rng.choice((-1, 1)), *rng.uniform(-0.6, 0.6, 2), rng.uniform(0.03, 0.06)) for _ in range(5)]
    pictures = []
    for _ in range(count):
        left, top, tilt = *rng.normal(0, 0.015, 2), rng.normal(0, 0.03)
        u, v = x - left + tilt * y, y - top
        body = 170 * np.clip(6 * (0.46 - np.abs(u)), 0, 1)
        picture = body + 12 * np.sin(60 * (v + 0.4 * u**2))  # ribs
        for side in (-1, 1):
            inside = np.clip(4 * (1 - np.hypot((u - side * 0.2) / width, v / height)), 0, 1)
            picture -= 110 * inside
            for where, across, along, radius in blots if pneumonia else ():
                if where == side:
                    near = ((u - side * 0.2 - across * width) ** 2 + (v - along * height) ** 2) / radius**2
                    picture += 90 * inside * np.exp(-near / 2)
        picture += rng.normal(0, 4, picture.shape)
        pictures.append(np.rint(np.clip(picture, 0, 255)).astype(np.uint8))
    return pictures
