"""The description of a volume before its pixels are read, and the slices that reading yields."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from isal import isal_zlib

from lessismore_transforms.volumes.geometry import (
    Array,
    Orientation,
    canonical_affine,
    canonical_orientation,
    slice_positions,
)

Format = Literal["dicom", "nifti", "itk", "images"]
MEMORY_MB = 4096  # what reading and reducing a volume may take
_FAR_MM = 1e6
_PAGE_PART = 64  # bytes, a line of the processor's cache
_BYTES_OF_PIXEL = 48  # that a slice takes while it is read, scaled, hashed and shown, and the program beside it


def most_pixels(memory_mb: int = MEMORY_MB) -> int:
    """Pixels of the largest slice that can be read in so much memory; 2048 x 2048 always can."""
    return max((memory_mb << 20) // _BYTES_OF_PIXEL, 2048 * 2048)


def volume_id(key: str) -> str:
    """First 16 hex digits of the SHA-256 of a series UID or of a path relative to the data set's root (posix)."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that belongs to no CT volume, with the reason; `path` is relative to the root."""

    path: str
    reason: str


class StoredSlice(NamedTuple):  # which passes between processes several times as fast as a dataclass
    """One file of a volume that is stored as a file per slice.

    `offset` is the place in the file where uncompressed DICOM pixels begin, and `dtype` is their type. An offset of -1
    leaves the decoding to the library of the format. `frame` counts the slices of a file of many, from 0.
    """

    path: str
    position_mm: float
    slope: float = 1.0
    intercept: float = 0.0
    offset: int = -1
    dtype: str = ""
    bits: int = 16
    frame: int = -1


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as `find_volumes` found it.

    Args:
        volume: id, see `volume_id`.
        patient: the patient as the data set names it: a DICOM PatientID, a folder or a group of images. Private:
            written out only as a keyed hash unless the user asks for it.
        series: SeriesInstanceUID, with `/k` for the k-th part of a series that had to be split; empty for files.
        format: how it is stored: `itk` is NRRD or MetaImage, `images` a group of 2-D PNG or JPEG files.
        path: the file, or the folder that holds the slices, relative to the root (posix).
        shape: canonical (slices, rows, columns).
        affine: RAS+ (4, 4) in mm of the canonical grid (column, row, slice), as nested tuples.
        orientation: takes stored slices to canonical ones.
        slices: the files in canonical order where each slice is a file, else empty.
        notes: remarks on odd geometry: gaps in mm, gantry tilt, uneven spacing.
    """

    volume: str
    patient: str
    series: str
    format: Format
    path: str
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    orientation: Orientation
    slices: tuple[StoredSlice, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between slices, rows and columns."""
        column, row, depth = np.linalg.norm(np.asarray(self.affine)[:3, :3], axis=0).tolist()
        return depth, row, column

    @property
    def positions_mm(self) -> list[float]:
        """Position in mm of each slice on the slice normal, in canonical order."""
        if self.slices:
            return [stored.position_mm for stored in self.slices]
        positions: list[float] = slice_positions(np.asarray(self.affine), self.shape[0]).tolist()
        return positions

    def slice_path(self, index: int) -> str:
        """The file that holds slice `index`, relative to the root."""
        return self.slices[index].path if self.slices else self.path

    def as_dict(self, root: Path) -> dict[str, Any]:
        """The volume as MONAI takes it: strings and a path, or a list of paths in slice order, under `image`."""
        image: str | list[str] = str(root / self.path)
        if self.slices:
            paths = list(dict.fromkeys(str(root / stored.path) for stored in self.slices))
            image = paths if self.slices[0].frame < 0 else paths[0] if len(paths) == 1 else paths
        return {
            "image": image,
            "volume": self.volume,
            "patient": self.patient,
            "series": self.series,
            "format": self.format,
        }


def file_patient(path: str) -> str:
    """The patient of a file without a PatientID: its first folder below the root, or its own name in the root."""
    top, *rest = path.split("/")
    return top if rest else top.split(".")[0]


