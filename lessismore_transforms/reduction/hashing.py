"""The 64-bit difference hash of slices, equal to `imagehash.dhash` bit for bit, and Hamming distances.

Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Section 2.1, HASH: resize to 9 x 8
with Pillow's LANCZOS, then one bit per pixel and its right neighbour. Pillow resizes 8-bit pictures by two integer
products and rounds to 8 bits after each; in floating point up to 72 % of the hashes of CT slices would differ. The
width is resized first for every shape, as in the Pillow of the paper (9.2) and in all versions up to 12. Pillow 13
begins with the height where that shrinks much more (pictures about twice as tall as wide), and differs there.
The paper's 1/n (Eq. 4) is left out: thresholds 3, 6 and 12 are bits.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.compiled import compiled

if TYPE_CHECKING:
    import torch

Hashes = npt.NDArray[np.uint64]

_WIDTH, _HEIGHT = 9, 8
_FRACTION_BITS = 22  # of Pillow's integer weights: 32 less 8 for the pixel and 2 for overshoot
_HALF = 1 << (_FRACTION_BITS - 1)
_LANES = 32  # weights come in blocks of so many, which fill the processor's vectors
_ROWS = 4  # resized at once, so that each weight is loaded once for all of them
_BLOCK = 2**23  # pixels that the torch route handles at once: 32 slices of 512 x 512
_XOR_BLOCK = 2**17  # hash pairs at once: 1 MiB


def dhash(slices: npt.NDArray[np.uint8]) -> Hashes:
    """The difference hash of each slice.

    Args:
        slices: uint8 (S, H, W) or (H, W).

    Returns:
        uint64 (S,), or one np.uint64 for (H, W). The first comparison is the highest bit, so that the 16 hexadecimal
        digits equal `str(imagehash.dhash(image))`.

    Raises:
        UserError: the slices are not uint8, or have no pixels.
    """
    if slices.dtype != np.uint8 or slices.ndim not in (2, 3) or 0 in slices.shape[-2:]:
        raise UserError(
            f"expected uint8 slices (H, W) or (S, H, W), found {slices.dtype} of shape {slices.shape}; "
            "scale them with min_max_uint8 first"
        )
    height, width = slices.shape[-2:]
    stack = np.ascontiguousarray(slices.reshape(-1, height, width))
    hashes = np.empty(len(stack), np.uint64)
    _hash_stack(stack, *_weights(width, _WIDTH), *_weights(height, _HEIGHT), hashes)
    result: Hashes = hashes.reshape(slices.shape[:-2])[()]  # a scalar for (H, W)
    return result


def dhash_torch(slices: torch.Tensor) -> torch.Tensor:
    """The difference hash of each slice, computed where the slices lie (CPU or GPU).

    Args:
        slices: torch.uint8 (S, H, W).

    Returns:
        torch.int64 (S,), the 64 bits of `dhash`: `.cpu().numpy().view(np.uint64)` equals it.

    Raises:
        UserError: the slices are not uint8 (S, H, W), or have no pixels.
    """
    import torch

    if slices.dtype != torch.uint8 or slices.ndim != 3 or 0 in slices.shape[1:]:
        raise UserError(
            f"expected torch.uint8 slices (S, H, W), found {slices.dtype} of shape {tuple(slices.shape)}; "
            "scale them to 8 bit and stack them first"
        )
    _, height, width = slices.shape
    places = torch.arange(63, -1, -1, device=slices.device)
    hashes = []
    for block in torch.split(slices, max(1, _BLOCK // (height * width))):
        narrow = _resize_rows(block.reshape(-1, width), _WIDTH).view(-1, height, _WIDTH)  # (B, H, 9)
        small = _resize_rows(narrow.transpose(1, 2).reshape(-1, height), _HEIGHT).view(-1, _WIDTH, _HEIGHT)
        rising = (small[:, 1:] > small[:, :-1]).transpose(1, 2).reshape(-1, 64)
        hashes.append((rising.long() << places).sum(1))  # distinct bits: the sum is their union
    return torch.cat(hashes)


def hamming_distances(hashes: Hashes, others: Hashes) -> npt.NDArray[np.uint8]:
    """The number of differing bits of each pair of hashes.

    Args:
        hashes: uint64 (n,).
        others: uint64 (m,).

    Returns:
        uint8 (n, m), 0..64 bits.
    """
    distances = np.empty((len(hashes), len(others)), np.uint8)
    rows = max(1, _XOR_BLOCK // max(1, len(others)))
    for start in range(0, len(hashes), rows):
        block = slice(start, start + rows)
        np.bitwise_count(hashes[block, None] ^ others, out=distances[block])
    return distances


def format_hash(value: int | np.uint64) -> str:
    """A hash as "0x" and 16 hexadecimal digits: text, so that spreadsheets keep every bit."""
    return f"0x{int(value):016x}"


def parse_hash(text: str) -> np.uint64:
    """The hash in a text that `format_hash` made.

    Raises:
        UserError: the text is not "0x" and 16 hexadecimal digits.
    """
    if not re.fullmatch("0x[0-9a-fA-F]{16}", text):
        raise UserError(f'expected a hash as "0x" and 16 hexadecimal digits, found {text!r}; restore the manifest')
    return np.uint64(int(text, 16))


@functools.lru_cache(maxsize=256)
def _weights(size: int, new_size: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Pillow's LANCZOS resize of one axis as integers.

    These are Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` in the same order of float64 operations. Where
    the sizes are equal Pillow skips the pass; here the weights are then the identity.

    Args:
        size: pixels before.
        new_size: pixels after.

    Returns:
        Weights int32 (new_size, size) with 22 fractional bits, and int64 (new_size, 2): for each new pixel where the
        blocks of old pixels begin and end that hold all its weights.
    """
    scale = size / new_size
    stretch = max(scale, 1.0)
    weights = np.zeros((new_size, size), np.int32)
    spans = np.empty((new_size, 2), np.int64)
    for target in range(new_size):
        centre = (target + 0.5) * scale
        first = max(0, int(centre - 3 * stretch + 0.5))
        stop = min(size, int(centre + 3 * stretch + 0.5))
        values = [_lanczos((source - centre + 0.5) * (1 / stretch)) for source in range(first, stop)]
        total = functools.reduce(operator.add, values)  # not sum(): it compensates from Python 3.12 on
        fixed = np.array(values) / total * (1 << _FRACTION_BITS)
        weights[target, first:stop] = np.trunc(fixed + np.copysign(0.5, fixed))
        spans[target] = first // _LANES * _LANES, min(-(-stop // _LANES) * _LANES, size)
    weights.flags.writeable = spans.flags.writeable = False
    return weights, spans


