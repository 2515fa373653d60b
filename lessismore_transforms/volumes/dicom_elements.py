"""Elements of a DICOM file by a walk over its first bytes, for files of the usual kind; None for all others.

The usual kind is: a preamble, meta elements, then elements in ascending order, uncompressed and little endian, with the
pixels last. The walk reads no value but those asked for. Whatever it does not expect makes it give up, so that another
reader judges.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lessismore_transforms.reduction.compiled import compiled

_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
        b"ST", b"TM", b"UI", b"UL", b"US",
    )
)  # fmt: skip
_KINDS = np.zeros((26, 26), np.uint8)  # of a type, by its two letters: 1 with a short length, 2 with a long one
for _number, _types in enumerate((_SHORT, _LONG), start=1):
    for _first, _second in _types:
        _KINDS[_first - ord("A"), _second - ord("A")] = _number
_PIXELS = 0x7FE00010
_SYNTAX = 0x00020010
_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEPTH = 9  # of sequences in sequences
_SHARED = 256  # bytes of a value that is kept for the next file


@dataclass(frozen=True, slots=True)
class Elements:
    """Values of some elements of a file, as bytes.

    Args:
        values: by tag.
        syntax: TransferSyntaxUID.
        pixels: where the value of PixelData begins, in bytes; -1 where the file has none.
        length: of that value in bytes.
        little: whether numbers are little endian.
    """

    values: dict[int, bytes]
    syntax: str
    pixels: int
    length: int
    little: bool = True

    def value(self, tag: int) -> bytes:
        """The bytes of an element; none where it is absent."""
        return self.values.get(tag, b"")

    def text(self, tag: int) -> str:
        """A text element; empty where it is absent."""
        return _text(self.value(tag))

    def whole(self, tag: int, default: int = 0) -> int:
        """A whole number of 16 bits; the default where it is absent."""
        value = self.value(tag)
        return int.from_bytes(value[:2], "little" if self.little else "big") if value else default

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The numbers of a text element.

        Raises:
            ValueError: one of them is no number.
        """
        return _numbers(self.value(tag))

    def number(self, tag: int) -> float:
        """The first number of an element that can be missing; 0 where it is absent or no number."""
        try:
            value = next(iter(self.numbers(tag)), 0.0)
        except ValueError:
            return 0.0
        return value if math.isfinite(value) else 0.0


def _text(value: bytes) -> str:
    return _short_text(value) if len(value) <= _SHARED else _stripped(value)


def _numbers(value: bytes) -> tuple[float, ...]:
    return _short_numbers(value) if len(value) <= _SHARED else _parsed(value)


def _stripped(value: bytes) -> str:
    return value.decode("latin-1").strip(" \0")


def _parsed(value: bytes) -> tuple[float, ...]:
    text = _stripped(value)
    return tuple(float(part) for part in text.split("\\")) if text else ()


# The slices of a series have most values in common; a damaged length may make one of megabytes, which is not kept.
_short_text = functools.lru_cache(maxsize=1024)(_stripped)
_short_numbers = functools.lru_cache(maxsize=1024)(_parsed)


def walk(data: bytes, wanted: npt.NDArray[np.int64]) -> Elements | None:
    """The elements in the first bytes of a file, up to its pixels; None where the file is not of the usual kind.

    Args:
        data: first bytes of the file, at least up to the value of PixelData.
        wanted: tags of the values to keep, ascending.
    """
    syntax, place = meta(data)
    if syntax not in (_EXPLICIT, _IMPLICIT):
        return None
    places = np.zeros((len(wanted), 2), np.int64)
    pixels, length = _walk(data, place, syntax == _IMPLICIT, wanted, places)
    if pixels < 0:
        return None
    found = zip(wanted.tolist(), places.tolist(), strict=True)
    return Elements({tag: data[first:stop] for tag, (first, stop) in found if first}, syntax, pixels, length)


def meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax and where the meta elements end; an empty one where they are not of the usual kind."""
    if data[128:132] != b"DICM":
        return "", 132
    first, stop, end = _meta(data)
    return _text(data[first:stop]), end


# A folder may hold half a million headers of a hundred elements. Nothing raises in these kernels: numba keeps what a
# kernel holds, such as the data, where an exception passes through it.
@compiled(boundscheck=True)
def _meta(data: bytes) -> tuple[int, int, int]:
    """Where the transfer syntax begins and ends, and where the meta elements end; zeros where something is odd."""
    place, first, stop = 132, 0, 0
    while place + 2 <= len(data) and _two(data, place) == 2:
        tag, length, value = _element(data, place, False)
        place = value + length
        if tag < 0 or place > len(data):
            return 0, 0, 0
        if tag == _SYNTAX:
            first, stop = value, place
    return first, stop, place


@compiled(boundscheck=True)
def _walk(
    data: bytes, place: int, implicit: bool, wanted: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
) -> tuple[int, int]:
    """Write where the wanted values begin and end; returns where that of PixelData begins, and its length.

    -1 and 0 where something is odd.
    """
    if place + 6 > len(data) or (implicit and _kind(data, place + 4)):  # the label is wrong
        return -1, 0
    before, number = 0x0002FFFF, 0
    while True:
        tag, length, value = _element(data, place, implicit)
        if tag <= before:
            return -1, 0
        before = tag
        if length == _UNDEFINED:
            if tag == _PIXELS:
                return -1, 0
            place = _skip_sequence(data, value, implicit)
            if place < 0:
                return -1, 0
            continue
        if tag == _PIXELS:
            return value, length
        place = value + length
        if place > len(data):
            return -1, 0
        while number < len(wanted) and wanted[number] < tag:
            number += 1
        if number < len(wanted) and wanted[number] == tag:
            places[number] = value, place


@compiled(boundscheck=True)
def _element(data: bytes, place: int, implicit: bool) -> tuple[int, int, int]:
    """Tag, length and place of the value of the element at `place`; a tag of -1 where it is odd or cut off."""
    if place + 8 > len(data):
        return -1, 0, 0
    if implicit:
        return _tag(data, place), _four(data, place + 4), place + 8
    tag, kind, length = _tag(data, place), _kind(data, place + 4), _two(data, place + 6)
    if kind == 1:
        return tag, length, place + 8
    if kind == 0 or length or place + 12 > len(data):
        return -1, 0, 0
    return tag, _four(data, place + 8), place + 12


@compiled(boundscheck=True)
def _skip_sequence(data: bytes, place: int, implicit: bool) -> int:
    """Where a sequence of undefined length ends; -1 where something is odd."""
    depth = 1  # odd in a sequence, even in an item of undefined length in it
    while depth:
        if depth > 2 * _DEPTH or place + 8 > len(data):
            return -1
        tag, length = _tag(data, place), _four(data, place + 4)
        if depth % 2:
            place += 8
            if tag == _SEQUENCE_END:
                depth -= 1
            elif tag != _ITEM:
                return -1
            elif length == _UNDEFINED:
                depth += 1
            else:
                place += length
        elif tag == _ITEM_END:
            place += 8
            depth -= 1
        else:
            tag, length, place = _element(data, place, implicit)
            if tag < 0:
                return -1
            if length == _UNDEFINED:
                depth += 1
            else:
                place += length
    return place


@compiled(boundscheck=True)
def _kind(data: bytes, place: int) -> int:
    """What `_KINDS` says of the type whose letters stand at `place`; 0 where there are no such letters."""
    first, second = int(data[place]) - 65, int(data[place + 1]) - 65
    return int(_KINDS[first, second]) if 0 <= first < 26 and 0 <= second < 26 else 0


@compiled(boundscheck=True)
def _tag(data: bytes, place: int) -> int:
    return int(_two(data, place) << 16 | _two(data, place + 2))


@compiled(boundscheck=True)
def _four(data: bytes, place: int) -> int:
    return int(_two(data, place) | _two(data, place + 2) << 16)


@compiled(boundscheck=True)
def _two(data: bytes, place: int) -> int:
    return int(np.int64(data[place]) | np.int64(data[place + 1]) << 8)  # signed: numba adds unsigned ones as floats
