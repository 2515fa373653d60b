"""The fast reader of plain PNG files gives Pillow's pixels, or leaves the file to Pillow."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from lessismore_transforms.volumes.png import read_grey_png

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 8), (64, 65), (101, 122), (256, 256), (512, 512), (3, 2000), (2000, 3)]
STRATEGIES = [
    cv2.IMWRITE_PNG_STRATEGY_DEFAULT,
    cv2.IMWRITE_PNG_STRATEGY_FILTERED,
    cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_STRATEGY_FIXED,
]


def picture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth on the left, noisy on the right: encoders choose different filters for the two."""
    rng = np.random.default_rng([*shape, seed])
    rows, columns = np.indices(shape)
    smooth = 100 + 80 * np.sin(rows / 9) * np.cos(columns / 7)
    noise = rng.integers(0, 256, shape)
    return np.where(rng.random(shape) < columns / max(shape[1], 2), noise, smooth).astype(np.uint8)


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        return np.asarray(image)


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def hand_made(
    rows: bytes, width: int, height: int, *, kind: tuple[int, ...] = (8, 0, 0, 0, 0), extra: bytes = b""
) -> bytes:
    """A PNG of filtered rows as they are; `extra` chunks stand before the picture data."""
    header = struct.pack(">2I5B", width, height, *kind)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def filtered(image: np.ndarray, kinds: np.ndarray) -> bytes:
    """The rows of an image with filter `kinds[row]`, straight from the standard's table 9.1."""
    padded = np.pad(image.astype(int), ((1, 0), (1, 0)))
    rows = b""
    for y, kind in enumerate(kinds.tolist(), start=1):
        row = []
        for x in range(1, padded.shape[1]):
            a, b, c = padded[y, x - 1], padded[y - 1, x], padded[y - 1, x - 1]
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row.append((padded[y, x] - (0, a, b, (a + b) // 2, paeth)[kind]) % 256)
        rows += bytes([kind, *row])
    return rows


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_pictures_saved_by_pillow(shape, level) -> None:
    image = picture(shape)
    np.testing.assert_array_equal(read_grey_png(saved(Image.fromarray(image), compress_level=level)), image)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pictures_saved_by_opencv(shape, strategy) -> None:
    image = picture(shape)
    for level in (0, 1, 3, 9):
        options = [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_STRATEGY, strategy]
        for more in ([], [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]):
            done, data = cv2.imencode(".png", image, options + more)
            assert done
            np.testing.assert_array_equal(read_grey_png(data.tobytes()), image)


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 23), (40, 40)])
def test_each_filter(kind, shape) -> None:
    image = picture(shape, kind)
    data = hand_made(filtered(image, np.full(shape[0], kind)), shape[1], shape[0])
    np.testing.assert_array_equal(by_pillow(data), image)  # the encoder above is right
    np.testing.assert_array_equal(read_grey_png(data), image)


def test_filters_that_change_from_row_to_row() -> None:
    for seed in range(20):
        image = picture((30, 31), seed)
        kinds = np.random.default_rng(seed).integers(0, 5, 30)
        np.testing.assert_array_equal(read_grey_png(hand_made(filtered(image, kinds), 31, 30)), image)


def test_the_result_can_be_written_and_is_contiguous() -> None:
    image = read_grey_png(saved(Image.fromarray(picture((8, 9)))))
    assert image is not None
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_chunks_that_do_not_touch_the_pixels_are_passed_over() -> None:
    image = picture((10, 12))
    extra = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"tRNS", b"\0\x05") + chunk(b"tEXt", b"Title\0slice")
    data = hand_made(filtered(image, np.ones(10, int)), 12, 10, extra=extra)
    np.testing.assert_array_equal(by_pillow(data), image)
    np.testing.assert_array_equal(read_grey_png(data), image)
    np.testing.assert_array_equal(read_grey_png(data + b"behind the end"), image)


