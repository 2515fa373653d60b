from __future__ import annotations

import numpy as np
import pytest

from lessismore_transforms.volumes.stored_values import drop_unused_bits, whole_hu


def numbers(raw, bits):
    """The stored numbers one by one: the lowest bits, of which the highest is the sign."""
    values = [int(value) % 2**bits for value in raw.ravel()]
    signed = raw.dtype.kind == "i"
    return np.reshape(
        [value - 2**bits if signed and value >= 2 ** (bits - 1) else value for value in values], raw.shape
    )


@pytest.mark.parametrize("bits", [1, 8, 12, 15, 16])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize("intercept", [0, -1024, 1, 32767, -32768, 40000])
def test_hu_and_their_ends_are_those_of_whole_numbers(bits, dtype, intercept):
    limits = np.iinfo(dtype)
    raw = np.random.default_rng(bits).integers(limits.min, limits.max, (9, 40), dtype, endpoint=True)
    raw[0, :2] = limits.min, limits.max
    for values in (raw, raw // 4 + limits.max // 3):
        stored = numbers(values, bits)
        expected = stored + intercept
        fits = abs(intercept) <= 32768 and expected.min() >= -(2**15) and expected.max() < 2**15
        mine = values.copy()
        found = whole_hu(mine, bits, 1.0, float(intercept))
        if not fits:
            assert found is None
            drop_unused_bits(mine, bits)
            assert mine.dtype == dtype
            np.testing.assert_array_equal(mine, stored)
            continue
        hu, ends = found
        assert hu.dtype == np.int16
        assert hu.base is mine
        np.testing.assert_array_equal(hu, expected)
        assert ends == (expected.min(), expected.max())


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [(np.int16, 2.0, 0.0), (np.int16, 1.0, 0.5), (np.uint8, 1.0, 0.0), (np.int32, 1.0, 0.0), (">i2", 1.0, 0.0)],
)
def test_what_takes_the_other_route_is_not_touched(dtype, slope, intercept):
    raw = np.arange(12).reshape(3, 4).astype(dtype)
    before = raw.copy()
    assert whole_hu(raw, 8 * raw.itemsize, slope, intercept) is None
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize(
    ("dtype", "bits"), [(np.uint8, 5), (np.int8, 5), (np.int32, 20), (np.uint32, 32), (np.int32, 32)]
)
def test_bits_not_in_use_are_dropped_in_every_type(dtype, bits):
    limits = np.iinfo(dtype)
    raw = np.random.default_rng(0).integers(limits.min, limits.max, (3, 50), dtype, endpoint=True)
    expected = numbers(raw, bits)
    drop_unused_bits(raw, bits)
    np.testing.assert_array_equal(raw, expected)
