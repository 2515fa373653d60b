"""Pictures of one set that another set holds too, mirrored, turned, in another window, resized or compressed.

Such a copy is a leak where one set pre-trains a network and the other one evaluates it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from lessismore_transforms.cores import available_cores
from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.compiled import compiled
from lessismore_transforms.reduction.hashing import Hashes, dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.neighbours import neighbours_within

if TYPE_CHECKING:
    import pandas as pd

Picture = npt.NDArray[np.uint8]

TRANSFORMS: dict[str, Callable[[Picture], Picture]] = {  # under Pillow's names, for (..., H, W)
    "none": lambda image: image,
    "flip_left_right": lambda image: image[..., ::-1],
    "flip_top_bottom": lambda image: image[..., ::-1, :],
    "rotate_90": lambda image: np.rot90(image, 1, (-2, -1)),
    "rotate_180": lambda image: image[..., ::-1, ::-1],
    "rotate_270": lambda image: np.rot90(image, 3, (-2, -1)),
    "transpose": lambda image: image.swapaxes(-2, -1),
    "transverse": lambda image: image[..., ::-1, ::-1].swapaxes(-2, -1),
}
RADIUS = 20  # bits of 64
CORRELATION = 0.6

_COARSE, _COARSE_CORRELATION = 32, 0.55  # pixels
_FINE, _FINE_SHIFT, _FIELD = 64, 3, 16  # pixels; an image cropped by 5 % fits piece by piece
_FLAT = 8  # grey levels of 255, over two pixels, below which a gradient is noise
_UNIT = 127  # length of a direction in 8 bit
_FEATURES = 32  # pixels with a direction, of the coarse 1024, that an image needs to be told from others
_PAIRS = 2**22  # of hashes compared at once
_IMAGES = 1024  # of the first set, compared at once
_SHARE = 4096  # pairs that a thread correlates at once


def near_duplicates(
    a: Iterable[tuple[str, Picture]],
    b: Iterable[tuple[str, Picture]],
    *,
    radius: int = RADIUS,
    correlation: float = CORRELATION,
) -> pd.DataFrame:
    """Find the images of two sets that are the same picture but for flips, quarter turns, window, size and compression.

    Candidates are pairs with difference hashes at most `radius` bits apart in one of the eight positions. They are
    confirmed by the orientation correlation (Fitch, Kadyrov, Christmas & Kittler, BMVC 2002) of thumbnails: the mean
    cosine between the directions of their gradients, over the pixels that have one. It does not see brightness,
    contrast or any rising change of grey values. First at 32 x 32 pixels, where the best shift by up to a pixel has
    to reach 0.55; then at 64 x 64, where each of 16 fields takes its own best shift by up to three.

    Measured on copies of 92 slices of five CT volumes (stored by per-slice min-max), with both defaults; the figures
    are printed by `pytest -s -k recall tests/reduction/test_near_duplicates.py`:

    ============================================================  ======  ===================  =========
    copy                                                          found   lowest correlation   most bits
    ============================================================  ======  ===================  =========
    identical or mirrored                                         100 %   1.00                 0
    turned by 90 degrees                                          100 %   0.97                 0
    resized to 0.75 or 0.5                                        100 %   0.88                 3
    JPEG of quality 75 or 50                                      100 %   0.86                 4
    brightness + 20 % or - 20 %                                   100 %   0.95                 5
    gamma 0.6                                                     100 %   0.86                 9
    5 % of height and width cut off, anywhere                     99 %    0.72                 18
    lung window                                                   100 %   0.97                 9
    soft tissue window                                            100 %   0.75                 15
    lung window, mirrored, resized to 0.5, JPEG 75                100 %   0.84                 8
    soft tissue window, cropped by 5 %, resized to 0.5, JPEG 75   100 %   0.63                 19
    ============================================================  ======  ===================  =========

    Of 87,032 pairs with 946 unrelated CT images 2 are found, each with a plain disc of a head phantom. Slices of one
    patient at nearly the same level are found as well, a few mm to cm apart: look at pairs below 0.7. Crops of 10 %
    and turns by other angles are mostly not found; images without features, such as blank slices, never.

    Args:
        a: names and images, uint8 (H, W), as `reduced.pictures.images_in` gives them; streamed.
        b: the same; held in memory with 20 KiB an image, so give the smaller set here.
        radius: a distance of hashes <= this makes a candidate, bits of 64.
        correlation: a candidate counts from this on, up to 1.

    Returns:
        A row per pair in the order of `a` and then of `b`: `image_a`, `image_b`, `bits`, `correlation` (the second),
        and the `transform` that brings `b` into the position of `a`.

    Raises:
        UserError: radius or correlation are out of range.
    """
    import pandas as pd

    if not 0 < correlation <= 1:
        raise UserError(f"expected a correlation above 0 and at most 1, found {correlation}; {CORRELATION} is usual")
    names, positions = list(TRANSFORMS), len(TRANSFORMS)
    second = _Prints.of(b, names)
    block = max(1, min(_IMAGES, _PAIRS // max(1, len(second.hashes))))
    images = iter(a)
    found: list[tuple[str, str, int, float, str]] = []
    while batch := list(islice(images, block)):
        first = _Prints.of(batch, ["none"])
        place, match, bits = neighbours_within(second.hashes, first.hashes, radius)
        coarse = _correlate(first.coarse, second.coarse, match, place, _multiply_whole)
        likely = coarse >= _COARSE_CORRELATION
        place, match, bits = place[likely], match[likely], bits[likely]
        places, inverse = np.unique(place, return_inverse=True)
        turned = [TRANSFORMS[names[i % positions]](second.thumbnails[i // positions]) for i in places]
        fine = _Gradients.of(_directions(np.reshape(turned, (-1, _FINE, _FINE))))
        score = _correlate(_Gradients.of(_directions(first.thumbnails)), fine, match, inverse, _multiply_fields)
        image, position = np.divmod(place, positions)
        rank = np.lexsort((position, -score, image, match))  # of each pair, the best position first
        _, best = np.unique(match[rank] * len(second.names) + image[rank], return_index=True)
        found += [
            (first.names[match[i]], second.names[image[i]], int(bits[i]), float(score[i]), names[position[i]])
            for i in rank[best]
            if score[i] >= correlation
        ]
    return pd.DataFrame(found, columns=["image_a", "image_b", "bits", "correlation", "transform"])


class _Gradients(NamedTuple):
    """Where the grey values of n images rise: directions, int8 (n, 2, H, W), and their squares' sums, int64 (n,)."""

    directions: npt.NDArray[np.int8]
    energy: npt.NDArray[np.int64]

    @classmethod
    def of(cls, directions: npt.NDArray[np.int8]) -> _Gradients:
        """Sum the squares."""
        return cls(directions, np.einsum("ncyx,ncyx->n", directions, directions, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class _Prints:
    """What tells n images from each other, in p positions each; images without features are left out.

    Args:
        names: (n,).
        hashes: uint64 (n * p,), the positions of an image one after the other.
        coarse: of thumbnails, n * p of 32 x 32.
        thumbnails: uint8 (n, 64, 64), fine ones in the first position.
    """

    names: list[str]
    hashes: Hashes
    coarse: _Gradients
    thumbnails: Picture

    @classmethod
    def of(cls, images: Iterable[tuple[str, Picture]], transforms: Sequence[str]) -> _Prints:
        """The prints of (name, image) in the positions that the transforms give."""
        names: list[str] = []
        hashes: list[Hashes] = []
        directions = [np.empty((0, 2, _COARSE, _COARSE), np.int8)]
        thumbnails = [np.empty((0, _FINE, _FINE), np.uint8)]
        for name, image in images:
            fine = min_max_uint8(np.asarray(Image.fromarray(image).resize((_FINE, _FINE), Image.Resampling.BILINEAR)))
            coarse = fine.reshape(_COARSE, 2, _COARSE, 2).mean(axis=(1, 3), dtype=np.float32)
            turned = _directions(np.stack([TRANSFORMS[transform](coarse) for transform in transforms]))
            if turned[0].any(axis=0).sum() < _FEATURES:
                continue
            names.append(name)
            hashes += [dhash(TRANSFORMS[transform](image)) for transform in transforms]
            directions.append(turned)
            thumbnails.append(fine[None])
        coarse_ones = _Gradients.of(np.concatenate(directions))
        return cls(names, np.array(hashes, np.uint64), coarse_ones, np.concatenate(thumbnails))


def _directions(thumbnails: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """The directions in which the grey values of thumbnails (k, H, W) rise, times 127; 0 where they are flat.

    Returns:
        int8 (k, 2, H, W), to the right and down; the border is 0.
    """
    grey = thumbnails.astype(np.float32)
    rise = np.zeros((len(grey), 2, *grey.shape[1:]), np.float32)
    rise[:, 0, 1:-1, 1:-1] = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    rise[:, 1, 1:-1, 1:-1] = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    length = np.hypot(rise[:, :1], rise[:, 1:])
    unit = np.divide(rise, length, out=np.zeros_like(rise), where=length > _FLAT)
    directions: npt.NDArray[np.int8] = np.rint(_UNIT * unit).astype(np.int8)
    return directions


def _correlate(
    first: _Gradients,
    second: _Gradients,
    match: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    multiply: Callable[..., Any],
) -> npt.NDArray[np.float64]:
    """The orientation correlation of each pair first[match], second[place], 0 without common directions.

    Args:
        first: of n images.
        second: of m images, as large.
        match: (k,) indices.
        place: (k,) indices.
        multiply: writes the products of each pair at the best shift.

    Returns:
        float64 (k,), at most 1: the products over those of the image that has fewer directions.
    """
    products = np.empty(len(match), np.int64)

    def write(part: slice) -> None:
        multiply(first.directions, second.directions, match[part], place[part], products[part])

    with ThreadPoolExecutor(available_cores()) as pool:
        deque(pool.map(write, (slice(at, at + _SHARE) for at in range(0, len(match), _SHARE))), maxlen=0)
    energy = np.minimum(first.energy[match], second.energy[place])
    score: npt.NDArray[np.float64] = products / np.maximum(1, energy)
    return np.minimum(score, 1)


@compiled()
def _multiply_whole(
    first: npt.NDArray[np.int8],
    second: npt.NDArray[np.int8],
    match: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    products: npt.NDArray[np.int64],
) -> None:
    """Write the products of each pair at its best shift by up to a pixel.

    The border of both is 0, so a shift is an offset between the two as flat arrays: what leaves a line at its end meets
    the border of the next one.
    """
    width = first.shape[3]
    for pair in range(len(match)):
        one, other = first[match[pair]].ravel(), second[place[pair]].ravel()
        best = np.int32(0)
        for down in range(-width, width + 1, width):
            for offset in range(down - 1, down + 2):
                facing = other[max(0, offset) : other.size + min(0, offset)]
                best = max(best, _dot(one[max(0, -offset) : one.size - max(0, offset)], facing))
        products[pair] = best


@compiled()
def _multiply_fields(
    first: npt.NDArray[np.int8],
    second: npt.NDArray[np.int8],
    match: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    products: npt.NDArray[np.int64],
) -> None:
    """Write the sum over fields of the products at the best shift of each."""
    _, _, height, width = first.shape
    area = _FIELD * _FIELD
    field = np.empty((2, area), np.int8)
    strip = np.empty((2, area + 2 * _FINE_SHIFT * _FIELD), np.int8)  # as wide; each shift down is an offset in it
    for pair in range(len(match)):
        one, other = first[match[pair]], second[place[pair]]
        products[pair] = 0
        for top in range(0, height, _FIELD):
            for left in range(0, width, _FIELD):
                _cut(one, top, left, field)
                best = np.int32(0)
                for right in range(-_FINE_SHIFT, _FINE_SHIFT + 1):
                    _cut(other, top - _FINE_SHIFT, left + right, strip)
                    for start in range(0, (2 * _FINE_SHIFT + 1) * _FIELD, _FIELD):
                        facing = strip[:, start : start + area]
                        best = max(best, _dot(field[0], facing[0]) + _dot(field[1], facing[1]))
                products[pair] += best


@compiled()
def _cut(image: npt.NDArray[np.int8], top: int, left: int, out: npt.NDArray[np.int8]) -> None:
    """Write the lines, as wide as a field, that begin at a corner, one after the other; 0 outside of the image."""
    _, height, width = image.shape
    start, stop = max(0, -left), min(_FIELD, width - left)
    for axis in range(2):
        out[axis, :] = 0
        for y in range(max(0, -top), min(out.shape[1] // _FIELD, height - top)):
            line = image[axis, top + y, left + start : left + stop]
            into = out[axis, y * _FIELD + start : y * _FIELD + stop]
            for x in range(into.size):
                into[x] = line[x]


@compiled()
def _dot(one: npt.NDArray[np.int8], other: npt.NDArray[np.int8]) -> np.int32:
    """The sum of products of as many numbers, in 32 bits: many at once."""
    total = np.int32(0)
    for x in range(one.size):
        total = np.int32(total + np.int32(one[x]) * np.int32(other[x]))
    return total
