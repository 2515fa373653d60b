"""The geometry of views: crop, flip, resize and blur as one operation, and rotation.

The first four are a linear map of the rows and one of the columns, per sample: a band of weights (`Taps`). A CPU
applies the band in a compiled loop (`by_taps`). On other devices the band becomes a matrix, and the whole batch takes
two batched products (`by_matrices`), without a loop over samples and without waiting for the device. Weights are those
of Pillow's and torch's antialiased resizing, without rounding to 8 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lessismore_transforms.reduction.compiled import compiled

REACH = {"bilinear": 1, "bicubic": 2}  # half the width of the filter, in pixels of the larger of input and output


@dataclass(frozen=True)
class Taps:
    """Linear maps of an axis, one per sample: `out[i] = sum over k of weights[i, k] * in[first[i] + k]`.

    Args:
        first: int64 (N, out).
        weights: float32 (N, out, K), zero where `first + k` lies beyond the axis.
    """

    first: Tensor
    weights: Tensor

    def matrix(self, length: int) -> Tensor:
        """The maps as matrices (N, out, length)."""
        n, out, reach = self.weights.shape
        index = self.first[..., None] + torch.arange(reach, device=self.first.device)
        return self.weights.new_zeros(n, out, length + reach).scatter_(2, index, self.weights)[..., :length]


def resize_taps(
    start: Tensor, length: Tensor, flip: Tensor, size: int, interpolation: str, device: torch.device
) -> Taps:
    """Take `length` pixels from `start` on, resize them to `size` with antialiasing, and reverse them where `flip`.

    Args:
        start: int64 (N,), on the CPU.
        length: int64 (N,), on the CPU.
        flip: bool (N,), on the CPU.
        size: pixels of the result.
        interpolation: "bilinear" or "bicubic" (a = -0.5).
        device: device of the result.
    """
    reach = REACH[interpolation]
    count = math.ceil(2 * reach * max(int(length.max()) / size, 1)) + 1  # K, known without asking the device
    start, length, flip = (to_device(x, device)[:, None] for x in (start, length, flip))
    output = torch.arange(size, device=device)
    scale = length / size  # (N, 1)
    stretch = scale.clamp(min=1)  # the filter grows where the picture shrinks
    centre = scale * (torch.where(flip, size - 1 - output, output) + 0.5)  # (N, size)
    first = (centre - reach * stretch + 0.5).clamp(min=0).long()
    tap = torch.arange(count, device=device)
    distance = ((first - centre + 0.5)[..., None] + tap) / stretch[..., None]  # (N, size, K)
    weights = _FILTERS[interpolation](distance.abs_())
    weights *= tap < (length - first)[..., None]
    weights /= weights.sum(2, keepdim=True)
    return Taps(first + start, weights)


def blur_taps(sigma: Tensor, radius: int, size: int, device: torch.device) -> Taps:
    """Blur with a Gaussian of `2 * radius + 1` pixels over a mirrored border, as torchvision's gaussian_blur.

    Args:
        sigma: float32 (N,), in pixels, on the CPU.
        radius: below `size`.
        size: pixels of the axis.
        device: device of the result.
    """
    reach = min(2 * radius + 1, size)
    output = torch.arange(size, device=device)
    first = (output - radius).clamp(0, size - reach)  # (size,)
    source = first[:, None] + torch.arange(reach, device=device)  # (size, K)
    left, right = -source, 2 * (size - 1) - source  # a pixel's mirror images; the pixels at the border have none
    gauss = 0.5 / to_device(sigma, device)[:, None, None] ** 2
    weights = torch.zeros(len(sigma), size, reach, device=device)
    for place, there in ((source, True), (left, source > 0), (right, source < size - 1)):
        distance = place - output[:, None]
        exponent = gauss * distance**2  # (N, size, K)
        weights += torch.exp(-exponent.clamp(max=20)) * (there & (distance.abs() <= radius) & (exponent < 20))
    weights /= weights.sum(2, keepdim=True)
    return Taps(first.expand(len(sigma), -1), weights)


def separable(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Map rows and columns of pictures; sample n is made of picture `n // (N / B)`.

    Args:
        images: uint8 or float32 (B, C, H, W).
        rows: from H to s, N samples.
        columns: from W to t, N samples.

    Returns:
        float32 (N, C, s, t), on the device of the images.
    """
    return (by_taps if images.device.type == "cpu" else by_matrices)(images, rows, columns)


