"""The array transforms on hand-made arrays."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from lessismore_transforms.phantom import phantom_scan
from lessismore_transforms.reduction.hashing import dhash, hamming_distances
from lessismore_transforms.reduction.intensity import Window, min_max_uint8
from lessismore_transforms.transforms import ScaleToUint8, SelectSlices, WindowToUint8
from lessismore_transforms.transforms.array import _warn_without_affine

LPS = np.diag([-2.0, -2.0, 5.0, 1.0])


@pytest.fixture(scope="module")
def volume():
    """A slab of neighbouring slices as MONAI has it: (1, x, y, z) in LPS+."""
    hu = phantom_scan(0, slices=24, size=48, slice_spacing_mm=4.0).hu
    return hu.transpose(2, 1, 0)[None].astype(np.float32)


def meta(volume, affine=LPS):
    return MetaTensor(volume.copy(), affine=torch.as_tensor(affine))


def oracle(volume, threshold):
    """First come, first kept, on hashes in canonical order."""
    hashes = dhash(min_max_uint8(np.maximum(volume[0], -1024).transpose(2, 1, 0)))
    kept: list[int] = []
    for index in range(len(hashes)):
        if not kept or hamming_distances(hashes[index : index + 1], hashes[kept]).min() > threshold:
            kept.append(index)
    return kept


def test_scale_each_slice_by_its_own_extremes():
    hu = np.array([[[0, -1000, 7], [1, 0, 7], [2, 1000, 7], [4, 250, 7]]], np.float32)[:, None]  # (1, 1, 4, 3)
    expected = [[0, 0, 0], [64, 128, 0], [128, 255, 0], [255, 159, 0]]  # 63.75, 127.5 (to even) and 159.375
    out = ScaleToUint8()(hu)
    assert out.dtype == np.uint8
    assert out[0, 0].tolist() == expected
    assert ScaleToUint8(slice_dim=1)(np.moveaxis(hu, 3, 1))[0, :, 0].T.tolist() == expected
    assert ScaleToUint8(lower=0)(hu)[0, 0, :, 1].tolist() == [0, 0, 255, 64]


def test_padding_counts_as_air(volume):
    """Padding of -3024 HU decides nothing: the pictures are those of the same volume with air there."""
    padded, air = volume.copy(), volume.copy()
    padded[:, :5], air[:, :5] = -3024, -1024
    np.testing.assert_array_equal(ScaleToUint8()(padded), ScaleToUint8(lower=None)(air))
    assert (ScaleToUint8(lower=None)(padded) != ScaleToUint8()(padded)).any()
    kept = SelectSlices(threshold=6).kept_slices(meta(padded)).tolist()
    assert kept == oracle(padded, 6) == SelectSlices(threshold=6).kept_slices(meta(air)).tolist()


def test_scale_a_slice_with_channels():
    hu = np.array([[[0, 4]], [[10, 30]]], np.int16)  # (C, H, W)
    assert ScaleToUint8()(hu).tolist() == [[[0, 255]], [[0, 255]]]


def test_window_presets_text_and_object():
    hu = np.array([-5000, -1150, -400, 350, 5000], np.float32).reshape(1, 1, 5)
    for window in ("lung", "-400/1500", Window(-400, 1500)):
        assert WindowToUint8(window)(hu).ravel().tolist() == [0, 0, 128, 255, 255]  # 127.5 to even
    with pytest.raises(ValueError, match="expected a window"):
        WindowToUint8("lungs")


def test_voxels_that_are_no_numbers_count_as_the_lowest_of_their_slice():
    hu = np.array([[[[np.nan, 5.0], [0.0, 1.0], [10.0, 3.0]]]], np.float32)
    assert ScaleToUint8()(hu)[0, 0].tolist() == [[0, 255], [0, 0], [255, 128]]
    assert WindowToUint8("5/10")(np.array([[[np.inf, 5, 10]]], np.float32)).ravel().tolist() == [128, 128, 255]


@pytest.mark.parametrize("transform", [ScaleToUint8(-1024), WindowToUint8("chest")])
def test_kind_and_metadata_are_kept(transform, volume):
    expected = transform(volume)
    tensor = transform(torch.from_numpy(volume))
    assert type(tensor) is torch.Tensor
    assert tensor.dtype == torch.uint8
    image = transform(meta(volume))
    assert isinstance(image, MetaTensor)
    assert image.affine.tolist() == LPS.tolist()
    for result in (tensor, image, transform(volume.astype(np.int16)), transform(torch.from_numpy(volume).double())):
        np.testing.assert_array_equal(np.asarray(result), expected)
    half = torch.from_numpy(volume).bfloat16()
    np.testing.assert_array_equal(transform(half).numpy(), transform(half.float()).numpy())


def test_shapes_that_are_no_image_are_refused():
    with pytest.raises(ValueError, match="expected an image"):
        ScaleToUint8()(np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="expected slice_dim 1, 2 or 3"):
        ScaleToUint8(slice_dim=0)(np.zeros((1, 4, 4, 4), np.float32))
    for shape in ((2, 4, 4, 4), (4, 4, 4), (1, 4, 4, 0)):
        with pytest.raises(ValueError, match="expected one channel of a volume"):
            SelectSlices()(np.zeros(shape, np.float32))


def test_targets_are_checked_when_made():
    with pytest.raises(ValueError, match="found both"):
        SelectSlices(threshold=3, fraction=0.1)
    with pytest.raises(ValueError, match="expected a method"):
        SelectSlices("SvaV")


@pytest.mark.parametrize("threshold", [0, 3, 6, 12])
def test_keeps_what_the_rule_keeps(volume, threshold):
    kept = SelectSlices(threshold=threshold).kept_slices(meta(volume))
    assert kept.dtype == np.int64
    assert kept.tolist() == oracle(volume, threshold)


def test_a_fraction_by_the_pair_rule(volume):
    assert len(SelectSlices(fraction=0.15).kept_slices(meta(volume))) == 4  # 3.6
    pairs = SelectSlices(threshold=6, rule="pairs").kept_slices(meta(volume))
    assert set(SelectSlices(fraction=1 / 24).kept_slices(meta(volume))) <= set(pairs)


def test_the_affine_decides_not_the_array(volume):
    """Every way to store the volume keeps the same anatomical slices, though their indices differ."""
    select = SelectSlices(threshold=3)
    expected = np.asarray(select(meta(volume)))
    assert 1 < expected.shape[-1] < volume.shape[-1]
    for axcodes, slice_dim in (("RAS", -1), ("LPI", 3), ("SAR", 1), ("PIL", -2), ("ALS", -1)):
        turned = Orientation(axcodes, labels=None)(meta(volume))
        kept = SelectSlices(threshold=3, slice_dim=slice_dim)(turned)
        back = Orientation("LPS", labels=None)(kept)
        np.testing.assert_array_equal(back.numpy(), expected)
        np.testing.assert_allclose(back.affine[:, :3], select(meta(volume)).affine[:, :3], atol=1e-9)
    lps = meta(volume, np.diag([2.0, 2.0, 5.0, 1.0]))
    lps.meta["space"] = "LPS"  # as ITKReader(affine_lps_to_ras=False) says it
    assert select.kept_slices(lps).tolist() == select.kept_slices(meta(volume)).tolist()


def test_without_affine_lps_is_taken_and_told_once(volume):
    _warn_without_affine.cache_clear()
    expected = SelectSlices().kept_slices(meta(volume)).tolist()
    with pytest.warns(UserWarning, match=r"taken as LPS\+"):
        assert SelectSlices().kept_slices(volume).tolist() == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SelectSlices().kept_slices(torch.from_numpy(volume)).tolist() == expected


def test_the_original_is_returned_in_its_own_type_and_left_alone(volume):
    select = SelectSlices(threshold=6)
    slices = select.kept_slices(meta(volume))
    for original in (volume.astype(np.int16), torch.from_numpy(volume).half(), meta(volume)):
        before = pickle.dumps(np.asarray(original))
        kept = select(original)
        assert type(kept) is type(original)
        assert kept.dtype == original.dtype
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(original)[..., slices])
        assert pickle.dumps(np.asarray(original)) == before


def test_the_affine_of_kept_slices():
    image = MetaTensor(torch.zeros(1, 4, 4, 9), affine=torch.tensor(LPS, dtype=torch.float64))
    image.affine[:3, 3] = torch.tensor([10.0, 20.0, 30.0])
    take = SelectSlices().take

    def places(kept):
        return (kept.affine[2, 3] + kept.affine[2, 2] * torch.arange(kept.shape[-1])).tolist()

    assert places(take(image, np.array([2, 4, 6]))) == [40, 50, 60]  # evenly spaced: each slice where it was
    assert places(take(image, np.array([1, 2, 7]))) == [35, 50, 65]  # else the first and the last one are
    assert places(take(image, np.array([3]))) == [45]
    assert take(image, np.array([3])).affine[2, 2] == 5
    assert take(image, np.array([3])).affine[:2].tolist() == [[-2, 0, 0, 10], [0, -2, 0, 20]]
    assert image.affine[2].tolist() == [0, 0, 5, 30]


def test_constant_and_single_slices():
    assert SelectSlices(threshold=0)(meta(np.zeros((1, 8, 8, 5), np.float32))).shape == (1, 8, 8, 1)
    assert SelectSlices(threshold=64)(meta(np.ones((1, 1, 1, 1), np.float32))).tolist() == [[[[1.0]]]]
