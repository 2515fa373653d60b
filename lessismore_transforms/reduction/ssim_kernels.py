"""The SSIM of pairs of slices, measured: compiled for one core of a CPU, and with torch.

The formulas and their names are those of `ssim`, which decides what pairs are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.reduction.compiled import compiled
from lessismore_transforms.reduction.selection import Indices, Scores

if TYPE_CHECKING:
    import torch

Slices = npt.NDArray[np.uint8]
Reals = npt.NDArray[Any]  # float32 or float64
Pairs = tuple[npt.NDArray[np.intp], ...]  # indices (P,) of the later slices, and of the earlier

WINDOW = 11
_MARGIN = WINDOW - 1  # by so much is a picture larger than the map of its windows
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_TAPS = np.exp(-0.5 * (np.arange(WINDOW) - WINDOW // 2) ** 2 / 1.5**2)
_TAPS /= _TAPS.sum()

_STRIP = 16  # rows of windows that the kernels handle at once: a strip of some slices fits into the cache
_TILE = 8  # slices that meet each other before the next ones come into the cache
_BATCH_CPU, _BATCH_GPU = 2**18, 2**24  # pixels that torch handles at once
_STRIPS = 2**25  # pixels of all slices, with their moments, on the torch device at once
_LINE = 64  # bytes of a cache line
_BLOCK = 4  # windows across and down that share a bound

_FAST = {"arcp", "contract", "nsz", "reassoc"}
_kernel = compiled(error_model="numpy", fastmath=_FAST)
_part = compiled(error_model="numpy", fastmath=_FAST, inline="always")  # see `compiled`


def sweep(slices: Slices, pairs: Pairs, dtype: npt.DTypeLike = np.float32, *, bound: Scores | None = None) -> Scores:
    """Measure pairs, strip by strip from the top, on one core.

    Args:
        slices: uint8 (S, H, W), C-contiguous.
        pairs: two index arrays (P,).
        dtype: float32 or float64; the moments of single slices are computed in float64.
        bound: zeros (S, S), to be filled with lower bounds of the dissimilarity of all pairs [later, earlier].

    Returns:
        float64 (2, P): the dissimilarity 1 - SSIM; and its condition, the mean of (1 - A) g / (s^2 + t^2 + C2) with
        the Gaussian mean g of (x - y)^2. Rounding grows with it, because d^2 is the difference g - (a - b)^2.
    """
    height, width = slices.shape[1:]
    across = width - _MARGIN
    used, place = np.unique(pairs, return_inverse=True) if bound is None else (np.arange(len(slices)), np.array(pairs))
    place = place.reshape(2, -1)
    order = np.lexsort((*place, *(place // _TILE)))  # pairs of the same tiles together
    ordered = np.ascontiguousarray(place[:, order])
    total = np.zeros((2, len(order)))

    taps = _TAPS.astype(dtype)
    mean, spread = _on_cache_lines(len(used), _STRIP, width, dtype), _on_cache_lines(len(used), _STRIP, width, dtype)
    rows = _on_cache_lines(1, _STRIP + _MARGIN + 1, width, dtype)[0]
    lines = _on_cache_lines(1, 4, width, np.float64)[0]
    blocks = np.empty((len(used), 4, _STRIP // _BLOCK, -(-across // _BLOCK)), np.float32)
    for top in range(0, height - _MARGIN, _STRIP):
        depth = min(_STRIP, height - _MARGIN - top)
        _moments(slices, used, top, depth, _TAPS, lines, mean, spread)
        _add_pairs(slices, used, top, depth, *ordered, mean, spread, taps, rows, total)
        if bound is not None:
            _pool(mean, spread, depth, across, blocks)
            _add_bounds(blocks.reshape(len(used), 4, -1), bound)
    windows = (height - _MARGIN) * across
    if bound is not None:
        bound /= windows
    result = np.empty_like(total)
    result[:, order] = total / windows
    return result


def _on_cache_lines(count: int, rows: int, width: int, dtype: npt.DTypeLike) -> Reals:
    """An empty array (count, rows, at least width) whose rows begin at multiples of a cache line.

    Vector loads across two cache lines take twice as long.
    """
    size = np.dtype(dtype).itemsize
    padded = -(-width * size // _LINE) * _LINE
    memory = np.empty(count * rows * padded + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + count * rows * padded].view(dtype).reshape(count, rows, padded // size)


@_kernel
def _moments(
    slices: Slices, used: Indices, top: int, depth: int, taps: Reals, lines: Reals, mean: Reals, spread: Reals
) -> None:
    """Write mean and variance + C2 / 2 of the windows of a strip, for each slice used."""
    width = slices.shape[2]
    for index in range(used.size):
        one = slices[used[index], top : top + depth + _MARGIN]
        for row in range(depth):
            for column in range(width):
                values = squares = 0.0
                for tap in range(WINDOW):
                    value = np.float64(one[np.uint64(row) + np.uint64(tap), np.uint64(column)])
                    weighted = taps[tap] * value
                    values += weighted
                    squares += weighted * value
                lines[0, column] = values
                lines[1, column] = squares
            _blur_across(lines[0], taps, width, lines[2])
            _blur_across(lines[1], taps, width, lines[3])
            for column in range(width - _MARGIN):
                mean[index, row, column] = lines[2, column]
                spread[index, row, column] = lines[3, column] - lines[2, column] * lines[2, column] + _C2 / 2


@_part
def _blur_across(line: Reals, taps: Reals, width: int, out: Reals) -> None:
    """Write the Gaussian mean of each 11 neighbours; unsigned indices need no check for wrap-around."""
    for column in range(width - _MARGIN):
        value = taps[0] * line[np.uint64(column)]
        for tap in range(1, WINDOW):
            value += taps[tap] * line[np.uint64(column) + np.uint64(tap)]
        out[column] = value


@_kernel
def _add_pairs(
    slices: Slices,
    used: Indices,
    top: int,
    depth: int,
    later: Indices,
    earlier: Indices,
    mean: Reals,
    spread: Reals,
    taps: Reals,
    rows: Reals,
    total: Scores,
) -> None:
    """Add what the windows of a strip give to the total of each pair (2, P)."""
    high = depth + _MARGIN
    for pair in range(later.size):
        i, j = later[pair], earlier[pair]
        dissimilarity, condition = _compare(
            slices[used[i], top : top + high],
            slices[used[j], top : top + high],
            mean[i],
            mean[j],
            spread[i],
            spread[j],
            taps,
            rows,
        )
        total[0, pair] += dissimilarity
        total[1, pair] += condition


@_part
def _compare(
    one: Slices,
    other: Slices,
    mean: Reals,
    other_mean: Reals,
    spread: Reals,
    other_spread: Reals,
    taps: Reals,
    rows: Reals,
) -> tuple[float, float]:
    """What `sweep` measures, summed over the windows of a strip of two slices, as precise as the taps."""
    high, width = one.shape
    real = taps.dtype.type
    line = rows[high]
    for row in range(high):
        for column in range(width):
            difference = real(one[row, column]) - real(other[row, column])
            rows[row, column] = difference * difference
    dissimilarity = condition = 0.0
    for row in range(high - _MARGIN):
        for column in range(width):
            value = taps[0] * rows[np.uint64(row), np.uint64(column)]
            for tap in range(1, WINDOW):
                value += taps[tap] * rows[np.uint64(row) + np.uint64(tap), np.uint64(column)]
            line[column] = value
        first = second = real(0)
        for column in range(width - _MARGIN):
            a, b = mean[row, column], other_mean[row, column]
            gap = (a - b) * (a - b)
            product = real(2) * a * b + real(_C1)
            contrast = spread[row, column] + other_spread[row, column]  # s^2 + t^2 + C2
            scale = real(1) / ((gap + product) * contrast)
            value = taps[0] * line[np.uint64(column)]  # `_blur_across`, here for speed
            for tap in range(1, WINDOW):
                value += taps[tap] * line[np.uint64(column) + np.uint64(tap)]
            square = value * product
            first += (square + gap * (contrast - product)) * scale
            second += square * scale
        dissimilarity += first
        condition += second
    return dissimilarity, condition


@_kernel
def _pool(mean: Reals, spread: Reals, depth: int, across: int, blocks: Reals) -> None:
    """Sum mean, deviation and the terms of both denominators over blocks of windows, (n, 4, rows, columns)."""
    sums = np.empty((4, across), np.float32)
    for index in range(len(mean)):
        blocks[index, :2] = 0
        blocks[index, 2:] = 1  # a denominator above 0 where a strip ends early
        for row in range(0, depth, _BLOCK):
            sums[:] = 0
            for inner in range(row, min(row + _BLOCK, depth)):
                for column in range(across):
                    a, v = mean[index, inner, column], spread[index, inner, column]
                    sums[0, column] += a
                    sums[1, column] += np.sqrt(max(v - np.float32(_C2 / 2), np.float32(0)))
                    sums[2, column] += a * a + np.float32(_C1 / 2)
                    sums[3, column] += v
            for part in range(4):
                for column in range(across):
                    blocks[index, part, row // _BLOCK, column // _BLOCK] += sums[part, column]


@_kernel
def _add_bounds(blocks: Reals, bound: Scores) -> None:
    """Add what the blocks (n, 4, m) say to the bound of each pair [later, earlier]."""
    for later in range(len(blocks)):
        x = blocks[later]
        for earlier in range(later):
            y = blocks[earlier]
            subtotal = np.float32(0)
            for index in range(x.shape[1]):
                means, deviations = x[0, index] - y[0, index], x[1, index] - y[1, index]
                by_mean = means * means / (x[2, index] + y[2, index])
                by_deviation = deviations * deviations / (x[3, index] + y[3, index])
                subtotal += max(by_mean, by_deviation)
            bound[later, earlier] += subtotal


def sweep_torch(slices: Slices, device: str) -> Scores:
    """Measure all pairs in float32 with torch: a slice and a batch of earlier ones at a time, in strips from the top.

    Args:
        slices: uint8 (S, H, W).
        device: of torch.

    Returns:
        float64 (2, S, S), as `sweep` for the pairs [later, earlier].
    """
    import torch

    count, height, width = slices.shape
    total = torch.zeros((2, count, count), dtype=torch.float64, device=device)
    most = _BATCH_GPU if total.is_cuda else _BATCH_CPU
    depth = max(1, min(height, most // width, _STRIPS // (count * width)) - _MARGIN)
    batch = max(1, most // ((depth + _MARGIN) * width))
    for top in range(0, height - _MARGIN, depth):
        strip = torch.tensor(slices[:, top : top + depth + _MARGIN], dtype=torch.float32, device=device)
        mean, spread = strip.new_empty((2, count, strip.shape[1] - _MARGIN, width - _MARGIN))
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            mean[part], spread[part] = _moments_torch(strip[part])
        for later in range(1, count):
            for start in range(0, later, batch):
                part = slice(start, min(start + batch, later))
                total[:, later, part] += _compare_torch(
                    strip[part], strip[later], mean[part], mean[later], spread[part], spread[later]
                )
    result: Scores = total.cpu().numpy() / ((height - _MARGIN) * (width - _MARGIN))
    return result


def _moments_torch(strip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance + C2 / 2, float32 (n, h, w), of the windows of pictures (n, h + 10, w + 10)."""
    exact = strip.double()
    mean = _blur_torch(exact)
    spread = _blur_torch(exact.square_()) - mean.square() + _C2 / 2
    return mean.float(), spread.float()


