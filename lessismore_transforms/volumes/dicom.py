"""The slices of a DICOM volume: uncompressed pixels straight from the file, all others by pydicom or GDCM."""

from __future__ import annotations

import io
import mmap
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import pixel_array

from lessismore_transforms.volumes.dicom_file import LARGEST_INFLATED, inflatable, read_headers
from lessismore_transforms.volumes.dicom_header import Header, SliceError
from lessismore_transforms.volumes.dicom_series import build_volumes
from lessismore_transforms.volumes.geometry import Array
from lessismore_transforms.volumes.stored_values import drop_unused_bits, whole_hu
from lessismore_transforms.volumes.volume import Crc32, Slice, StoredSlice, Volume, read_whole, to_hu
from lessismore_transforms.wording import counted

__all__ = ["Header", "build_volumes", "read", "read_headers"]

_META_BYTES = 1 << 14


def read(volume: Volume, root: Path, crc: Crc32) -> Iterator[Slice]:
    """The slices of `volume` in canonical order; a slice that cannot be read comes with the reason."""
    files = _Files(root, crc)
    for index, stored in enumerate(volume.slices):
        rescale = (stored.slope, stored.intercept)
        try:
            raw = _pixels(files, stored, volume)
        except SliceError as refused:
            yield Slice(index, np.empty((0, 0), np.int16), reason=f"{stored.path}: {refused}")
            continue
        except OSError as error:
            problem = error.strerror or "the file system refuses"
            yield Slice(index, np.empty((0, 0), np.int16), reason=f"{stored.path}: cannot be opened: {problem}")
            continue
        except Exception:  # one bad file must not lose the volume; decoders raise many kinds, and repeat what they read
            reason = f"{stored.path}: damaged, or no decoder for its pixels: copy it again, or convert it to NIfTI"
            yield Slice(index, np.empty((0, 0), np.int16), reason=reason)
            continue
        hu, replaced, ends = _hu(raw, stored)
        yield Slice(index, volume.orientation.apply(hu), rescale, replaced, ends=ends)


def _hu(raw: Array, stored: StoredSlice) -> tuple[Array, int, tuple[int, int] | None]:
    """HU of stored values, the number of voxels that were not finite, and the ends of the HU where they are known."""
    if stored.offset >= 0:
        if (whole := whole_hu(raw, stored.bits, stored.slope, stored.intercept)) is not None:
            hu, ends = whole
            return hu, 0, ends
        drop_unused_bits(raw, stored.bits)
    return *to_hu(raw, stored.slope, stored.intercept, bits=stored.bits), None


class _Files:
    """The files of a volume in the order of the slices; one of many frames stays open and is not read whole."""

    def __init__(self, root: Path, crc: Crc32) -> None:
        self.root, self.crc = root, crc
        self.path = ""
        self.data: memoryview | mmap.mmap = memoryview(b"")
        self.maps: dict[str, mmap.mmap] = {}
        self.dataset: pydicom.Dataset | None = None

    def open(self, stored: StoredSlice) -> None:
        """Make the file of a slice the present one, and add it to the checksum."""
        if stored.path == self.path:
            return
        self.path, self.dataset, self.data = "", None, memoryview(b"")
        if (known := self.maps.get(stored.path)) is not None:  # slices of several such files may alternate
            self.path, self.data = stored.path, known
            return
        with io.FileIO(f"{self.root}/{stored.path}") as file:
            if stored.frame < 0:
                self.data = read_whole(file)
            else:
                self.data = self.maps[stored.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with memoryview(self.data) as view:
            self.crc.update(view)
        self.path = stored.path

    def parsed(self) -> pydicom.Dataset:
        """The present file as pydicom reads it."""
        if self.dataset is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file = io.BytesIO(self.data)
                self.dataset = pydicom.dcmread(inflatable(file, bytes(self.data[:_META_BYTES])), force=True)
        return self.dataset


def _pixels(files: _Files, stored: StoredSlice, volume: Volume) -> Array:
    files.open(stored)
    rows, columns = volume.shape[:0:-1] if volume.orientation.transpose else volume.shape[1:]
    if stored.offset < 0:
        return _decode(files, stored, rows, columns)
    dtype = np.dtype(stored.dtype)
    have = max(len(files.data) - stored.offset, 0)
    if have < rows * columns * dtype.itemsize:
        raise SliceError(f"truncated: {have} of {rows * columns * dtype.itemsize} bytes of pixels: copy it again")
    raw = np.frombuffer(files.data, dtype, rows * columns, stored.offset).reshape(rows, columns)
    return raw if raw.flags.writeable and raw.flags.aligned else raw.copy()


def _decode(files: _Files, stored: StoredSlice, rows: int, columns: int) -> Array:
    """Compressed, deflated or big-endian pixels by pydicom, or GDCM where pydicom has no decoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = files.parsed()
        if rows * columns > LARGEST_INFLATED:
            raise SliceError(f"{rows} x {columns} pixels: larger than any CT slice")
        try:
            raw = np.asarray(pixel_array(dataset, index=max(stored.frame, 0), raw=True))
        except (NotImplementedError, RuntimeError, ImportError):
            raw = _decode_with_gdcm(files.root / stored.path, dataset)
            raw = raw[max(stored.frame, 0)] if raw.ndim == 3 else raw
    if raw.shape != (rows, columns):
        raise SliceError(f"decoded to {counted(raw.size, 'value')}, expected {rows} x {columns}: copy it again")
    return raw


def _decode_with_gdcm(path: Path, dataset: pydicom.Dataset) -> Array:
    import itk  # takes seconds to import and is needed for few files

    reader = itk.GDCMImageIO.New()
    hu = itk.array_from_image(itk.imread(str(path), imageio=reader))
    # GDCM applies the rescale; the stored values are asked for.
    stored = np.rint((hu - float(dataset.get("RescaleIntercept", 0))) / float(dataset.get("RescaleSlope", 1)))
    shape = hu.shape if hu.ndim == 3 and hu.shape[0] > 1 else hu.shape[-2:]
    return np.asarray(stored.reshape(shape), dtype=np.int32)