def _lanczos(x: float) -> float:
    def sinc(x: float) -> float:
        return math.sin(x * math.pi) / (x * math.pi) if x else 1.0

    return sinc(x) * sinc(x / 3) if -3 <= x < 3 else 0.0


@compiled()
def _hash_stack(
    slices: npt.NDArray[np.uint8],
    across: npt.NDArray[np.int32],
    across_spans: npt.NDArray[np.int64],
    down: npt.NDArray[np.int32],
    down_spans: npt.NDArray[np.int64],
    hashes: Hashes,
) -> None:
    """Write the hash of each slice (S, H, W) to `hashes`, with the weights of both passes."""
    count, height, width = slices.shape
    # As 32-bit numbers, each converted once and not once for each of the six weights that it meets.
    pixels = np.empty((_ROWS, width), np.int32)
    narrow = np.empty((_WIDTH, height + _ROWS), np.int32)  # transposed, so that both passes read contiguous pixels
    for index in range(count):
        for top in range(0, height, _ROWS):
            for place in range(_ROWS):
                row = slices[index, min(top + place, height - 1)]  # the last one again where there are no more
                for column in range(width):
                    pixels[place, column] = row[column]
            for target in range(_WIDTH):
                first, stop = across_spans[target]
                one, two, three, four = _weighted_rows(
                    pixels[0, first:stop],
                    pixels[1, first:stop],
                    pixels[2, first:stop],
                    pixels[3, first:stop],
                    across[target, first:stop],
                )
                narrow[target, top], narrow[target, top + 1] = _rounded(one), _rounded(two)
                narrow[target, top + 2], narrow[target, top + 3] = _rounded(three), _rounded(four)
        bits = np.uint64(0)
        for target in range(_HEIGHT):
            first, stop = down_spans[target]
            left = _rounded(_weighted(narrow[0, first:stop], down[target, first:stop]))
            for column in range(1, _WIDTH):
                right = _rounded(_weighted(narrow[column, first:stop], down[target, first:stop]))
                bits = (bits << np.uint64(1)) | np.uint64(right > left)
                left = right
        hashes[index] = bits