def by_matrices(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """`separable` as two batched matrix products, in the precision that is set for float32 (TF32 or not)."""
    batch, channels, height, width = images.shape
    n, size = rows.first.shape
    with torch.autocast(images.device.type, enabled=False):
        # All samples of a picture in one product, so that no picture is copied.
        matrix = rows.matrix(height).reshape(batch, 1, -1, height)
        lines = matrix @ images.float()  # (B, C, N/B s, W)
        lines = lines.view(batch, channels, -1, size, width).transpose(1, 2).reshape(n, channels * size, width)
        return torch.bmm(lines, columns.matrix(width).mT).view(n, channels, size, -1)


def by_taps(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """`separable` as a compiled loop over samples and taps."""
    (n, size), width = rows.first.shape, columns.first.shape[1]
    out = torch.empty(n, images.shape[1], size, width)
    arrays = (rows.first, rows.weights, columns.first, columns.weights)
    _by_taps(images.contiguous().numpy(), *(x.contiguous().numpy() for x in arrays), out.numpy())
    return out


def rotate(images: Tensor, angle: Tensor, size: Tensor) -> Tensor:
    """Rotate pictures counter-clockwise about their centres: the nearest pixel, zeros outside.

    Args:
        images: uint8 (N, C, H, W), each picture at the top left.
        angle: float32 (N,), degrees, on the CPU.
        size: int64 (N, 2), rows and columns of each, on the CPU.
    """
    if images.device.type != "cpu":
        return rotate_by_index(images, angle, size)
    out = torch.zeros_like(images)
    _rotate(images.contiguous().numpy(), _turns(angle, size).numpy(), size.numpy(), out.numpy())
    return out


def rotate_by_index(images: Tensor, angle: Tensor, size: Tensor) -> Tensor:
    """`rotate` for the whole batch at once."""
    height, width = images.shape[2:]
    cos, sin, y, x = to_device(_turns(angle, size).T, images.device)[..., None, None]  # each (N, 1, 1)
    rows, columns = to_device(size.T, images.device)[..., None, None]
    down = torch.arange(height, device=images.device)[:, None] + 0.5 - y
    right = torch.arange(width, device=images.device) + 0.5 - x
    row, column = sin * right + cos * down + y, cos * right - sin * down + x  # (N, H, W)
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    index = torch.where(inside, row.long() * width + column.long(), 0).flatten(1)[:, None]
    pixels = images.flatten(2).gather(2, index.expand(-1, images.shape[1], -1)).view(images.shape)
    return pixels.mul_(inside[:, None])


def _turns(angle: Tensor, size: Tensor) -> Tensor:
    """Cosine and sine of each angle, y and x of each centre, float32 (N, 4)."""
    turn = torch.deg2rad(angle)
    return torch.stack((turn.cos(), turn.sin(), *(size / 2).T), dim=1)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy CPU values to a device without waiting for it."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp_(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, for x >= 0."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far * (x < 2))


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}

_FAST = {"contract", "nsz", "reassoc"}
_kernel = compiled(error_model="numpy", fastmath=_FAST)
_part = compiled(error_model="numpy", fastmath=_FAST, inline="always")  # see `compiled`


@_kernel
def _by_taps(
    images: npt.NDArray[Any],
    row_first: npt.NDArray[np.int64],
    row_weights: npt.NDArray[np.float32],
    column_first: npt.NDArray[np.int64],
    column_weights: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    samples, channels, size, width = out.shape
    for n in range(samples):
        left = column_first[n].min()
        right = min(column_first[n].max() + column_weights.shape[2], images.shape[3])
        lines = np.empty((size, right - left), np.float32)
        turned = np.empty((right - left, size), np.float32)
        done = np.empty((width, size), np.float32)
        for c in range(channels):
            # Both passes run along memory, the second one on the transposed picture.
            _map_rows(images[n * len(images) // samples, c], left, row_first[n], row_weights[n], lines)
            _transpose(lines, turned)
            _map_rows(turned, 0, column_first[n] - left, column_weights[n], done)
            _transpose(done, out[n, c])


@_part
def _map_rows(
    image: npt.NDArray[Any],
    left: int,
    first: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """`out[i, x] = sum over k of weights[i, k] * image[first[i] + k, left + x]`."""
    begin, width = np.uint64(left), np.uint64(out.shape[1])  # numba tests a signed index for being negative each time
    for i in range(len(out)):
        for x in range(width):
            out[i, x] = 0
        for k in range(weights.shape[1]):
            weight, row = weights[i, k], first[i] + k
            if weight != 0:
                for x in range(width):
                    out[i, x] += weight * np.float32(image[row, begin + x])


@_kernel
def _rotate(
    images: npt.NDArray[np.uint8],
    maps: npt.NDArray[np.float32],
    size: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
) -> None:
    half = np.float32(0.5)
    for n in range(len(images)):
        (cos, sin, y, x), (rows, columns) = maps[n], size[n]
        for i in range(rows):
            for j in range(columns):
                down, right = np.float32(i) + half - y, np.float32(j) + half - x
                row, column = sin * right + cos * down + y, cos * right - sin * down + x
                if 0 <= row < rows and 0 <= column < columns:
                    for c in range(images.shape[1]):
                        out[n, c, i, j] = images[n, c, int(row), int(column)]


@_part
def _transpose(source: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> None:
    for begin in range(0, len(source), 16):  # as many rows as stay in the cache
        rows = source[begin : begin + 16]
        for j in range(len(target)):
            line = target[j, begin : begin + 16]
            for i in range(len(line)):
                line[i] = rows[i, j]
