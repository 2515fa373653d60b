from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from lessismore_transforms.phantom import phantom_scan
from lessismore_transforms.reduction.foreground import NO_BODY, foreground_share
from lessismore_transforms.volumes import find_volumes, read_slices

Picture = NDArray[np.generic]
Spacing = tuple[float, float]


# The slow, obvious way


def share_by_scipy(hu: Picture, spacing_mm: Spacing) -> float:
    if np.ptp(hu) == 0:
        return 0.0
    steps = [max(1, round(4 / mm)) for mm in spacing_mm]
    solid = np.array(
        [
            [np.mean(hu[y : y + steps[0], x : x + steps[1]] > -500) > 0.5 for x in range(0, hu.shape[1], steps[1])]
            for y in range(0, hu.shape[0], steps[0])
        ]
    )

    def opened(side_mm: float) -> NDArray[np.bool_]:
        sides = [max(1, round(side_mm / (step * mm))) for step, mm in zip(steps, spacing_mm, strict=True)]
        return ndimage.binary_opening(solid, np.ones(np.minimum(sides, solid.shape)))

    return float(ndimage.binary_fill_holes(ndimage.binary_propagation(opened(28), mask=opened(12))).mean())


def without_body(hu: Picture, spacing_mm: Spacing) -> Picture:
    """A slice whose largest thick piece, with everything between its ends and some mm around, became air."""
    pieces, _ = ndimage.label(ndimage.binary_opening(hu > -400, iterations=max(1, round(6 / spacing_mm[1]))))
    body = convex_hull_image(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:]))
    around = ndimage.binary_dilation(body, iterations=max(1, round(10 / spacing_mm[1])))
    air = np.random.default_rng(0).normal(-1000, 20, hu.shape)
    return np.where(around, air, hu).astype(np.int16)


def real_slices(folder: Path, step: int = 1) -> Iterator[tuple[str, Picture, Spacing]]:
    for volume in find_volumes(folder / "ct", include=(), patterns=(), stored=False).volumes:
        if "phantom" not in volume.path:  # that one is no HU
            for piece in read_slices(volume, folder / "ct"):
                if piece.index % step == 0:
                    yield volume.path, piece.hu, volume.spacing_mm[1:]


def disc(size: int, spacing_mm: float, diameter_mm: float, hu: float = 40.0) -> Picture:
    """A disc in the middle of noisy air."""
    place = (np.arange(size) - (size - 1) / 2) * spacing_mm
    inside = np.hypot(place, place[:, None]) < diameter_mm / 2
    return np.where(inside, hu, -1000.0) + np.random.default_rng(1).normal(0, 60, (size, size))


# Real slices and phantoms


def test_every_real_slice_has_body(real_data: Path) -> None:
    shares = [foreground_share(hu, spacing) for _, hu, spacing in real_slices(real_data)]
    assert len(shares) == 305
    assert 0.25 < min(shares) < max(shares) < 0.70


def test_the_table_of_real_slices_is_no_body(real_data: Path) -> None:
    seen = set()
    for path, hu, spacing in real_slices(real_data, step=6):
        empty = without_body(hu, spacing)
        seen.add(path)
        assert np.mean(empty > -500) > 0.001  # there is a table
        assert foreground_share(empty, spacing) == 0
    assert len(seen) == 4


@pytest.mark.parametrize("size", [64, 256])
def test_phantoms_with_and_without_body(size: int) -> None:
    for seed in range(3):
        scan = phantom_scan(seed, slices=6, size=size)
        spacing = scan.spacing_mm[1:]
        for hu in scan.hu:
            assert foreground_share(hu, spacing) > 0.3
            assert foreground_share(without_body(hu, spacing), spacing) == 0


