"""Elements of a DICOM file by a walk over its first bytes, for files of the usual kind; None for all others.

The usual kind is: a preamble, meta elements, then elements in ascending order, uncompressed and little endian, with the
pixels last. The walk reads no value but those asked for. Whatever it does not expect makes it give up, so that another
reader judges.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
        b"ST", b"TM", b"UI", b"UL", b"US",
    )
)  # fmt: skip
_PIXELS = (0x7FE0, 0x0010)
_TAG_LENGTH = struct.Struct("<HHI").unpack_from
_TAG_TYPE_LENGTH = struct.Struct("<HH2sH").unpack_from
_LENGTH = struct.Struct("<I").unpack_from
_SYNTAX = 0x00020010
_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEPTH = 8  # of sequences in sequences


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
        return self.value(tag).decode("latin-1").strip(" \0")

    def whole(self, tag: int, default: int = 0) -> int:
        """A whole number of 16 bits; the default where it is absent."""
        value = self.value(tag)
        return int.from_bytes(value[:2], "little" if self.little else "big") if value else default

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The numbers of a text element.

        Raises:
            ValueError: one of them is no number.
        """
        text = self.text(tag)
        return tuple(float(part) for part in text.split("\\")) if text else ()

    def number(self, tag: int) -> float:
        """The first number of an element that can be missing; 0 where it is absent or no number."""
        try:
            value = next(iter(self.numbers(tag)), 0.0)
        except ValueError:
            return 0.0
        return value if math.isfinite(value) else 0.0


class _OddError(Exception):
    """Something that the walk does not expect."""


def walk(data: bytes, wanted: frozenset[int]) -> Elements | None:
    """The elements in the first bytes of a file, up to its pixels; None where the file is not of the usual kind.

    Args:
        data: first bytes of the file, at least up to the value of PixelData.
        wanted: tags of the values to keep.
    """
    if data[128:132] != b"DICM":
        return None
    try:
        return _walk(data, {(tag >> 16, tag & 0xFFFF) for tag in wanted})
    except (_OddError, struct.error):
        return None


def meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax and where the meta elements end; an empty one where they are not of the usual kind."""
    place, syntax = 132, ""
    try:
        while data[128:132] == b"DICM" and data[place : place + 2] == b"\x02\x00":
            tag, length, value = _element(data, place, implicit=False)
            place = value + length
            if place > len(data):
                return "", 0
            if tag == _SYNTAX:
                syntax = data[value:place].decode("latin-1").strip(" \0")
    except (_OddError, struct.error):
        return "", 0
    return syntax, place


def _walk(data: bytes, wanted: set[tuple[int, int]]) -> Elements:
    syntax, place = meta(data)
    if syntax not in (_EXPLICIT, _IMPLICIT):
        raise _OddError
    implicit = syntax == _IMPLICIT
    if implicit and data[place + 4 : place + 6] in _SHORT | _LONG:  # the label is wrong
        raise _OddError
    values: dict[int, bytes] = {}
    before, end = (2, 0xFFFF), len(data)
    while True:
        # Written out as far as possible: a folder may hold half a million headers of a hundred elements.
        if implicit:
            group, element, length = _TAG_LENGTH(data, place)
            value = place + 8
        else:
            group, element, kind, length = _TAG_TYPE_LENGTH(data, place)
            value = place + 8
            if kind not in _SHORT:
                if kind not in _LONG or length:
                    raise _OddError
                (length,) = _LENGTH(data, value)
                value += 4
        if (group, element) <= before:
            raise _OddError
        before = (group, element)
        if length == _UNDEFINED:
            if before == _PIXELS:
                raise _OddError
            place = _skip_sequence(data, value, implicit, 0)
            continue
        if before == _PIXELS:
            return Elements(values, syntax, value, length)
        place = value + length
        if place > end:
            raise _OddError
        if before in wanted:
            values[group << 16 | element] = data[value:place]


def _element(data: bytes, place: int, implicit: bool) -> tuple[int, int, int]:
    """Tag, length and place of the value of the element that begins at `place`."""
    if implicit:
        group, element, length = _TAG_LENGTH(data, place)
        return group << 16 | element, length, place + 8
    group, element, kind, length = _TAG_TYPE_LENGTH(data, place)
    if kind in _SHORT:
        return group << 16 | element, length, place + 8
    if kind not in _LONG or length:
        raise _OddError
    (length,) = _LENGTH(data, place + 8)
    return group << 16 | element, length, place + 12


def _skip_sequence(data: bytes, place: int, implicit: bool, depth: int) -> int:
    """Where a sequence of undefined length ends."""
    if depth > _DEPTH:
        raise _OddError
    while True:
        tag, length = _item(data, place)
        place += 8
        if tag == _SEQUENCE_END:
            return place
        if tag != _ITEM:
            raise _OddError
        place = _skip_item(data, place, implicit, depth) if length == _UNDEFINED else place + length


def _skip_item(data: bytes, place: int, implicit: bool, depth: int) -> int:
    """Where an item of undefined length ends."""
    while _item(data, place)[0] != _ITEM_END:
        _, length, value = _element(data, place, implicit)
        place = _skip_sequence(data, value, implicit, depth + 1) if length == _UNDEFINED else value + length
    return place + 8


def _item(data: bytes, place: int) -> tuple[int, int]:
    group, element, length = _TAG_LENGTH(data, place)
    return group << 16 | element, length
