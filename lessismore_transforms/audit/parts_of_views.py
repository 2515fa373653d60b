"""The parts of a view, and the same drawn view with some of them left out.

All variants of a view come from one draw of its parameters: what stays in is the same to the bit, so that two variants
differ by the part alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import torch

from lessismore_transforms.pretraining.views import Drawn, View

CROP, FLIP, ROTATION = "crop", "flip", "rotation"
BRIGHTNESS, CONTRAST, BLUR, SOLARIZATION, NOISE = "brightness", "contrast", "blur", "solarization", "noise"
GEOMETRY = (CROP, FLIP, ROTATION)  # what moves pixels
PARTS = (*GEOMETRY, BRIGHTNESS, CONTRAST, BLUR, SOLARIZATION, NOISE)  # saturation, hue, grayscale: nothing on slices
_JITTER = {BRIGHTNESS: 0, CONTRAST: 1}  # columns of the factors


def parts_of(kinds: Sequence[View]) -> tuple[str, ...]:
    """The parts that change a grey picture in one kind of view or more, in the order of `PARTS`."""
    used = {part for view in kinds for part, there in _used(view).items() if there}
    return tuple(part for part in PARTS if part in used)


def _used(view: View) -> dict[str, bool]:
    return {
        CROP: tuple(view.scale) != (1, 1) or tuple(view.ratio) != (1, 1),
        FLIP: view.flip_horizontal > 0 or view.flip_vertical > 0,
        ROTATION: view.rotate > 0,
        BRIGHTNESS: view.jitter > 0 and view.brightness > 0,
        CONTRAST: view.jitter > 0 and view.contrast > 0,
        BLUR: view.blur > 0,
        SOLARIZATION: view.solarize > 0,
        NOISE: view.noise > 0,
    }


def only(drawn: Drawn, parts: Collection[str]) -> Drawn:
    """The drawn views with these parts alone; without the crop they show the whole picture.

    Args:
        drawn: parameters of N views.
        parts: out of `PARTS`.
    """
    changed: dict[str, Any] = {}
    if CROP not in parts:
        changed["box"] = torch.cat((torch.zeros_like(drawn.size), drawn.size), dim=1)
    for part, name in {
        FLIP: "flip",
        ROTATION: "angle",
        BLUR: "sigma",
        SOLARIZATION: "solarize",
        NOISE: "variance",
    }.items():
        if part not in parts:
            changed[name] = torch.zeros_like(getattr(drawn, name))
    factors = drawn.factors.clone()
    for part, column in _JITTER.items():
        if part not in parts:
            factors[:, column] = 1
    return dataclasses.replace(drawn, factors=factors, **changed)
