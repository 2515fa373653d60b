"""The pictures of an output folder or of any folder, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.picture_set import is_reduction
from lessismore_transforms.volumes.pictures import SUFFIXES, read_picture


def images_in(source: str | Path, selection: str = "default") -> Iterator[tuple[str, NDArray[np.uint8]]]:
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
    if is_reduction(source):
        slices = SliceSelectionDataset(source, selection)
        yield from ((name, slices.picture(index)) for index, name in enumerate(slices.slice_ids))
        return
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"expected PNG or JPEG files or an output of `reduce` in {source}, found none: name another")
    for path in paths:
        yield path.relative_to(source).as_posix(), read_picture(path)
