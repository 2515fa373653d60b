"""Where the voxels of an NRRD or MetaImage file are: read from its header, which is text.

ITK reads such voxels too, but where compressed ones are damaged it returns what its buffer held before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.volumes.voxel_stream import Encoding

_HEADER_BYTES = 1 << 20  # of text at most
_MOST_DIGITS = 19  # of 64 bits
_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), "i8"),
    **dict.fromkeys(("int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_NRRD_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw", "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where the voxels are.

    Args:
        data: the file that holds them, relative to the data set's root (posix).
        offset: bytes before the voxels in the data file; -1 where they end with the file.
        encoding: how they are packed.
        dtype: type of a stored voxel, with its byte order.
        shape: of the stored grid (columns, rows, slices).
    """

    data: str
    offset: int
    encoding: Encoding
    dtype: str
    shape: tuple[int, ...]


def read_place(path: str, root: Path) -> Place:
    """Where the voxels of the file `path` below `root` are.

    Raises:
        VolumeError: the header is damaged, or says something that is not read here; the sentence has no file name.
        OSError: the file cannot be opened.
    """
    with (root / path).open("rb") as file:
        start = file.read(_HEADER_BYTES)
    try:
        return _nrrd(path, start) if start.startswith(b"NRRD") else _meta(path, start)
    except (KeyError, ValueError) as error:
        if isinstance(error, VolumeError):
            raise
        raise VolumeError("damaged header: no NRRD or MetaImage that can be read; copy it again") from error


def _meta(path: str, start: bytes) -> Place:
    end = re.search(rb"(?m)^ElementDataFile[ \t]*[=:][^\n]*(\n|\Z)", start)
    if end is None:
        raise ValueError
    lines = start[: end.end()].decode("latin-1").splitlines()
    pairs = (re.split("[=:]", line, maxsplit=1) for line in lines)
    fields = {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}
    if fields.get("BinaryData", "True")[:1] not in "Tt1":
        raise VolumeError("voxels written as text are not read: write it with BinaryData = True")
    if fields["ElementType"] not in _META_TYPES:
        raise VolumeError("voxels of a type that is not read: write whole numbers or floating-point numbers")
    order = next((fields[key] for key in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB") if key in fields), "False")
    name = fields["ElementDataFile"]
    local = name.upper() == "LOCAL"
    skipped = _number(fields.get("HeaderSize", "0"))
    packed = fields.get("CompressedData", "False")[:1] in ("T", "t", "1")
    if skipped < -1 or (packed and skipped):
        raise VolumeError("a HeaderSize before compressed voxels is not read: write it anew without one")
    return Place(
        data=path if local else _beside(path, name),
        offset=skipped if skipped or not local else end.end(),
        encoding="zlib" if packed else "raw",
        dtype=(">" if order[:1] in ("T", "t", "1") else "<") + _META_TYPES[fields["ElementType"]],
        shape=tuple(map(_number, fields["DimSize"].split())),
    )


def _nrrd(path: str, start: bytes) -> Place:
    end = re.search(rb"\r?\n\r?\n", start)
    length = end.end() if end else len(start)
    fields: dict[str, str] = {}
    for line in start[:length].decode("latin-1").splitlines()[1:]:
        key, colon, value = line.partition(": ")
        if colon and not key.startswith("#"):
            fields[key.strip().lower().replace(" ", "")] = value.strip()
    encoding = fields["encoding"].lower()
    if encoding not in _NRRD_ENCODINGS:
        raise VolumeError("only the encodings raw, gzip and bzip2 are read: write it with one of these")
    kind = fields["type"].lower()
    if kind not in _NRRD_TYPES:
        raise VolumeError("voxels of a type that is not read: write whole numbers or floating-point numbers")
    name = fields.get("datafile")
    skip = _number(fields.get("byteskip", "0"))
    if _number(fields.get("lineskip", "0")) or skip < -1 or (skip and encoding != "raw"):
        raise VolumeError("a line skip, or a byte skip before packed voxels, is not read: write it anew without one")
    if name is None and end is None:
        raise ValueError
    dtype = _NRRD_TYPES[kind]
    order = "<" if dtype[1] == "1" else {"little": "<", "big": ">"}[fields["endian"].lower()]
    return Place(
        data=path if name is None else _beside(path, name),
        offset=skip if skip < 0 else skip + (length if name is None else 0),
        encoding=_NRRD_ENCODINGS[encoding],
        dtype=order + dtype,
        shape=tuple(map(_number, fields["sizes"].split())),
    )


def _number(text: str) -> int:
    """A whole number that a file can mean: none is of hundreds of digits."""
    if len(text) > _MOST_DIGITS:
        raise ValueError
    return int(text)


def _beside(path: str, name: str) -> str:
    """The data file's path below the root, from its name in the header of `path`."""
    words = name.split()
    if name.split(" ")[0].upper() == "LIST" or "%" in name or not words:
        raise VolumeError("voxels spread over several files are not read: write them into one file")
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or not name.isprintable() or "\\" in name or ":" in name:
        raise VolumeError(
            "its voxels are said to be in a file elsewhere: the name in the header has to be that of a file beside it, "
            "or in a folder below"
        )
    return str(PurePosixPath(path).parent / inside)
