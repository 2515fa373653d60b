"""2-D picture files by Pillow, with known words for what is wrong with them and no memory taken on their word."""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from lessismore_transforms.errors import UserError
from lessismore_transforms.volumes.geometry import Array
from lessismore_transforms.volumes.volume import most_pixels

# Formats that a file called .png or .jpg is found to hold; others run programs (EPS) or hold several pictures.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG by its colour type
_MOST_EXPANSION = 1032  # of deflate
_MORE_PICTURES = "an animation or several pictures in one file, not a slice: save each as a file of its own"


def picture_size(path: str | Path) -> tuple[int, int]:
    """Rows and columns of a picture; for PNG from its header alone, as a folder may hold half a million of them.

    Raises:
        Exception: it cannot be read; `why_unreadable` says why.
    """
    with io.FileIO(path) as file:
        start, size = file.read(29), os.fstat(file.fileno()).st_size
    if len(start) == 29 and start.startswith(b"\x89PNG\r\n\x1a\n") and start[12:16] == b"IHDR":
        columns, rows, bits, colour, _, _, interlaced = struct.unpack(">2I5B", start[16:])
        stored = rows * math.ceil(columns * bits * _CHANNELS.get(colour, 1) / 8)
        if not interlaced and stored > _MOST_EXPANSION * size:
            raise UserError(f"its header promises {rows} x {columns} pixels, more than it can hold: copy it again")
        _check_size(rows, columns)
        return rows, columns
    with open_picture(Path(path)) as image:
        return image.height, image.width


def read_grey(file: BinaryIO) -> Array:
    """Grey values (rows, columns) of a picture of any mode.

    Raises:
        Exception: it cannot be read; `why_unreadable` says why.
    """
    with open_picture(file) as image:
        grey = image.mode in ("L", "I", "I;16", "F")
        return np.asarray(image if grey else image.convert("RGB").convert("L"))


@contextmanager
def open_picture(file: BinaryIO | Path, *, tiff: bool = False) -> Iterator[Image.Image]:
    """A picture, opened but not decoded, without warnings of Pillow's.

    Args:
        file: to open.
        tiff: whether it may be a TIFF file, which a slice of a volume is not.

    Raises:
        UserError: it is too large, or holds several pictures.
        Exception: it cannot be read; `why_unreadable` says why.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=(*_FORMATS, "TIFF") if tiff else _FORMATS) as image:
            _check_size(image.height, image.width)
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's photograph with its preview
                raise UserError(_MORE_PICTURES)
            yield image


def _check_size(rows: int, columns: int) -> None:
    if rows < 1 or columns < 1:
        raise UserError(f"a picture of {rows} x {columns} pixels: copy it again")
    if rows * columns > most_pixels():
        raise UserError(f"its header promises {rows} x {columns} pixels, more than can be read: make it smaller")


def is_grey(image: Image.Image) -> bool:
    """Whether a picture is stored as grey values, or as a palette of greys; alpha does not count."""
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def why_unreadable(error: BaseException, *, formats: str = "PNG or JPEG") -> str:
    """What is wrong with a picture, in known words: the libraries' own messages may hold bytes of the file."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"cannot be opened as an image: no {formats}"
    if isinstance(error, Image.DecompressionBombError):
        return "cannot be opened as an image: its header promises more pixels than can be read"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be opened: {error.strerror}"
    return f"a picture that is {'truncated' if 'truncated' in str(error) else 'damaged'}: copy it again"
