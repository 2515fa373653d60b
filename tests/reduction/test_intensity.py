from __future__ import annotations

import cv2
import nibabel
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lessismore_transforms.reduction.intensity import (
    WINDOWS,
    Window,
    min_max_uint8,
    parse_windows,
    released_hu,
    window_uint8,
)

DTYPES = ["uint8", "int16", "uint16", "int32", "float32", "float64"]
LAYOUTS = {
    "as stored": lambda x: x,
    "flipped": lambda x: x[..., ::-1, ::-1],
    "flipped up": lambda x: x[..., ::-1, :],
    "transposed": lambda x: x.swapaxes(-1, -2),
    "every second": lambda x: x[..., ::2],
    "all reversed": lambda x: x[::-1, ::-1] if x.ndim == 2 else x[::-1, ::-1, ::-1],
}


def through_opencv(scaled):
    """What is in the PNG that cv2 writes of a float64 picture."""
    return cv2.imdecode(cv2.imencode(".png", scaled)[1], cv2.IMREAD_UNCHANGED)


def released_picture(slice_hu, lower=None, epsilon=0.0):
    x = slice_hu.astype(np.float64)
    if lower is not None:
        x = np.maximum(x, lower)
    if x.max() == x.min():
        return np.zeros(x.shape, np.uint8)
    return through_opencv(255 * (x - x.min()) / ((x.max() - x.min()) + epsilon))


def voxels(dtype, shape, spread, seed):
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return (rng.normal(0, 1, shape) * spread).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -spread), min(limits.max, spread)
    return rng.integers(low, high, shape, dtype, endpoint=True)


def test_rounds_half_to_even_over_the_range_of_each_slice():
    hu = np.array([[[0, 1, 3, 5, 510]], [[-100, -100, -99, 410, 410]]], np.int16)
    assert min_max_uint8(hu).tolist() == [[[0, 0, 2, 2, 255]], [[0, 0, 0, 255, 255]]]


def test_epsilon_moves_a_tie():
    hu = np.array([[0, 3, 510]], np.int16)
    assert min_max_uint8(hu, epsilon=1e-5).tolist() == [[0, 1, 255]]


def in_whole_numbers(extent):
    """What each of 0..extent becomes, by whole numbers only: 255 * x / extent, half to even."""
    x = np.arange(extent + 1)
    whole, rest = np.divmod(255 * x, extent)
    return whole + (2 * rest > extent) + ((2 * rest == extent) & (whole % 2 == 1))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32"])
@pytest.mark.parametrize("extents", [range(1, 4100, 3), range(2**16 - 40, 2**16 + 3), range(510, 2**16, 6 * 510)])
def test_every_grey_value_of_a_range_is_that_of_whole_numbers(dtype, extents):
    first = -(2**15) if dtype == "int16" else 0
    for extent in extents:
        if extent <= np.iinfo(dtype).max - first:
            hu = np.arange(first, first + extent + 1, dtype=np.int64).astype(dtype)[None]
            np.testing.assert_array_equal(min_max_uint8(hu)[0], in_whole_numbers(extent))


