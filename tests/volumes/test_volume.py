from __future__ import annotations

import hashlib
import zlib

import numpy as np
import pytest

from lessismore_transforms.volumes import Crc32, volume_id
from lessismore_transforms.volumes.volume import to_hu


@pytest.mark.parametrize(
    ("raw", "slope", "intercept", "bits", "dtype", "expected"),
    [
        (np.array([0, 4095], np.uint16), 1.0, -1024.0, 12, np.int16, [-1024, 3071]),
        (np.array([0, 65535], np.uint16), 1.0, -1024.0, None, np.int32, [-1024, 64511]),
        (np.array([40000], np.uint16), 1.0, -32768.0, None, np.int16, [7232]),  # wraps on the way, not in the end
        (np.array([-1000, 30000], np.int16), 1.0, 0.0, None, np.int16, [-1000, 30000]),
        (np.array([-1000, 30000], np.int16), 2.0, 1.0, None, np.int32, [-1999, 60001]),
        (np.array([2**30], np.int32), 1.0, 0.0, None, np.int32, [2**30]),
        (np.array([10, 20], np.int16), 0.5, 0.25, None, np.float32, [5.25, 10.25]),
        (np.array([0.1, 3.0], np.float64), 1.0, 0.0, None, np.float32, [np.float32(0.1), 3.0]),
    ],
)
def test_stored_values_become_hu(raw, slope, intercept, bits, dtype, expected) -> None:
    hu, replaced = to_hu(raw, slope, intercept, bits=bits)
    assert hu.dtype == dtype
    assert hu.tolist() == expected
    assert replaced == 0


def test_voxels_that_are_not_finite_become_the_lowest_of_their_slice() -> None:
    hu, replaced = to_hu(np.array([[np.nan, 5.0], [-3.0, np.inf]]))
    assert hu.tolist() == [[-3.0, 5.0], [-3.0, -3.0]]
    assert replaced == 2
    hu, replaced = to_hu(np.full((2, 2), np.nan))
    assert hu.tolist() == [[0, 0], [0, 0]]
    assert replaced == 4


def test_id_and_checksum_are_the_standard_ones() -> None:
    assert volume_id("patient/CT.nii.gz") == hashlib.sha256(b"patient/CT.nii.gz").hexdigest()[:16]
    crc = Crc32()
    crc.update(b"less is")
    crc.update(memoryview(b" more"))
    assert crc.value == zlib.crc32(b"less is more")
