"""Pictures with the attention of networks over them, network beside network, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lessismore_transforms.analysis.results import overlay_file
from lessismore_transforms.atomic import atomic_write, writing

_SIDE, _GAP, _TITLE = 224, 6, 18  # pixels
_WEIGHT = 0.5  # of the colours over the picture where attention is largest
_INK = (28, 39, 51)


def write_overlays(
    folder: Path, images: torch.Tensor, maps: Mapping[str, torch.Tensor], pictures: Sequence[int]
) -> None:
    """Write a file for each of some pictures: the picture alone, then with the map of each network.

    Args:
        folder: where they go; made where it is missing.
        images: float32 (N, C, S, S) in 0..1.
        maps: float32 (N, S, S) in 0..1, by the name of the network.
        pictures: places of the pictures that are drawn.

    Raises:
        OutputError: the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for number, place in enumerate(pictures):
        grey = images[place].permute(1, 2, 0).expand(-1, -1, 3).numpy()  # (S, S, 3)
        panels = {"picture": grey} | {name: overlaid(grey, found[place].numpy()) for name, found in maps.items()}
        with atomic_write(folder / overlay_file(number), "wb") as file:
            _beside(panels).save(file, format="PNG")


def overlaid(picture: NDArray[np.float32], attention: NDArray[np.float32]) -> NDArray[np.float32]:
    """A picture (S, S, 3) with a map (S, S) over it, both in 0..1: the more attention, the more of its colour."""
    from matplotlib import colormaps  # takes a moment to import

    colours = np.asarray(colormaps["inferno"](attention), np.float32)[..., :3]
    weight = _WEIGHT * np.sqrt(attention)[..., None]
    return ((1 - weight) * picture + weight * colours).astype(np.float32)


def _beside(panels: Mapping[str, NDArray[np.float32]]) -> Image.Image:
    canvas = Image.new("RGB", (len(panels) * (_SIDE + _GAP) - _GAP, _SIDE + _TITLE), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for number, (name, pixels) in enumerate(panels.items()):
        left = number * (_SIDE + _GAP)
        shown = Image.fromarray((255 * np.clip(pixels, 0, 1)).round().astype(np.uint8))
        canvas.paste(shown.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), (left, _TITLE))
        pen.text((left, 2), name[:36], fill=_INK, font=font)
    return canvas