def test_lower_makes_padding_as_dark_as_air():
    hu = np.array([[-3024, -1024, -514, -4]], np.int16)
    assert min_max_uint8(hu, lower=-1024).tolist() == [[0, 0, 128, 255]]
    assert min_max_uint8(hu)[0, 1] == 169


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.tuples(st.integers(0, 3), st.integers(1, 20), st.integers(1, 20)),
    ),
    spread=st.sampled_from([0, 1, 3, 255, 510, 2000, 2**16, 2**17, 2**30]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    whole=st.booleans(),
    lower=st.sampled_from([None, -1024.0, 0.0, -0.3, 50.5]),
    epsilon=st.sampled_from([0.0, 1e-5]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=400, deadline=None)
@example("int32", (20, 20), 2**30, "flipped", True, None, 0.0, 0)
@example("float32", (20, 20), 2000, "flipped", False, None, 1e-5, 0)
def test_equals_float64_and_opencv(dtype, shape, spread, layout, whole, lower, epsilon, seed):
    hu = voxels(dtype, shape, spread, seed)
    if whole:
        hu = np.rint(hu).astype(dtype)
    hu = LAYOUTS[layout](hu)
    before = hu.copy()
    hu.flags.writeable = False
    result = min_max_uint8(hu, lower=lower, epsilon=epsilon)
    slices = hu if hu.ndim == 3 else hu[None]
    expected = [released_picture(x, lower, epsilon) for x in slices]
    np.testing.assert_array_equal(result.reshape(slices.shape), np.array(expected, np.uint8).reshape(slices.shape))
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(hu, before)


def test_one_fractional_voxel_late_in_the_slice_takes_the_exact_route():
    hu = np.arange(-1000, 1500, dtype=np.float32).reshape(50, 50)
    hu[-1, -2] = 4.9
    assert min_max_uint8(hu)[-1, -2] == 103  # 102.54; 4 would be 102.45
    np.testing.assert_array_equal(min_max_uint8(hu), released_picture(hu))


@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes_of_the_type(dtype):
    limits = np.iinfo(dtype) if not dtype.startswith("float") else np.finfo("float32")
    hu = np.array([[limits.min, 0, 1, limits.max]], dtype)
    np.testing.assert_array_equal(min_max_uint8(hu), released_picture(hu))


def test_constant_slice_is_black():
    hu = np.stack([np.full((4, 5), -1000), np.full((4, 5), 7), np.arange(20).reshape(4, 5)]).astype(np.int16)
    result = min_max_uint8(hu)
    assert not result[:2].any()
    assert result[2].max() == 255
    assert not min_max_uint8(hu, epsilon=1e-5)[:2].any()
    with np.errstate(all="raise"):
        assert not min_max_uint8(hu, lower=30).any()


def test_an_offset_in_hu_changes_nothing():
    hu = voxels("int32", (3, 30, 20), 1500, seed=1)
    np.testing.assert_array_equal(min_max_uint8(hu), min_max_uint8(hu - 1024))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", [min_max_uint8, lambda hu: window_uint8(hu, WINDOWS["lung"])])
def test_refuses_what_is_not_finite(value, scale):
    hu = np.zeros((2, 3, 4), np.float32)
    hu[1, 2, 3] = value
    with pytest.raises(ValueError, match="expected finite HU"):
        scale(hu)


@pytest.mark.parametrize(
    "hu",
    [np.zeros(3, np.int16), np.zeros((1, 1, 2, 2), np.int16), np.zeros((0, 4), np.int16), np.zeros((2, 2), bool)],
)
def test_refuses_other_shapes_and_types(hu):
    with pytest.raises(ValueError, match=r"expected slices \(H, W\) or \(S, H, W\)"):
        min_max_uint8(hu)


def test_refuses_swapped_bytes():
    with pytest.raises(ValueError, match="found >i2"):
        min_max_uint8(np.zeros((2, 2), ">i2"))


def test_window_runs_from_black_to_white():
    hu = np.array([[-3024, -160, -159, 40, 239, 240, 3000]], np.int16)
    # 255 * (1 / 400) = 0.64; the level is 127.5, a tie that goes to the even 128
    assert window_uint8(hu, Window(40, 400)).tolist() == [[0, 0, 1, 128, 254, 255, 255]]


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
@pytest.mark.parametrize("name", sorted(WINDOWS))
def test_window_equals_float64_and_opencv(dtype, name):
    hu = LAYOUTS["flipped"](voxels(dtype, (2, 30, 40), 2000, seed=3))
    window = WINDOWS[name]
    lowest = window.level - window.width / 2
    expected = [through_opencv(255 * (x.astype(np.float64) - lowest) / window.width) for x in hu]
    np.testing.assert_array_equal(window_uint8(hu, window), expected)


def test_window_of_a_constant_slice_keeps_its_grey():
    assert window_uint8(np.full((2, 2), 40, np.int16), WINDOWS["chest"]).tolist() == [[128, 128], [128, 128]]


def test_window_presets_are_the_released_ones():
    assert {name: (window.level, window.width) for name, window in WINDOWS.items()} == {
        "abdomen": (60, 400),
        "angio": (300, 600),
        "bone": (300, 1500),
        "brain": (40, 80),
        "chest": (40, 400),
        "lung": (-400, 1500),
    }


def test_window_by_name_and_by_numbers():
    assert Window.parse("lung") == Window(-400, 1500)
    assert Window.parse("-400/1500") == Window(-400, 1500)
    assert Window.parse("35.5/80") == Window(35.5, 80)


@pytest.mark.parametrize("text", ["lungs", "40", "40/", "40/80/2", "a/b", ""])
def test_window_says_what_it_knows(text):
    with pytest.raises(ValueError, match="abdomen, angio, bone, brain, chest, lung"):
        Window.parse(text)


def test_one_window_or_three():
    assert parse_windows("lung") == (WINDOWS["lung"],)
    assert parse_windows("bone + 40/80+-400/1500") == (WINDOWS["bone"], Window(40, 80), Window(-400, 1500))
    for text in ("lung+bone", "lung+bone+brain+chest"):
        with pytest.raises(ValueError, match=f"found {text.count('+') + 1} windows in"):
            parse_windows(text)
    with pytest.raises(ValueError, match=r"one of abdomen, .*, found 'soft'"):
        parse_windows("lung+soft+bone")


@pytest.mark.parametrize("text", ["40/0", "40/-400", "nan/400", "40/inf"])
def test_window_needs_a_width(text):
    with pytest.raises(ValueError, match="width above 0"):
        Window.parse(text)


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2, 10), (0.5, 0.25), (1.00049, -1024), (1, -1000.5)])
def test_released_hu_is_what_the_released_arithmetic_gives(slope, intercept):
    stored = np.array([[-2000, 0], [1000, -1999], [3, -7]])
    hu = (stored * slope + intercept).astype(np.float32)
    patched = np.where(stored == -2000, 0, stored)
    expected = (patched * float(slope)).astype(np.int16) + np.array(intercept).astype(np.int16)
    np.testing.assert_array_equal(released_hu(hu, slope, intercept), expected)


def test_without_padding_nothing_is_copied():
    hu = np.array([[-1024, 40]], np.int16)
    assert released_hu(hu, 1, -1024) is hu
    assert released_hu(np.array([[-3024]], np.int16), 1, -1024).tolist() == [[-1024]]


@pytest.mark.parametrize("stored", ["chest_lidc", "abdomen_pelvis", "trunk_3mm", "head_phantom_uint8"])
def test_real_slices_equal_the_released_pictures(real_data, stored):
    (path,) = (real_data / "ct" / stored).glob("*.nii.gz")
    volume = np.asarray(nibabel.load(path).dataobj)
    for axis, voxel_type in enumerate([volume.dtype, "float32", volume.dtype]):
        slices = np.moveaxis(volume, axis, 0)[::7, ::-1].astype(voxel_type, copy=False)
        for lower, epsilon in ((None, 1e-5), (-1024, 0.0)):
            expected = [released_picture(x, lower, epsilon) for x in slices]
            np.testing.assert_array_equal(min_max_uint8(slices, lower=lower, epsilon=epsilon), expected)
