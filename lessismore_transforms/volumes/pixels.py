"""HU to the two 8-bit pictures of a slice: the one that is hashed and the one that training sees.

Hashing takes the per-slice min-max after clipping padding below -1024 HU, on which alone the thresholds of 3, 6 and 12
bits have the paper's meaning. With padding of -3024 HU in the minimum, as GE scanners write it, a picture shows the
patient against the padding: most bits of the hash would be the same in all slices, and slices far apart near copies of
each other. The released converters replace that padding too, where it is stored as -2000. Training takes one of:

- `clipped` (default): the same picture;
- `released`: exactly the released pixels, with their padding (save for the stored -2000); pictures as they are;
- a window by name or as level/width in HU (`lung`, `40/400`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.reduction.intensity import Window, min_max_uint8, released_hu, window_uint8
from lessismore_transforms.volumes import Slice

AIR_HU = -1024  # a whole number, which NumPy compares with int16 voxels several times as fast
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
        as_released: hash the released pixels instead of the clipped ones.

    Raises:
        VolumeError: a window is asked for, but the volume has no HU.
    """
    scale = _released if as_released else _clipped
    hashed = scale(ct_slice, volume_format)
    for name, other in (("clipped", _clipped), ("released", _released)):
        if pixels == name:
            return hashed, hashed if other is scale else other(ct_slice, volume_format)
    if volume_format == "images":
        raise VolumeError(f"the window {pixels!r} needs HU, but 2-D images hold grey values: leave --window out")
    return hashed, window_uint8(ct_slice.hu, Window.parse(pixels))


def padding_voxels(ct_slice: Slice) -> int:
    """Number of voxels below -1024 HU, which no tissue and no air has."""
    if ct_slice.hu.dtype == np.uint8:
        return 0
    lowest = ct_slice.ends[0] if ct_slice.ends else ct_slice.hu.min()
    return int(np.count_nonzero(ct_slice.hu < AIR_HU)) if lowest < AIR_HU else 0


def _clipped(ct_slice: Slice, volume_format: str) -> NDArray[np.uint8]:
    return min_max_uint8(ct_slice.hu, lower=AIR_HU, ends=ct_slice.ends)


def _released(ct_slice: Slice, volume_format: str) -> NDArray[np.uint8]:
    if volume_format == "images" and (
        ct_slice.hu.dtype == np.uint8 or 0 <= ct_slice.hu.min() <= ct_slice.hu.max() <= 255
    ):
        return np.ascontiguousarray(ct_slice.hu, dtype=np.uint8)  # pictures are taken as they are
    hu = released_hu(ct_slice.hu, *ct_slice.rescale) if volume_format == "dicom" else ct_slice.hu
    return min_max_uint8(hu, epsilon=_RELEASED_EPSILON.get(volume_format, 0.0))