def volume_of_file(
    path: str, volume_format: Format, shape: tuple[int, int, int], affine: Array, *, stored: bool
) -> Volume | Skipped:
    """The volume in one file, whose last stored axis is the slice axis, or the reason why it has no orientation.

    Args:
        path: relative to the root.
        volume_format: `nifti` or `itk`.
        shape: stored (columns, rows, slices).
        affine: RAS+ (4, 4) in mm of the stored grid.
        stored: keep the stored orientation, like the released scripts.
    """
    corners = affine @ [[0, shape[0], 0, 0], [0, 0, shape[1], 0], [0, 0, 0, shape[2]], [1, 1, 1, 1]]
    if not (np.abs(corners) < _FAR_MM).all():  # also where one is not a number
        return Skipped(path, "a geometry of voxels kilometres away, or not of numbers: repair the header")
    try:
        orientation = canonical_orientation(affine)
    except ValueError:
        return Skipped(path, "a geometry that collapses an axis: repair the header")
    if stored:
        orientation = Orientation(plane=orientation.plane)
    columns, rows = shape[1::-1] if orientation.transpose else shape[:2]
    return Volume(
        volume=volume_id(path),
        patient=file_patient(path),
        series="",
        format=volume_format,
        path=path,
        shape=(shape[2], rows, columns),
        affine=tuple(map(tuple, canonical_affine(affine, shape, orientation).tolist())),
        orientation=orientation,
    )


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice as read.

    Args:
        index: canonical index in the volume; slices come in the order they are stored.
        hu: (rows, columns) in HU, int16, int32 or float32, or uint8 for the grey values of an 8-bit picture; finite,
            canonical orientation; may be a view.
        rescale: slope and intercept that took the stored values to HU.
        replaced: number of NaN or infinite voxels that were set to the slice's lowest finite value.
        reason: why the slice could not be read; `hu` is then empty.
        ends: the lowest and the highest HU, where reading told them.
    """

    index: int
    hu: Array
    rescale: tuple[float, float] = (1.0, 0.0)
    replaced: int = 0
    reason: str = ""
    ends: tuple[int, int] | None = None


class Crc32:
    """CRC32 of the bytes of a volume's files, fed while they are read."""

    def __init__(self) -> None:
        self.value = 0

    def __str__(self) -> str:
        return f"0x{self.value:08x}"

    def update(self, data: bytes | memoryview) -> None:
        """Continue the checksum with `data`."""
        self.value = isal_zlib.crc32(data, self.value)

    def update_from(self, path: Path) -> None:
        """Continue the checksum with all bytes of a file."""
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                self.update(block)


def read_whole(file: io.FileIO) -> memoryview:
    """The bytes of an unbuffered file from its beginning, in memory of their own, which may be written to."""
    size = os.fstat(file.fileno()).st_size
    room = np.empty(size + _PAGE_PART, np.uint8)
    # Some processors copy four times as slowly to an address a little behind that of a page.
    start = -room.__array_interface__["data"][0] % _PAGE_PART
    data, filled = room.data[start : start + size], 0
    while filled < size and (more := file.readinto(data[filled:])):
        filled += more
    return data[:filled]


def to_hu(raw: Array, slope: float = 1.0, intercept: float = 0.0, *, bits: int | None = None) -> tuple[Array, int]:
    """Finite HU of stored values, and the number of voxels that were not finite.

    Whole numbers stay whole (int16, or int32 where int16 is too small); all else is computed in float64 and kept as
    float32. A whole number is the same in all three types, so every route sees the same HU.

    Args:
        raw: stored values, any shape.
        slope: HU per stored unit.
        intercept: HU of a stored zero.
        bits: number of bits in use, where fewer than the type holds.
    """
    if raw.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        used = bits or 8 * raw.dtype.itemsize
        low, high = (-(2 ** (used - 1)), 2 ** (used - 1) - 1) if raw.dtype.kind == "i" else (0, 2**used - 1)
        ends = sorted((low * slope + intercept, high * slope + intercept))
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= ends[0] and ends[1] <= np.iinfo(dtype).max:
                # May wrap around; the sum below wraps back. A view saves a copy of every slice.
                same = raw.dtype.isnative and raw.dtype.itemsize == np.dtype(dtype).itemsize
                hu: Any = raw.view(dtype) if same else raw.astype(dtype)
                hu = hu if slope == 1 else hu * dtype(slope)
                return (hu if intercept == 0 else hu + dtype(intercept)), 0
    scaled = raw if (slope, intercept) == (1, 0) else raw.astype(np.float64) * slope + intercept
    hu = scaled.astype(np.float32, copy=False)
    finite = np.isfinite(hu)
    replaced = int(hu.size - np.count_nonzero(finite))
    if replaced:
        hu = np.where(finite, hu, hu[finite].min() if replaced < hu.size else np.float32(0))
    return hu, replaced
