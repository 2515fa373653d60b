"""HU to 8 bit: the per-slice min-max of the paper's pictures, and windows.

Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Section 2.2 and its released converters: min-max in float64,
rounded half to even as OpenCV does when it writes a float image. A difference in the last bit here changes bits of the
hash. So there are two fast routes for whole-numbered voxels: a division that rounds as float64 does (`_stretch_whole`),
and, for all else, a table whose values come from the same formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.compiled import compiled
from lessismore_transforms.wording import counted

Voxels = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]
Formula = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

_DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")
_LONGEST_TABLE = 2**17
_SUMMED = 2**15  # grey values whose squares add up to less than 2^31
_FLOAT32_RANGE = 2**16 - 1  # the largest range that `_stretch_whole` takes


@dataclass(frozen=True)
class Window:
    """A range of HU that is shown from black to white.

    Args:
        level: centre in HU.
        width: extent in HU, above 0.

    Raises:
        UserError: the width is not above 0, or a value is not finite.
    """

    level: float
    width: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level) and math.isfinite(self.width) and self.width > 0):
            raise UserError(
                f"expected a window of finite level and of width above 0 HU, found level {self.level} and "
                f"width {self.width}; give for example level 40 and width 400"
            )

    @classmethod
    def parse(cls, text: str) -> Window:
        """The window that a preset's name or "level/width" in HU stands for.

        Args:
            text: a key of `WINDOWS`, or two numbers such as "40/400".

        Raises:
            UserError: the text is neither of them.
        """
        if text in WINDOWS:
            return WINDOWS[text]
        try:
            level, width = (float(part) for part in text.split("/"))
        except ValueError:
            raise UserError(
                f"expected a window as LEVEL/WIDTH in HU or one of {', '.join(WINDOWS)}, found {text!r}; "
                "write for example lung or 40/400"
            ) from None
        return cls(level, width)


# The presets of the released converters, where the comment that gives bone a width of 150 is a slip.
WINDOWS: Mapping[str, Window] = {
    "abdomen": Window(60, 400),
    "angio": Window(300, 600),
    "bone": Window(300, 1500),
    "brain": Window(40, 80),
    "chest": Window(40, 400),
    "lung": Window(-400, 1500),
}


def parse_windows(text: str) -> tuple[Window, ...]:
    """The window that a text stands for, or the three that `A+B+C` names, which become red, green and blue.

    Args:
        text: a window as `Window.parse` takes it, such as "lung" or "40/400"; or three of them with + between, such as
            "lung+chest+bone" or "lung+40/80+300/1500".

    Raises:
        UserError: a part is no window, or there are neither one nor three.
    """
    parts = [part.strip() for part in text.split("+")]
    if len(parts) not in (1, 3):
        raise UserError(
            f"expected one window, or three with + between for three channels, found {counted(len(parts), 'window')} "
            f"in {text!r}; write for example lung or lung+chest+bone"
        )
    return tuple(Window.parse(part) for part in parts)


def min_max_uint8(
    hu: Voxels, *, lower: float | None = None, epsilon: float = 0.0, ends: tuple[float, float] | None = None
) -> Pixels:
    """Stretch each slice over 0..255: 255 * (x - min) / ((max - min) + epsilon), rounded half to even.

    Args:
        hu: slices (H, W) or (S, H, W) of finite HU: uint8, int16, uint16, int32, float32 or float64, any strides.
        lower: smaller values (padding) count as this one, in HU.
        epsilon: added to the range; 1e-5 HU in the released NIfTI converter, 0 in the released DICOM converter.
        ends: the smallest and the largest voxel, where they are known; of one slice of int16 or int32 without epsilon
            only, else they are looked for all the same.

    Returns:
        uint8 of the same shape, C-contiguous; a constant slice becomes zeros.

    Raises:
        UserError: shape, dtype or values are not as above.
    """
    floor = -math.inf if lower is None else float(lower)
    out = np.empty(hu.shape, np.uint8)
    known = ends if hu.ndim == 2 and hu.dtype in (np.int16, np.int32) and not epsilon else None  # wrong ones do no harm
    for voxels, pixels in _slices(hu, out):
        _stretch(voxels, pixels, *(known or _extremes(voxels)), floor, epsilon)
    return out


def window_uint8(hu: Voxels, window: Window) -> Pixels:
    """Show a window of HU as 0..255: 255 * (x - (level - width / 2)) / width, clipped, rounded half to even.

    DICOM PS3.3 C.11.2.1.3.2 (LINEAR_EXACT), which is also MONAI's ScaleIntensityRange with clip. In this order of
    operations a value half way between two grey levels is computed exactly.

    Args:
        hu: slices (H, W) or (S, H, W) of finite HU: uint8, int16, uint16, int32, float32 or float64, any strides.
        window: level and width in HU.

    Returns:
        uint8 of the same shape, C-contiguous.

    Raises:
        UserError: shape, dtype or values are not as above.
    """
    out = np.empty(hu.shape, np.uint8)
    lowest = window.level - window.width / 2
    for voxels, pixels in _slices(hu, out):
        _apply(lambda x: 255 * (x - lowest) / window.width, voxels, pixels, *_extremes(voxels))
    return out


def released_hu(hu: Voxels, slope: float, intercept: float) -> Voxels:
    """HU as in the released DICOM converter: stored -2000 counts as 0, and fractions are cut off after the slope.

    Args:
        hu: voxels after the rescale, any shape.
        slope: RescaleSlope.
        intercept: RescaleIntercept in HU, the value of a stored 0.

    Returns:
        `hu` itself where nothing changes, else a copy; int32 where the slope is not 1 or the intercept has a fraction.
    """
    if slope != 1 or not float(intercept).is_integer():
        stored = np.rint((hu.astype(np.float64) - intercept) / slope)
        stored[stored == -2000] = 0
        return (np.trunc(stored * slope) + math.trunc(intercept)).astype(np.int32)
    if hu.min() > -2000 + intercept:  # the usual case, found in a fifth of the time
        return hu
    padding = hu == -2000 + intercept
    if not padding.any():
        return hu
    replaced = hu.copy()
    np.copyto(replaced, hu.dtype.type(intercept), where=padding)
    return replaced


def pixel_sums(pixels: Pixels) -> tuple[int, int]:
    """The sum of grey values and that of their squares, exact.

    Args:
        pixels: uint8, C-contiguous, any shape.
    """
    total, squares = _sums(pixels.reshape(-1))
    return int(total), int(squares)


def _slices(hu: Voxels, out: Pixels) -> Iterator[tuple[Voxels, Pixels]]:
    """Yield each slice, contiguous, and its place in `out`; flips of both are undone, which needs no copy."""
    if hu.ndim not in (2, 3) or 0 in hu.shape[-2:] or hu.dtype not in _DTYPES:
        raise UserError(
            f"expected slices (H, W) or (S, H, W) of {', '.join(_DTYPES)}, found {hu.dtype.str} of shape {hu.shape}; "
            "convert the array first"
        )
    stack = (-1, *hu.shape[-2:])
    for voxels, pixels in zip(hu.reshape(stack), out.reshape(stack), strict=True):
        forwards = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in voxels.strides)
        yield np.ascontiguousarray(voxels[forwards]), pixels[forwards]


def _stretch(voxels: Voxels, pixels: Pixels, low: float, high: float, floor: float, epsilon: float) -> None:
    """Write the min-max picture of one slice, zeros where it is constant."""
    bottom, top = max(float(low), floor), max(high, floor)
    if bottom >= top:
        pixels[...] = 0
    elif epsilon == 0 and voxels.dtype == np.uint8 and (bottom, top) == (0, 255):  # stretched already
        pixels[...] = voxels
    elif epsilon == 0 and voxels.dtype.kind in "iu" and top - bottom <= _FLOAT32_RANGE and bottom.is_integer():
        _stretch_whole(voxels, voxels.dtype.type(bottom), np.float32(top - bottom), pixels)
    else:
        _apply(lambda x: 255 * (np.maximum(x, floor) - bottom) / ((top - bottom) + epsilon), voxels, pixels, low, high)


def _extremes(voxels: Voxels) -> tuple[float, float]:
    """The smallest and the largest voxel; both are NaN where a voxel is NaN."""
    if voxels.dtype.kind in "iu":
        low, high = map(float, _ends(voxels))
        return low, high
    low, high = float(voxels.min()), float(voxels.max())
    if not math.isfinite(255 * (high - low)):
        raise UserError(
            f"expected finite HU, found values from {low} to {high}; replace NaN and infinity before the scaling"
        )
    return low, high


def _apply(formula: Formula, voxels: Voxels, pixels: Pixels, low: float, high: float) -> None:
    """Write formula(voxels), saturated and rounded half to even; by a table where voxels are whole numbers."""
    if high - low <= _LONGEST_TABLE and low >= -(2**31) and high < 2**31:
        first = math.floor(low)
        table = _saturate(formula(np.arange(first, math.floor(high) + 1, dtype=np.float64)))
        if _look_up(voxels, first, table, pixels):
            return
    pixels[...] = _saturate(formula(voxels.astype(np.float64)))


def _saturate(values: npt.NDArray[np.float64]) -> Pixels:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


@compiled()
def _ends(voxels: Voxels) -> tuple[Any, Any]:
    """The smallest and the largest of whole-numbered voxels, in one pass."""
    low = high = voxels[0, 0]
    for row in range(voxels.shape[0]):
        for column in range(voxels.shape[1]):
            voxel = voxels[row, column]
            low = voxel if voxel < low else low
            high = voxel if voxel > high else high
    return low, high


@compiled(error_model="numpy")  # the other model looks for a division by zero in each step
def _stretch_whole(voxels: Voxels, bottom: Any, extent: Any, pixels: Pixels) -> None:
    """Write the min-max picture of whole-numbered voxels; `extent` is the range above `bottom`, 1 to 2^16 - 1.

    float32 gives what exact numbers give. 255 * (x - bottom) is below 2^24, so it is exact. The quotient is at most
    255, so the division moves it by at most 2^-17. A quotient half way between two grey levels needs few digits and is
    not moved; any other one is at least 1 / (2 * extent) away from there, which is more than 2^-17.
    """
    height, width = voxels.shape
    greys = np.empty(width, np.int32)
    for row in range(height):
        for column in range(width):  # no narrow numbers here: this loop becomes vector instructions
            voxel = voxels[row, column]
            voxel = voxel if voxel > bottom else bottom
            above = np.int32(np.int32(voxel) - np.int32(bottom))
            greys[column] = np.int32(np.rint(np.float32(255) * np.float32(above) / extent))
        for column in range(width):
            pixels[row, column] = greys[column]


@compiled()
def _look_up(voxels: Voxels, first: int, table: Pixels, pixels: Pixels) -> bool:
    """Write table[voxels - first]; stop and return False at the first row with a fractional voxel."""
    height, width = voxels.shape
    steps = np.empty(width, np.int32)
    for row in range(height):
        fractional = False
        for column in range(width):  # no branch inside: this loop becomes vector instructions
            whole = np.int32(voxels[row, column])
            fractional |= whole != voxels[row, column]
            steps[column] = whole - first
        if fractional:
            return False
        for column in range(width):
            pixels[row, column] = table[np.uint32(steps[column])]
    return True


@compiled()
def _sums(pixels: Pixels) -> tuple[Any, Any]:
    total, squares = np.int64(0), np.int64(0)
    for start in range(0, pixels.size, _SUMMED):
        part, part_squares = np.int32(0), np.int32(0)
        for value in pixels[start : start + _SUMMED]:
            part = np.int32(part + np.int32(value))
            part_squares = np.int32(part_squares + np.int32(np.int32(value) * np.int32(value)))
        total += part
        squares += part_squares
    return total, squares
