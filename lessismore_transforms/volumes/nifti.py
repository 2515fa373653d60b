"""NIfTI volumes: nibabel reads the header, the voxels are streamed (`voxel_stream`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal import igzip

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.volumes.geometry import Array
from lessismore_transforms.volumes.label_maps import why_label_map
from lessismore_transforms.volumes.volume import Crc32, Skipped, Slice, Volume, volume_of_file
from lessismore_transforms.volumes.voxel_stream import Voxels, stream, why_no_volume
from lessismore_transforms.wording import printable

SUFFIXES = (".nii", ".nii.gz")
_DAMAGED = "damaged NIfTI header: copy the file again, or write it anew"


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]  # stored (columns, rows, slices)
    affine: Array
    voxels: Voxels


def find(path: str, root: Path, *, stored: bool = False, labels: bool = False) -> Volume | Skipped:
    """The volume in the file `path` below `root`, or the reason why it holds none.

    Args:
        path: relative to `root`.
        root: the data set's folder.
        stored: keep the stored orientation, like the released scripts.
        labels: take label maps as well.
    """
    try:
        header = _read_header(root / path)
    except OSError as error:
        if error.errno is not None:  # without a number it is gzip's
            return Skipped(path, f"cannot be opened: {error.strerror}")
        return Skipped(path, _DAMAGED)
    except Exception:  # nibabel raises many kinds on damaged headers, with what they hold; the file is listed
        return Skipped(path, _DAMAGED)
    if np.dtype(header.voxels.dtype).kind not in "iuf":
        return Skipped(path, "voxels that are no real numbers (colours or complex numbers): not HU")
    shape = header.shape
    if reason := why_no_volume(header.voxels, shape):
        return Skipped(path, reason)
    if not labels and (reason := why_label_map(header.voxels, shape)):
        return Skipped(path, reason)
    return volume_of_file(path, "nifti", (shape[0], shape[1], shape[2]), header.affine, stored=stored)


def read(volume: Volume, root: Path, crc: Crc32) -> Iterator[Slice]:
    """The slices of `volume` in stored order, each with its canonical index.

    Raises:
        VolumeError: the file is truncated or its compressed data are damaged.
    """
    try:
        header = _read_header(root / volume.path)
    except Exception as error:  # the file has changed since it was found
        raise VolumeError(f"{printable(volume.path)}: {_DAMAGED}") from error
    yield from stream(volume, header.voxels, crc)


def _read_header(path: Path) -> _Header:
    """The header alone: nibabel's own way of opening a file would read extensions of any claimed length."""
    # Here, as folders without NIfTI files would wait for this import (and that of pydicom, which it brings).
    from nibabel.imageglobals import LoggingOutputSuppressor
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    kinds = {348: Nifti1Header, 540: Nifti2Header}  # by the number that the header begins with, its own length
    packed = path.suffix.lower() == ".gz"
    with path.open("rb") as file, warnings.catch_warnings(), LoggingOutputSuppressor():
        warnings.simplefilter("ignore")  # header oddities that do not touch geometry or voxels
        source = igzip.GzipFile(fileobj=file, mode="rb") if packed else file
        start = source.read(540)
        claimed = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
        length = next(size for size in kinds if size in claimed)
        header = kinds[length](start[:length])
        if header["magic"].item().rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
            raise ValueError  # a header of a pair of files, whose voxels are elsewhere
        shape = tuple(map(int, header.get_data_shape()))
        slope, intercept = header.get_slope_inter()  # both None where the header asks for no scaling
        offset = int(header.get_data_offset())
        if offset < length:
            raise ValueError
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        dtype = header.get_data_dtype()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    kind = dtype.str if dtype.kind in "iufc" and dtype.itemsize <= 8 + 8 * (dtype.kind == "c") else "V1"
    voxels = Voxels(path, offset, "gzip" if packed else "raw", kind, packed, float(slope or 1), float(intercept or 0))
    return _Header(shape, affine, voxels)