def test_picture_data_in_many_chunks() -> None:
    image = picture((20, 20))
    whole = zlib.compress(filtered(image, np.full(20, 4)))
    pieces = b"".join(chunk(b"IDAT", whole[i : i + 7]) for i in range(0, len(whole), 7)) + chunk(b"IDAT", b"")
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 20, 20, 8, 0, 0, 0, 0)) + pieces
    np.testing.assert_array_equal(read_grey_png(data + chunk(b"IEND", b"")), image)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(picture((9, 9))).convert("RGB"),
        Image.fromarray(picture((9, 9))).convert("RGBA"),
        Image.fromarray(picture((9, 9))).convert("LA"),
        Image.fromarray(picture((9, 9))).convert("P"),
        Image.fromarray(picture((9, 9))).convert("1"),
        Image.fromarray(picture((9, 9)).astype(np.uint16) * 256),
    ],
    ids=lambda image: image.mode,
)
def test_other_kinds_of_png_are_left_to_pillow(image) -> None:
    assert read_grey_png(saved(image)) is None


def test_grey_of_few_bits_interlaced_or_animated_is_left_to_pillow() -> None:
    rows = filtered(picture((4, 8)), np.zeros(4, int))
    for kind in ((4, 0, 0, 0, 0), (8, 0, 0, 0, 1), (8, 0, 1, 0, 0), (8, 0, 0, 1, 0), (8, 3, 0, 0, 0)):
        assert read_grey_png(hand_made(rows, 8, 4, kind=kind)) is None
    assert read_grey_png(hand_made(rows, 8, 4, extra=chunk(b"acTL", struct.pack(">2I", 1, 0)))) is None
    assert read_grey_png(hand_made(rows, 8, 4, extra=chunk(b"PLTE", bytes(3)))) is None
    assert read_grey_png(hand_made(rows, 8, 4, extra=chunk(b"XxXX", b""))) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0 a JPEG",
        hand_made(bytes(4 * 9), 0, 4),
        hand_made(bytes(4 * 9), 8, 0),
        hand_made(bytes(4 * 9), 8, 5),  # too few rows
        hand_made(bytes(4 * 9), 8, 3),  # too many
        hand_made(bytes([5, *bytes(8)]) * 4, 8, 4),  # a filter that does not exist
        hand_made(bytes(9), 2**31, 2**31),  # nothing is allocated for it
        hand_made(bytes(10**6), 8, 4),  # nor is a bomb inflated
    ],
    ids=str,
)
def test_what_is_no_plain_png_is_none(data) -> None:
    assert read_grey_png(data) is None


def test_a_damaged_file_is_none() -> None:
    whole = saved(Image.fromarray(picture((20, 21))))
    for stop in range(len(whole)):
        assert read_grey_png(whole[:stop]) is None
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        assert read_grey_png(bytes(damaged)) is None, place


def test_a_wrong_checksum_of_the_inflated_rows_is_none() -> None:
    rows = filtered(picture((4, 8)), np.zeros(4, int))
    packed = bytearray(zlib.compress(rows))
    packed[-1] ^= 1
    header = chunk(b"IHDR", struct.pack(">2I5B", 8, 4, 8, 0, 0, 0, 0))
    assert read_grey_png(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", bytes(packed)) + chunk(b"IEND", b"")) is None


def test_real_pictures(real_data) -> None:
    plain = 0
    paths = [
        *sorted((real_data / "head_ct_hemorrhage").rglob("*.png")),
        *sorted((real_data / "covid_ct").rglob("*.png")),
    ]
    for path in paths:
        data = path.read_bytes()
        with Image.open(path) as image:
            found = read_grey_png(data)
            if image.format == "PNG" and image.mode == "L":
                np.testing.assert_array_equal(found, np.asarray(image), err_msg=path.name)
                plain += 1
            else:
                assert found is None, path.name
    assert plain > 100
