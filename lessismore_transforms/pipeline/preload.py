"""What the fork server imports: the task, and its kernels loaded from numba's cache, so that workers start ready."""

from __future__ import annotations

import gc


def _load() -> None:
    import numpy as np

    from lessismore_transforms.pipeline import volume_task  # noqa: F401
    from lessismore_transforms.reduction.hashing import dhash
    from lessismore_transforms.reduction.intensity import min_max_uint8, pixel_sums
    from lessismore_transforms.reduction.selection import removal_order
    from lessismore_transforms.volumes import dicom  # noqa: F401
    from lessismore_transforms.volumes.dicom_elements import walk
    from lessismore_transforms.volumes.png import unfilter
    from lessismore_transforms.volumes.stored_values import whole_hu

    syntax = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    dhash(min_max_uint8(np.arange(4, dtype=np.int16).reshape(2, 2)))
    for dtype in (np.int16, np.uint16):
        whole_hu(np.zeros((2, 2), dtype), 16, 1.0, 0.0)
    walk(bytes(128) + b"DICM" + syntax, np.zeros(1, np.int64))
    unfilter(np.frombuffer(bytes(6), np.uint8).reshape(2, 3), np.empty((2, 2), np.uint8))
    pixel_sums(np.zeros(2, np.uint8))
    removal_order(np.zeros((2, 2), np.uint8))


# Nothing that is imported is garbage: looking for some takes a seventh of the time, and in each worker copies of pages.
gc.disable()
_load()
gc.freeze()
gc.enable()