@compiled()
def _weighted_rows(
    first: npt.NDArray[np.int32],
    second: npt.NDArray[np.int32],
    third: npt.NDArray[np.int32],
    fourth: npt.NDArray[np.int32],
    weights: npt.NDArray[np.int32],
) -> tuple[Any, Any, Any, Any]:
    """The weighted sums of four rows of pixels of 0..255.

    They are below 2^31: weights add up to 2^22, and to less than twice that without their signs.
    """
    one = two = three = four = np.int32(0)
    for index in range(weights.size):
        weight = weights[index]
        one = np.int32(one + np.int32(first[index] * weight))
        two = np.int32(two + np.int32(second[index] * weight))
        three = np.int32(three + np.int32(third[index] * weight))
        four = np.int32(four + np.int32(fourth[index] * weight))
    return one, two, three, four


@compiled()
def _weighted(pixels: npt.NDArray[np.int32], weights: npt.NDArray[np.int32]) -> Any:
    """The same of one row."""
    total = np.int32(0)
    for index in range(pixels.size):
        total = np.int32(total + np.int32(pixels[index] * weights[index]))
    return total


@compiled()
def _rounded(total: Any) -> int:
    """A weighted sum rounded and saturated to 8 bits."""
    rounded = int((np.int64(total) + _HALF) >> _FRACTION_BITS)
    return min(max(rounded, 0), 255)


def _resize_rows(pixels: torch.Tensor, new_size: int) -> torch.Tensor:
    """Resize each row of pixels, uint8 (N, size) to (N, new_size), as `_hash_stack` does.

    The weights are split into base-128 digits for the int8 matrix product, which is exact in int32 because wrap-around
    cancels in the sum. Where that product does not take the shape, float64 is used, which is exact too.
    """
    import torch

    rows, size = pixels.shape
    if pixels.device.type in ("cpu", "cuda") and rows > 16 and size % 8 == 0:
        digits, offset = _digit_weights(size, new_size, pixels.device)
        products = torch._int_mm(pixels.bitwise_xor(128).view(torch.int8), digits)  # (N, digits * new_size + padding)
        total = offset + products[:, :new_size]
        for place in range(1, digits.shape[1] // new_size):
            total += products[:, place * new_size : (place + 1) * new_size] << (7 * place)
    else:
        weights = torch.tensor(_weights(size, new_size)[0], dtype=torch.float64, device=pixels.device)
        total = (pixels.double() @ weights.T).long() + _HALF
    return (total >> _FRACTION_BITS).clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _digit_weights(size: int, new_size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the weights for int8: w = d0 + 128 d1 + ..., digits in -64..63 (wider ones saturate without VNNI).

    Returns:
        int8 (size, columns), digit by digit, columns padded with zeros to a multiple of 8; and int32 (new_size,): one
        half for rounding, plus a correction for the 128 that is subtracted from the pixels to make them int8.
    """
    import torch

    rest = _weights(size, new_size)[0].astype(np.int64)
    offset = torch.tensor(128 * rest.sum(1) + _HALF, dtype=torch.int32, device=device)
    digits = []
    while rest.any():
        digits.append((rest + 64) % 128 - 64)
        rest = (rest - digits[-1]) // 128
    columns = np.concatenate(digits)
    columns = np.pad(columns, ((0, -len(columns) % 8), (0, 0)))
    return torch.tensor(columns.T.copy(), dtype=torch.int8, device=device), offset
