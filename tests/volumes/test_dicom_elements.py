"""The walk through the first bytes of a file keeps nothing of a file that is odd."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from lessismore_transforms.volumes import dicom_elements
from lessismore_transforms.volumes.dicom_elements import walk

META = b"\0" * 128 + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, kind, len(value)) + value


def sequence(items: bytes) -> bytes:
    return struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + items


def test_what_is_cut_off_or_odd_is_left_to_another_reader() -> None:
    name = element(0x0008, 0x0060, b"CS", b"CT")
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 8)
    wanted = np.array([0x00080060], np.int64)
    found = walk(META + name + pixels + b"\0" * 8, wanted)
    assert found is not None
    assert (found.text(0x00080060), found.pixels, found.length) == ("CT", len(META + name + pixels), 8)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert walk(META + name + sequence(end) + pixels, wanted) is not None
    for odd in (
        b"", b"\x08", name[:5], name[:-1], name + pixels[:11], name + sequence(b""), name + sequence(end[:-1]),
        name + sequence(b"\x01" * 40), name + b"\x08\x00\x05\x00zz" + b"\0" * 20, name + name + pixels,
    ):  # fmt: skip
        assert walk(META + odd, wanted) is None, odd


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow_by_odd_headers_or_long_values() -> None:
    wanted = np.array([0x00080008], np.int64)
    odd = META + sequence(b"\x01" * 60_000)
    assert walk(odd, wanted) is None
    before = resident()
    for _ in range(2000):  # 120 MB
        assert walk(odd + b"", wanted) is None
    for number in range(200):  # 100 MB
        dicom_elements._text(b"%d" % number * 100_000)
    assert resident() - before < 20_000_000
