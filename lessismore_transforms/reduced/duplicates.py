"""Redundancy across volumes and patients, and copies of images between two data sets.

`select_across` applies the exemplar rule of the released scripts to all slices of a patient or of whole data sets (the
released AllData script), where `Manifest.select` stays inside each volume. `near_duplicates` finds the images of one
set that another set holds too, mirrored, turned, in another window, resized or compressed: a leak between
pre-training and evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from PIL import Image

from lessismore_transforms.errors import UserError
from lessismore_transforms.processors import available_cores
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import Manifest, Selection, record_order
from lessismore_transforms.reduction.hashing import Hashes, dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.neighbours import exemplars_of_hashes, neighbours_within
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.volumes.pictures import SUFFIXES, read_picture

if TYPE_CHECKING:
    import pandas as pd

Picture = npt.NDArray[np.uint8]

ORDERS = ("thinnest", "manifest")
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

_COARSE, _COARSE_SHIFT, _COARSE_CORRELATION = 32, 1, 0.55  # pixels, pixels
_FINE, _FINE_SHIFT, _FIELD = 64, 3, 16  # pixels; an image cropped by 5 % fits piece by piece
_FLAT = 8  # grey levels of 255, over two pixels, below which a gradient is noise
_UNIT = 127  # length of a direction in 8 bit
_FEATURES = 32  # pixels with a direction, of the coarse 1024, that an image needs to be told from others
_PAIRS = 2**22  # of hashes compared at once
_IMAGES = 1024  # of the first set, compared at once
_SHARE = 4096  # pairs that a thread correlates at once


def select_across(
    manifests: Sequence[Manifest],
    threshold: float,
    *,
    scope: str = "all",
    order: str | npt.ArrayLike = "thinnest",
) -> list[Selection]:
    """Keep each slice that no slice kept before it, in its volume, of its patient or anywhere, is close to.

    Which slice of a group survives depends on the order of the walk: `thinnest` goes through the volumes by slice
    spacing, the thinnest first, equal ones in the order of the manifests, and through a volume by position (by
    released name where it was reduced so); `manifest` takes the volumes as the manifests list them. Slices that could
    not be read take no part. `Manifest.select` gives the same as the scope `volume`.

    Args:
        manifests: of one output folder or several.
        threshold: a slice goes at a distance <= this, in whole bits of 64.
        scope: `volume`, `patient` or `all`, what a slice is compared with.
        order: `thinnest`, `manifest`, or every row (n,) of the manifests, one after the other, in the order of the
            walk; `manifest.slices["path"].argsort(kind="stable")` is that of the released AllData script for PNG.

    Returns:
        A selection per manifest; `kept_by` may name a slice of another volume, patient or manifest.

    Raises:
        UserError: an unknown scope or order, a threshold out of range, or patients hashed with different keys.
    """
    import pandas as pd

    target = Target.of(threshold=threshold, rule="exemplars", scope=scope)
    if scope == "patient" and len(found := {manifest.settings["patients"] for manifest in manifests}) > 1:
        raise UserError(f"expected the same patient key, found {', '.join(sorted(found))}: reduce with one key")
    records = [record for manifest in manifests for record in manifest.volumes]
    slices = pd.concat([manifest.slices for manifest in manifests], ignore_index=True)
    names, hashes = slices["slice_id"].to_numpy(dtype=object), slices["hash"].to_numpy()

    members = {
        "volume": list(range(len(records))),
        "patient": [record["patient"] for record in records],
        "all": [0] * len(records),
    }
    group = np.repeat(pd.factorize(np.array(members[scope]))[0], [record["slices"] for record in records])
    walk = _walk(records, order)
    walk = walk[(slices["reason"].to_numpy() == "")[walk]]
    walk = walk[np.argsort(group[walk], kind="stable")]

    kept = np.zeros(len(slices), dtype=bool)
    kept_by, distance = np.full(len(slices), "", dtype=object), np.full(len(slices), np.nan)
    for rows in np.split(walk, np.flatnonzero(np.diff(group[walk])) + 1):
        result = exemplars_of_hashes(hashes[rows], int(threshold))
        kept[rows] = result.kept
        kept_by[rows] = np.where(result.kept, "", names[rows[result.kept_by]])
        distance[rows] = np.where(result.kept, np.nan, result.distance)
    table = pd.DataFrame({"slice_id": names, "kept": kept, "kept_by": kept_by, "distance": distance})
    stops = np.cumsum([len(manifest.slices) for manifest in manifests])
    return [
        Selection(table.iloc[stop - len(manifest.slices) : stop].reset_index(drop=True), target)
        for manifest, stop in zip(manifests, stops, strict=True)
    ]


def images_in(source: str | Path, selection: str = "default") -> Iterator[tuple[str, Picture]]:
    """Each image's name and grey values, uint8 (H, W), from an output folder of `reduce` or a folder of images.

    Args:
        source: an output folder, for the slices that training sees, by slice_id; or any folder, for the PNG and JPEG
            files below it, by path.
        selection: the selection's name in an output folder.

    Raises:
        UserError: there are no images, or a file cannot be read.
        ManifestError: the output is damaged, or has no such selection.
    """
    source = Path(source)
    if (source / "manifest.json").is_file():
        slices = SliceSelectionDataset(source, selection)
        yield from ((item["slice_id"], item["image"][0]) for item in map(slices.__getitem__, range(len(slices))))
        return
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"expected PNG or JPEG files or an output of `reduce` in {source}, found none: name another")
    for path in paths:
        yield path.relative_to(source).as_posix(), read_picture(path)


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
    are printed by `pytest -s -k recall tests/test_duplicates.py`:

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
        a: names and images, uint8 (H, W), as `images_in` gives them; streamed.
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
        coarse = _correlate(first.coarse, second.coarse, match, place, _COARSE, _COARSE_SHIFT)
        likely = coarse >= _COARSE_CORRELATION
        place, match, bits = place[likely], match[likely], bits[likely]
        places, inverse = np.unique(place, return_inverse=True)
        turned = [TRANSFORMS[names[i % positions]](second.thumbnails[i // positions]) for i in places]
        fine = _Gradients.of(_directions(np.reshape(turned, (-1, _FINE, _FINE))))
        score = _correlate(_Gradients.of(_directions(first.thumbnails)), fine, match, inverse, _FIELD, _FINE_SHIFT)
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
    field: int,
    shift: int,
) -> npt.NDArray[np.float64]:
    """The orientation correlation of each pair first[match], second[place], 0 without common directions.

    Args:
        first: of n images.
        second: of m images, as large.
        match: (k,) indices.
        place: (k,) indices.
        field: side of the fields that are shifted each on its own, pixels.
        shift: by up to so many pixels.

    Returns:
        float64 (k,), at most 1: the products over those of the image that has fewer directions.
    """
    products = np.empty(len(match), np.int64)

    def multiply(part: slice) -> None:
        _multiply(first.directions, second.directions, match[part], place[part], field, shift, products[part])

    with ThreadPoolExecutor(available_cores()) as pool:
        deque(pool.map(multiply, (slice(at, at + _SHARE) for at in range(0, len(match), _SHARE))), maxlen=0)
    energy = np.minimum(first.energy[match], second.energy[place])
    score: npt.NDArray[np.float64] = products / np.maximum(1, energy)
    return np.minimum(score, 1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _multiply(
    first: npt.NDArray[np.int8],
    second: npt.NDArray[np.int8],
    match: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    field: int,
    shift: int,
    products: npt.NDArray[np.int64],
) -> None:
    """Write the sum over fields of the products at the best shift of each."""
    _, _, height, width = first.shape
    for pair in range(len(match)):
        one, other = first[match[pair]], second[place[pair]]
        products[pair] = 0
        for top in range(0, height, field):
            for left in range(0, width, field):
                best = np.int32(0)
                for down in range(-shift, shift + 1):
                    for right in range(-shift, shift + 1):
                        start, stop = max(left, -right), min(left + field, width - right)
                        total = np.int32(0)
                        for axis in range(2):
                            for y in range(max(top, -down), min(top + field, height - down)):
                                line = one[axis, y, start:stop]
                                facing = other[axis, y + down, start + right : stop + right]
                                for x in range(line.size):  # in 32 bits: many at once
                                    total = np.int32(total + np.int32(line[x]) * np.int32(facing[x]))
                        best = max(best, total)
                products[pair] += best


def _walk(records: Sequence[dict[str, Any]], order: str | npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The rows of volumes in the order of the walk."""
    counts = np.array([record["slices"] for record in records], np.int64)
    if not isinstance(order, str):
        walk = np.asarray(order, np.int64)
        if not np.array_equal(np.sort(walk), np.arange(counts.sum())):
            raise UserError(f"expected an order that names each of 0..{counts.sum() - 1} once: take it from all rows")
        return walk
    if order not in ORDERS:
        raise UserError(f"expected an order out of {', '.join(ORDERS)} or one of rows, found {order!r}")
    turns = list(range(len(records)))
    if order == "thinnest":
        turns.sort(key=lambda turn: float(records[turn]["spacing_mm"][0]))  # stable
    walks = [np.empty(0, np.int64)]
    for turn in turns:
        within = record_order(records[turn])
        walks.append(counts[:turn].sum() + (np.arange(counts[turn]) if within is None else within))
    return np.concatenate(walks)
