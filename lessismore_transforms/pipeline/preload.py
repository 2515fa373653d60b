"""What the fork server imports: the task, and its kernels loaded from numba's cache, so that workers start ready."""

from __future__ import annotations

import numpy as np

from lessismore_transforms.pipeline import volume_task  # noqa: F401
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.intensity import min_max_uint8, pixel_sums
from lessismore_transforms.reduction.selection import removal_order

for _dtype in (np.int16, np.int32):
    dhash(min_max_uint8(np.arange(4, dtype=_dtype).reshape(2, 2)))
pixel_sums(np.zeros(2, np.uint8))
removal_order(np.zeros((2, 2), np.uint8))
