"""HU of the stored values of a DICOM slice, made in the memory that holds them.

Nearly all CT has 16-bit values whose HU are a whole number away. One pass over them, which is what costs time here,
then drops the bits that are not in use, adds the intercept and finds the lowest and the highest HU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lessismore_transforms.reduction.compiled import compiled
from lessismore_transforms.volumes.geometry import Array

_INT16 = np.iinfo(np.int16)


def whole_hu(raw: Array, bits: int, slope: float, intercept: float) -> tuple[Array, tuple[int, int]] | None:
    """HU as int16 in the memory of `raw`, and the lowest and the highest of them; None where int16 cannot hold them.

    Then `raw` is as it was, but for the bits that are not in use.

    Args:
        raw: stored values (rows, columns), C-contiguous, which can be written to.
        bits: number of bits in use; an overlay may lie in the others.
        slope: HU per stored unit.
        intercept: HU of a stored zero.
    """
    if raw.dtype not in (np.int16, np.uint16) or slope != 1 or not intercept.is_integer():
        return None
    step = int(intercept)
    if not _INT16.min <= step <= _INT16.max:
        return None
    low, high = (int(end) + step for end in _add(raw, *_bits_in_use(raw.dtype, bits), step))
    if _INT16.min <= low and high <= _INT16.max:
        return raw.view(np.int16), (low, high)
    _add(raw, *_bits_in_use(raw.dtype, 16), -step)
    return None


def drop_unused_bits(raw: Array, bits: int) -> None:
    """Make values of `bits` bits whole numbers of their type again, in place."""
    mask, sign = _bits_in_use(raw.dtype, bits)
    raw &= mask
    raw ^= sign
    raw -= sign


def _bits_in_use(dtype: np.dtype[Any], bits: int) -> tuple[Any, Any]:
    """A mask of the bits in use, and the sign bit among them, such that a number is ((value & mask) ^ sign) - sign.

    Both are of the values' own type: with a wider one the sums would be wider too, and take six times as long.
    """
    mask, sign = 2**bits - 1, 0
    if dtype.kind == "i":
        mask, sign = (mask, 2 ** (bits - 1)) if bits < 8 * dtype.itemsize else (-1, 0)
    return dtype.type(mask), dtype.type(sign)


@compiled()
def _add(values: Array, mask: Any, sign: Any, step: int) -> tuple[Any, Any]:
    """Drop the bits not in use and add a step, which may wrap around; the ends of the values before the step.

    Each sum is stored before it goes on: so it stays as narrow as the values, and vectors hold more of them.
    """
    values[0, 0] = ((values[0, 0] & mask) ^ sign) - sign
    low = high = values[0, 0]
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            values[row, column] = ((values[row, column] & mask) ^ sign) - sign
            value = values[row, column]
            low = value if value < low else low
            high = value if value > high else high
            values[row, column] = value + step
    return low, high
