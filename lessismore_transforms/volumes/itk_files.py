"""NRRD and MetaImage volumes: ITK reads the header, the voxels are streamed (`voxel_stream`) and checked here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.volumes.geometry import LPS_TO_RAS
from lessismore_transforms.volumes.itk_headers import Place, read_place
from lessismore_transforms.volumes.label_maps import why_label_map
from lessismore_transforms.volumes.volume import Crc32, Skipped, Slice, Volume, volume_of_file
from lessismore_transforms.volumes.voxel_stream import Encoding, Voxels, stream, why_no_volume
from lessismore_transforms.wording import counted, printable

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
_GZIP = b"\x1f\x8b"


def find(path: str, root: Path, *, stored: bool = False, labels: bool = False) -> Volume | Skipped:
    """The volume in the file `path` below `root`, or the reason why it holds none.

    Args:
        path: relative to `root`.
        root: the data set's folder.
        stored: keep the stored orientation, like the released scripts.
        labels: take label maps as well.
    """
    try:
        place = read_place(path, root)
    except OSError as error:
        return Skipped(path, f"cannot be opened: {error.strerror}")
    except VolumeError as error:
        return Skipped(path, str(error))
    voxels = _voxels(place, root)
    if reason := why_no_volume(voxels, place.shape):
        return Skipped(path, reason)

    import itk  # takes seconds to import and is needed for few data sets

    nrrd = path.lower().endswith((".nrrd", ".nhdr"))
    try:
        header: Any = (itk.NrrdImageIO if nrrd else itk.MetaImageIO).New()
        header.SetFileName(str(root / path))
        with _silenced():
            header.ReadImageInformation()
        dimensions, components = header.GetNumberOfDimensions(), header.GetNumberOfComponents()
        shape = tuple(header.GetDimensions(axis) for axis in range(dimensions))
        width = header.GetComponentSize()
    except (RuntimeError, TypeError):
        return Skipped(path, "damaged header: no NRRD or MetaImage that ITK can read; copy it again")
    if components != 1:
        return Skipped(path, f"{counted(components, 'value')} per voxel: split it into volumes of one")
    if shape != place.shape or width != np.dtype(place.dtype).itemsize:
        return Skipped(path, "a header whose fields contradict each other: write the file anew")
    affine = np.eye(4)
    for axis in range(3):
        affine[:3, axis] = np.multiply(header.GetDirection(axis), header.GetSpacing(axis))
        affine[axis, 3] = header.GetOrigin(axis)
    if not labels and (reason := why_label_map(voxels, shape)):
        return Skipped(path, reason)
    return volume_of_file(path, "itk", (shape[0], shape[1], shape[2]), LPS_TO_RAS @ affine, stored=stored)


@contextmanager
def _silenced() -> Iterator[None]:
    """Without the lines that ITK's C++ writes to the error stream by itself, which do not name the file."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no error stream
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def read(volume: Volume, root: Path, crc: Crc32) -> Iterator[Slice]:
    """The slices of `volume` in stored order, each with its canonical index.

    Raises:
        VolumeError: the file or its data file is missing, truncated or damaged.
    """
    try:
        place = read_place(volume.path, root)
    except VolumeError as error:
        raise VolumeError(f"{printable(volume.path)}: {error}") from error
    if place.data != volume.path:
        crc.update_from(root / volume.path)
    yield from stream(volume, _voxels(place, root), crc)


def data_file(path: str, root: Path) -> str:
    """The file that holds the voxels of a header, relative to the root; the header's own where that is not known."""
    try:
        return read_place(path, root).data
    except (VolumeError, OSError):
        return path


def _voxels(place: Place, root: Path) -> Voxels:
    path = root / place.data
    encoding: Encoding = place.encoding
    offset = place.offset
    try:
        if offset < 0:  # the voxels end with the file
            needed = np.dtype(place.dtype).itemsize * int(np.prod(place.shape, dtype=object))
            offset = max(path.stat().st_size - needed, 0)
        elif encoding == "zlib" and path.is_file():
            with path.open("rb") as file:
                file.seek(offset)
                encoding = "gzip" if file.read(2) == _GZIP else "zlib"
    except OSError:
        pass  # reading tells that the file is missing
    return Voxels(path, offset, encoding, place.dtype)
