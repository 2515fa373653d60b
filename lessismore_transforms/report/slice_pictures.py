"""Pieces that pages about slices share: thumbnails as one picture, the ends of a volume, the bar code of what stays."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.store import THUMBNAILS
from lessismore_transforms.reduced.table_files import open_array
from lessismore_transforms.wording import plural

_ENDS = {"axial": ("feet", "head"), "coronal": ("front", "back"), "sagittal": ("right", "left")}


def ends_of(plane: str) -> tuple[str, str]:
    """What the first and the last slice of a volume in canonical order are near to."""
    return _ENDS.get(plane, ("first", "last"))


def read_thumbnails(output_dir: Path, volume: str, count: int) -> NDArray[np.uint8] | None:
    """The thumbnails (n, rows, columns) of a volume of `count` slices, memory-mapped; None where it has none.

    Raises:
        ManifestError: they cannot be read or do not fit their volume.
    """
    path = output_dir / THUMBNAILS / f"{volume}.npy"
    if not path.is_file():
        return None
    thumbnails: NDArray[np.uint8] = open_array(path, "delete it or reduce again")
    if thumbnails.ndim != 3 or len(thumbnails) != count or thumbnails.dtype != np.uint8:
        expected, found = f"uint8 ({count}, rows, columns)", f"{thumbnails.dtype} {thumbnails.shape}"
        raise ManifestError(f"{path}: expected {expected}, found {found}: delete it or reduce again")
    return thumbnails


_QUALITIES = (80, 60, 40, 20, 5)


def as_webp(thumbnails: NDArray[np.uint8], rows: int, columns: int, most: float = math.inf) -> bytes:
    """The thumbnails (k, height, width) side by side as WebP: 1 KB each, a quarter of PNG; less where `most` says so.

    Args:
        thumbnails: in the order of the rows.
        rows: of the picture, in thumbnails.
        columns: of the picture.
        most: about how many bytes the picture may have; the quality is lowered for it, as far as that goes.
    """
    some = thumbnails[:: max(1, len(thumbnails) // 40)]  # by which the size is foretold
    share = len(some) / len(thumbnails)
    fits = (quality for quality in _QUALITIES if len(_encode(some, 1, len(some), quality)) <= most * share)
    quality = _QUALITIES[0] if most == math.inf else next(fits, _QUALITIES[-1])
    return _encode(thumbnails, rows, columns, quality)


def _encode(thumbnails: NDArray[np.uint8], rows: int, columns: int, quality: int) -> bytes:
    from PIL import Image

    _, height, width = thumbnails.shape
    tiles = np.zeros((rows * columns, height, width), dtype=np.uint8)
    tiles[: len(thumbnails)] = thumbnails
    picture = tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def bar_code(kept: NDArray[np.bool_], first: str, last: str) -> str:
    """Where the kept slices (n,) lie in a volume, as a bar code."""
    marks = "".join(f'<rect x="{index}.1" width=".8" height="1"/>' for index in np.flatnonzero(kept))
    number = int(kept.sum())
    label = f"{number} {plural(number, 'kept slice')} marked among {len(kept)}, from {first} to {last}"
    return f"""<div class="bar" data-live><span>{first}</span><svg role="img" aria-label="{label}"
viewBox="0 0 {len(kept)} 1" preserveAspectRatio="none">{marks}</svg><span>{last}</span></div>"""
