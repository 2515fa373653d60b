"""NIfTI volumes, streamed slice by slice in the order they are stored: no more than one slice is in memory.

nibabel reads the header; the voxels are read behind it, compressed files through ISA-L, which inflates three times
faster than zlib.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from isal import igzip, isal_zlib

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.volumes.volume import Crc32, Skipped, Slice, Volume, to_hu, volume_of_file
from lessismore_transforms.wording import counted

SUFFIXES = (".nii", ".nii.gz")


class _Summed:
    """A binary file whose bytes are added to a checksum as they are read."""

    def __init__(self, file: BinaryIO, crc: Crc32) -> None:
        self._file, self._crc = file, crc

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._crc.update(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._crc.update(memoryview(buffer)[:count])
        return count


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # header oddities that do not touch geometry or voxels
        return nibabel.load(path)


def find(path: str, root: Path, *, stored: bool = False) -> Volume | Skipped:
    """The volume in the file `path` below `root`, or the reason why it holds none."""
    try:
        image = _load(root / path)
        shape = image.shape
        dtype = image.get_data_dtype()
        affine = np.asarray(image.affine, dtype=np.float64)
    except Exception as error:  # nibabel raises many kinds on damaged headers; the file is listed, never dropped
        return Skipped(path, f"damaged NIfTI header: {error}")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3:
        return Skipped(path, f"{len(shape)}-D image of shape {shape}: split it into 3-D volumes")
    if min(shape) < 1:
        return Skipped(path, f"an image of shape {shape} without voxels")
    if dtype.kind not in "iuf":
        return Skipped(path, f"voxels of type {dtype}: not HU")
    return volume_of_file(path, "nifti", shape, affine, stored=stored)


def read(volume: Volume, root: Path, crc: Crc32) -> Iterator[Slice]:
    """The slices of `volume` in stored order, each with its canonical index.

    Raises:
        VolumeError: the file is truncated or its compressed data are damaged.
    """
    path = root / volume.path
    proxy = _load(path).dataobj
    slope, intercept = float(proxy.slope), float(proxy.inter)
    count, rows, columns = volume.shape
    if volume.orientation.transpose:
        rows, columns = columns, rows
    dtype = np.dtype(proxy.dtype)
    size = rows * columns * dtype.itemsize
    with path.open("rb") as file:
        summed: Any = _Summed(file, crc)
        voxels = igzip.GzipFile(fileobj=summed, mode="rb") if path.suffix.lower() == ".gz" else summed
        try:
            voxels.read(proxy.offset)
            for number in range(count):
                if len(data := voxels.read(size)) < size:
                    raise EOFError
                raw = np.frombuffer(data, dtype).reshape(rows, columns)
                raw = raw.astype(dtype.newbyteorder("="), copy=False)
                hu, replaced = to_hu(raw, slope, intercept)
                index = volume.orientation.index(number, count)
                yield Slice(index, volume.orientation.apply(hu), (slope, intercept), replaced)
            while voxels.read(1 << 20):  # to the end: the checksum covers the file, gzip checks its own
                pass
        except (EOFError, OSError, isal_zlib.IsalError) as error:  # type: ignore[misc]  # isal's stub has an instance
            problem = "truncated" if isinstance(error, EOFError) else f"damaged ({error})"
            raise VolumeError(
                f"{volume.path}: the file is {problem}: expected {counted(count, 'slice')}; copy it again"
            ) from error