def test_lungs_count_where_the_chest_wall_encloses_them() -> None:
    scan = phantom_scan(0, slices=12, size=256)
    hu = scan.hu[scan.region.index("chest") + 1]
    solid = float(np.mean(hu > -500))
    assert foreground_share(hu, scan.spacing_mm[1:]) > 1.3 * solid
    opened = hu.copy()
    opened[: len(hu) // 2, 120:136] = -1000  # a slit through the chest wall lets the air in
    assert foreground_share(opened, scan.spacing_mm[1:]) < 1.1 * solid


# Slices made by hand


@pytest.mark.parametrize("value", [-3024, -1000, 0, 40])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_a_blank_slice_has_no_body_whatever_its_value(value: int, dtype: type) -> None:
    assert foreground_share(np.full((512, 512), value, dtype), (0.8, 0.8)) == 0


def test_noisy_air_with_padding_has_no_body() -> None:
    hu = np.random.default_rng(0).normal(-1000, 150, (512, 512)).astype(np.int16)
    hu[np.hypot(*np.indices(hu.shape) - 255.5) > 256] = -3024
    assert foreground_share(hu, (0.8, 0.8)) == 0


def test_a_square_has_the_share_of_its_cells() -> None:
    hu = np.full((400, 400), -1000, np.int16)
    hu[100:140, 200:300] = 50  # 10 by 25 cells of the 100 by 100
    assert foreground_share(hu, (1.0, 1.0)) == pytest.approx(0.025)
    hu[104:136, 204:296] = -900  # hollow: its walls of 4 mm are a shell
    assert foreground_share(hu, (1.0, 1.0)) == 0


def test_rows_and_columns_have_their_own_spacing() -> None:
    hu = np.full((100, 400), -1000, np.int16)
    hu[40:60, 100:180] = 50
    assert foreground_share(hu, (4.0, 1.0)) == pytest.approx(0.04)
    assert foreground_share(hu, (1.0, 4.0)) == 0  # 20 mm high


@pytest.mark.parametrize("field_mm", [200, 500, 780])
def test_a_limb_of_48_mm_is_body_and_a_tube_of_25_mm_is_not(field_mm: float) -> None:
    spacing = field_mm / 512
    limb = foreground_share(disc(512, spacing, 48), (spacing, spacing))
    assert limb > 1.5 * NO_BODY
    assert limb == pytest.approx(np.pi * 24**2 / field_mm**2, rel=0.1)
    assert foreground_share(disc(512, spacing, 25), (spacing, spacing)) == 0


def test_pictures_without_hu_count_as_body() -> None:
    rng = np.random.default_rng(0)
    assert foreground_share(rng.integers(0, 256, (175, 248)).astype(np.int16), (0.8, 0.8)) == 1


def test_mirrored_and_transposed_slices_have_the_same_share() -> None:
    scan = phantom_scan(1, slices=3, size=192)  # 192 pixels are whole cells
    hu, spacing = scan.hu[1], (1.0, 2.0)
    share = foreground_share(hu, spacing)
    assert share == foreground_share(hu[::-1, ::-1], spacing)
    assert share == foreground_share(hu.T, spacing[::-1])
    assert share == foreground_share(hu.astype(np.float32), spacing)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90), st.sampled_from([0.7, 1.5, 4.0, 11.0]))
def test_shares_equal_those_of_scipy(seed: int, height: int, width: int, spacing_mm: float) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(height, width)), rng.uniform(0, 8))
    hu = np.where(smooth > np.quantile(smooth, rng.uniform(0, 1)), 40, -1000).astype(np.int16)
    spacing = (spacing_mm, spacing_mm * float(rng.choice([1.0, 2.0])))
    assert foreground_share(hu, spacing) == pytest.approx(share_by_scipy(hu, spacing), abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "spacing", "words"),
    [
        ((3, 8, 8), (1.0, 1.0), "one slice (rows, columns), found shape (3, 8, 8)"),
        ((0, 8), (1.0, 1.0), "found shape (0, 8)"),
        ((8, 8), (0.0, 1.0), "above 0, found (0.0, 1.0)"),
        ((8, 8), (1.0, float("nan")), "above 0, found (1.0, nan)"),
    ],
)
def test_what_is_no_slice_is_refused(shape: tuple[int, ...], spacing: Spacing, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        foreground_share(np.zeros(shape, np.int16), spacing)
