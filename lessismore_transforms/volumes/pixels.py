"""HU to the two 8-bit pictures of a slice: the one that is hashed and the one that training sees.

Hashing always takes the paper's per-slice min-max, the only scaling for which the thresholds of 3, 6 and 12 bits have
the paper's meaning. Training takes one of:

- `clipped` (default): the same after clipping padding below -1024 HU;
- `released`: exactly the released pixels, with their padding (save for the -2000 of GE scanners); pictures as they are;
- a window by name or as level/width in HU (`lung`, `40/400`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.reduction.intensity import Window, min_max_uint8, released_hu, window_uint8
from lessismore_transforms.volumes import Slice

AIR_HU = -1024.0
_RELEASED_EPSILON = {"nifti": 1e-5}  # the released script for NIfTI adds this to the range, the one for DICOM does not


def check_pixels(pixels: str) -> str:
    """`pixels` itself, once it is checked to name a way to make training pixels.

    Raises:
        UserError: it is neither `clipped` nor `released` nor a window.
    """
    if pixels not in ("clipped", "released"):
        Window.parse(pixels)
    return pixels


def to_pixels(
    ct_slice: Slice, volume_format: str, pixels: str, *, as_released: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture (rows, columns) of a slice that is hashed, and the one that is stored for training.

    Args:
        ct_slice: a slice in HU.
        volume_format: the format of its volume.
        pixels: `clipped`, `released` or a window.
        as_released: hash the released pixels instead of the plain per-slice min-max.

    Raises:
        VolumeError: a window is asked for, but the volume has no HU.
    """
    hashed = _released(ct_slice, volume_format) if as_released else min_max_uint8(ct_slice.hu)
    if pixels == "released":
        return hashed, hashed if as_released else _released(ct_slice, volume_format)
    if pixels == "clipped":
        return hashed, hashed if ct_slice.hu.min() >= AIR_HU else min_max_uint8(ct_slice.hu, lower=AIR_HU)
    if volume_format == "images":
        raise VolumeError(f"the window {pixels!r} needs HU, but 2-D images hold grey values: leave --window out")
    return hashed, window_uint8(ct_slice.hu, Window.parse(pixels))


def _released(ct_slice: Slice, volume_format: str) -> NDArray[np.uint8]:
    if volume_format == "images" and 0 <= ct_slice.hu.min() <= ct_slice.hu.max() <= 255:
        return np.ascontiguousarray(ct_slice.hu, dtype=np.uint8)  # pictures are taken as they are
    hu = released_hu(ct_slice.hu, *ct_slice.rescale) if volume_format == "dicom" else ct_slice.hu
    return min_max_uint8(hu, epsilon=_RELEASED_EPSILON.get(volume_format, 0.0))
