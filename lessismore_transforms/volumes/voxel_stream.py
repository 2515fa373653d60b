"""Voxels of a volume in one file, streamed slice by slice: no more than one slice is in memory.

Compressed voxels are inflated by ISA-L, three times faster than by zlib. Length and checksum are checked here, whatever
the format: what a header promises is compared with what the file can hold before a voxel is read, and with what it
held at the end.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from isal import igzip, isal_zlib

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.volumes.volume import Crc32, Slice, Volume, to_hu
from lessismore_transforms.wording import counted, printable

Encoding = Literal["raw", "gzip", "zlib", "bzip2"]

MOST_SLICES = 2**14  # of a volume; distances between more slices than these would take gigabytes
_BLOCK = 1 << 20
_USUAL_EXPANSION, _LARGE = 100, 4 << 30  # CT packs to a half or a third; what is large is asked
_MOST_EXPANSION: dict[Encoding, int] = {"raw": 1, "gzip": 1032, "zlib": 1032, "bzip2": 50_000}  # what a byte unpacks to


@dataclass(frozen=True, slots=True)
class Voxels:
    """Where the voxels of a volume are and how they are stored.

    Args:
        path: the file that holds them.
        offset: bytes before them; of the unpacked data where `packed_whole`, else of the file.
        encoding: how they are packed.
        dtype: type of a stored voxel, with its byte order.
        packed_whole: the file is packed from its first byte, header and all.
        slope: HU per stored unit.
        intercept: HU of a stored zero.
    """

    path: Path
    offset: int
    encoding: Encoding
    dtype: str
    packed_whole: bool = False
    slope: float = 1.0
    intercept: float = 0.0


def why_no_volume(voxels: Voxels, shape: tuple[int, ...]) -> str:
    """Why a grid of this shape (columns, rows, slices) cannot be in the file; nothing where it can.

    A raw file that is only too short, as after a broken copy, is no such reason: reading tells of it.
    """
    if len(shape) != 3:
        return f"{len(shape)}-D image of shape {_bounded(shape)}: split it into 3-D volumes"
    if min(shape) < 1:
        return f"an image of shape {_bounded(shape)} without voxels"
    if shape[2] > MOST_SLICES:
        return f"an image of shape {_bounded(shape)}: more than {MOST_SLICES:,} slices are no CT volume"
    try:
        size = voxels.path.stat().st_size
    except OSError:
        return ""
    needed = voxels.offset + math.prod(shape) * np.dtype(voxels.dtype).itemsize
    if needed > max(_MOST_EXPANSION[voxels.encoding], 1032) * size:
        promised = f"{needed:,}" if needed < 10**15 else f"{needed:.3g}"
        return f"its header promises {promised} bytes, which a file of {size:,} bytes cannot hold: copy it again"
    if needed > max(_USUAL_EXPANSION * size, _LARGE):
        return (
            f"it unpacks from {size:,} to {needed:,} bytes, more than {_USUAL_EXPANSION} times as many: no CT packs so "
            "well; write it unpacked if it is one"
        )
    return ""


def _bounded(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:.6g}" if abs(size) >= 10**9 else str(size) for size in shape[:8])


def stream(volume: Volume, voxels: Voxels, crc: Crc32) -> Iterator[Slice]:
    """The slices of `volume` in stored order, each with its canonical index.

    Args:
        volume: its shape and orientation.
        voxels: where they are.
        crc: checksum that is fed the bytes of the file, to its end.

    Raises:
        VolumeError: the file is missing, truncated or damaged, or holds more than the header says.
    """
    count, rows, columns = volume.shape
    if volume.orientation.transpose:
        rows, columns = columns, rows
    dtype = np.dtype(voxels.dtype)
    size = rows * columns * dtype.itemsize
    shown = printable(volume.path)
    if not voxels.path.is_file():
        raise VolumeError(
            f"{shown}: the voxels cannot be read: {printable(voxels.path.name)} is not there; copy it beside the header"
        )
    with voxels.path.open("rb") as file:
        if voxels.encoding == "raw" and voxels.path.stat().st_size < voxels.offset + count * size:
            raise VolumeError(_damaged(shown, "truncated", count))
        try:
            unpacked = unpack(file, voxels, crc)
            for number in range(count):
                if len(data := unpacked.read(size)) < size:
                    raise EOFError
                raw = np.frombuffer(data, dtype).reshape(rows, columns)
                raw = raw.astype(dtype.newbyteorder("="), copy=False)
                hu, replaced = to_hu(raw, voxels.slope, voxels.intercept)
                index = volume.orientation.index(number, count)
                rescale = (voxels.slope, voxels.intercept)
                yield Slice(index, volume.orientation.apply(hu), rescale, replaced)
            excess = 0
            while block := unpacked.read(_BLOCK):  # to the end: the checksums cover the file
                excess += len(block)
                if excess >= max(size, _BLOCK):
                    raise VolumeError(
                        f"{shown}: the file is damaged: it holds more than the {counted(count, 'slice')} that its "
                        "header promises; copy it again"
                    )
            while block := file.read(_BLOCK):  # behind the packed voxels
                crc.update(block)
        except EOFError as error:
            raise VolumeError(_damaged(shown, "truncated", count)) from error
        except (OSError, zlib.error, isal_zlib.IsalError) as error:  # type: ignore[misc]  # isal's stub has an instance
            raise VolumeError(_damaged(shown, "damaged", count)) from error


def _damaged(shown: str, problem: str, count: int) -> str:
    return f"{shown}: the file is {problem}: expected {counted(count, 'slice')}; copy it again"


def unpack(file: BinaryIO, voxels: Voxels, crc: Crc32) -> Any:
    """A stream with `read(size)` of the voxels in a file that was just opened.

    Raises:
        EOFError: the file ends before the voxels begin.
    """
    summed: Any = _Summed(file, crc)
    if not voxels.packed_whole:
        _skip(summed, voxels.offset)
    if voxels.encoding == "gzip":
        stream: Any = igzip.GzipFile(fileobj=summed, mode="rb")
    elif voxels.encoding == "zlib":
        stream = _Inflated(summed)
    else:
        stream = bz2.BZ2File(summed) if voxels.encoding == "bzip2" else summed
    if voxels.packed_whole:
        _skip(stream, voxels.offset)
    return stream


def _skip(stream: Any, size: int) -> None:
    while size > 0:
        if not (block := stream.read(min(size, _BLOCK))):
            raise EOFError
        size -= len(block)


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

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class _Inflated:
    """A zlib stream as a file; its own checksum is checked at its end."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._inflate: Any = isal_zlib.decompressobj()

    def read(self, size: int) -> bytes:
        blocks, missing = [], size
        while missing and not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._packed.read(_BLOCK)
            block = self._inflate.decompress(data, missing)
            if not data and not block:
                raise EOFError
            blocks.append(block)
            missing -= len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)