def _compare_torch(
    strip: torch.Tensor,
    other: torch.Tensor,
    mean: torch.Tensor,
    other_mean: torch.Tensor,
    spread: torch.Tensor,
    other_spread: torch.Tensor,
) -> torch.Tensor:
    """What `_compare` does, float64 (2, n), of a strip of n slices (n, h + 10, w + 10) and of one other.

    Each line reads and writes whole maps, so they are few: SSIM = l - l G(x-y)^2 / contrast + l gap / contrast.
    """
    import torch

    blurred = _blur_torch((strip - other).square_())  # (n, h, w), as all that follow
    gap = (mean - other_mean).square_()
    luminance = (mean * (2 * other_mean)).add_(_C1)
    luminance.div_(luminance + gap)  # l
    scale = luminance / (spread + other_spread)
    blurred.mul_(scale)
    similarity = luminance.sub_(blurred).add_(gap.mul_(scale)).sum((1, 2), dtype=torch.float64)
    return torch.stack([gap[0].numel() - similarity, blurred.sum((1, 2), dtype=torch.float64)])


def _blur_torch(rows: torch.Tensor) -> torch.Tensor:
    """The Gaussian means (n, h, w) of pictures (n, h + 10, w + 10), in their precision."""
    return _blur_depthwise(rows) if rows.is_cuda and len(rows) > 1 else _blur_shifted(rows)


def _blur_shifted(rows: torch.Tensor) -> torch.Tensor:
    """As a sum of shifted pictures, the fastest way on a CPU."""
    for axis in (1, 2):
        length = rows.shape[axis] - _MARGIN
        blurred = rows.narrow(axis, 0, length) * _TAPS[0]
        for tap in range(1, WINDOW):
            blurred.add_(rows.narrow(axis, tap, length), alpha=_TAPS[tap])
        rows = blurred
    return rows


def _blur_depthwise(rows: torch.Tensor) -> torch.Tensor:
    """As a convolution with a channel per picture: torch's own CUDA kernel, which reads and writes a map once.

    Not cuDNN's, which may round to TF32.
    """
    import torch

    taps = torch.tensor(_TAPS, dtype=rows.dtype, device=rows.device)
    with torch.backends.cudnn.flags(enabled=False):
        for shape in ((1, 1, WINDOW, 1), (1, 1, 1, WINDOW)):
            weights = taps.view(shape).expand(len(rows), -1, -1, -1)
            rows = torch.nn.functional.conv2d(rows[None], weights, groups=len(rows))[0]
    return rows
