from __future__ import annotations

import math
import tracemalloc

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage.metrics import normalized_mutual_information

from lessismore_transforms.reduction import mutual_information
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.mutual_information import nmi_matrix

BINS = [16, 32, 64, 128, 256]
DEVICES = [None, "cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def real_volume(real_data, name):
    image = nibabel.load(next((real_data / "ct" / name).glob("*.nii.gz")))
    return min_max_uint8(np.asarray(image.dataobj).T)


def entropy(counts):
    """In nats, from whole counts; each term by log1p and their sum without rounding."""
    total = int(counts.sum())
    return math.fsum(n / total * math.log1p((total - n) / n) for n in map(int, counts.flat) if n)


def truth(slices, bins):
    """NMI of all pairs by NumPy's joint histogram with edges on 0..256."""
    matrix = np.full((len(slices), len(slices)), 2.0)
    for i, one in enumerate(slices):
        for j, other in enumerate(slices):
            joint, _, _ = np.histogram2d(one.ravel(), other.ravel(), bins=bins, range=((0, 256), (0, 256)))
            if np.count_nonzero(joint) > 1:
                matrix[i, j] = (entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint)
    return matrix


def random_volume(content, count, height, width, seed):
    rng = np.random.default_rng(seed)
    if content == "noise":
        return rng.integers(0, 256, (count, height, width), np.uint8)
    if content == "few values":
        return rng.choice(rng.integers(0, 256, 3, np.uint8), (count, height, width))
    if content == "one pixel":  # constant but for the first
        volume = np.broadcast_to(rng.integers(0, 256, (count, 1, 1), np.uint8), (count, height, width)).copy()
        volume[:, 0, 0] ^= 128
        return volume
    return np.clip(100 + 5 * rng.normal(size=(count, height, width)).cumsum(0), 0, 255).astype(np.uint8)


VOLUME = st.builds(
    random_volume,
    st.sampled_from(["noise", "few values", "one pixel", "drift"]),
    st.integers(0, 6),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)


@given(VOLUME, st.sampled_from(BINS))
@settings(max_examples=100, deadline=None)
@example(random_volume("noise", 3, 1, 1, 0), 64)
@example(random_volume("one pixel", 3, 300, 301, 0), 64)
def test_equals_the_joint_histogram(slices, bins):
    for device in (None, "cpu"):
        matrix = nmi_matrix(slices, bins=bins, device=device)
        assert matrix.dtype == np.float64
        np.testing.assert_allclose(matrix, truth(slices, bins), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(matrix.diagonal(), 2)


@pytest.mark.parametrize("bins", [64, 256])
@pytest.mark.parametrize("name", ["chest_lidc", "abdomen_pelvis", "trunk_3mm", "head_phantom_uint8"])
def test_real_slices(real_data, name, bins, device):
    volume = real_volume(real_data, name)
    slices = volume[[0, len(volume) // 2, -1]]
    matrix = nmi_matrix(slices, bins=bins, device=device)
    np.testing.assert_allclose(matrix, truth(slices, bins), rtol=0, atol=1e-12)
    if bins == 256:  # then scikit-image's edges, from the values' range, put each grey into a bin of its own too
        for i, j in zip(*np.triu_indices(3), strict=True):
            expected = normalized_mutual_information(slices[i], slices[j], bins=256)
            assert matrix[i, j] == pytest.approx(expected, rel=0, abs=1e-11)


def test_hand_made_case(device):
    one = np.array([[0, 0], [255, 255]], np.uint8)
    other = np.array([[0, 255], [0, 255]], np.uint8)  # independent of it
    third = np.array([[9, 9], [9, 70]], np.uint8)
    quarter = (np.log(4) - 0.75 * np.log(3)) / np.log(2)  # bits in 1 of 4
    joint = 1.5  # bits: two pixels, one, one
    expected = [[2, 1, (1 + quarter) / joint], [1, 2, (1 + quarter) / joint], [(1 + quarter) / joint] * 2 + [2]]
    np.testing.assert_allclose(nmi_matrix(np.stack([one, other, third]), device=device), expected, rtol=0, atol=1e-15)


def test_constant_slices(device):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    slices = np.stack([np.zeros((8, 8), np.uint8), np.full((8, 8), 200, np.uint8), 4 * ramp])
    expected = [[2, 2, 1], [2, 2, 1], [1, 1, 2]]
    np.testing.assert_allclose(nmi_matrix(slices, device=device), expected, rtol=0, atol=1e-15)


def test_bins_are_fixed_parts_of_0_to_255(device):
    low, high = np.array([[[0, 3, 0, 3]], [[0, 4, 0, 4]]], np.uint8)
    halves = np.array([[0, 0, 255, 255]], np.uint8)
    matrix = nmi_matrix(np.stack([low, high, halves]), bins=64, device=device)
    assert matrix[0, 2] == 1  # 0 and 3 share a bin, 0 and 4 do not
    assert nmi_matrix(np.stack([low, high]), bins=64, device=device)[0, 1] == 1
    assert nmi_matrix(np.stack([low, high]), bins=256, device=device)[0, 1] == 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_slices_one_slice_two_slices(count, device):
    slices = random_volume("noise", 2, 9, 7, 1)[[0, 0]][:count]
    np.testing.assert_array_equal(nmi_matrix(slices, device=device), np.full((count, count), 2.0))


def test_any_strides_and_read_only():
    stack = random_volume("drift", 6, 13, 9, 2)
    frozen = stack.copy()
    frozen.flags.writeable = False
    for view in (stack[::-1, ::-1, ::-1], stack.transpose(1, 0, 2), stack[::2, ::2, 3:], frozen):
        for device in (None, "cpu"):
            np.testing.assert_allclose(nmi_matrix(view, device=device), truth(view, 64), rtol=0, atol=1e-12)


@given(VOLUME, st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_permuted_slices_permute_the_matrix(slices, seed):
    order = np.random.default_rng(seed).permutation(len(slices))
    expected = nmi_matrix(slices)[np.ix_(order, order)]
    np.testing.assert_allclose(nmi_matrix(slices[order]), expected, rtol=0, atol=1e-14)


def test_torch_in_several_batches(monkeypatch):
    slices = random_volume("drift", 9, 20, 20, 3)
    for batch in (1, 3 * 64 * 64):
        monkeypatch.setattr(mutual_information, "_BATCH_CPU", batch)
        np.testing.assert_allclose(nmi_matrix(slices, device="cpu"), nmi_matrix(slices), rtol=0, atol=1e-14)


def test_takes_eight_bytes_per_pixel_of_a_large_slice():
    """A scanned page of 9000 x 9000 pixels then takes 650 MB, not 3 GB."""
    slices = random_volume("one pixel", 2, 1000, 1000, 4)
    nmi_matrix(slices[:, :4, :4])  # compiles
    tracemalloc.start()
    matrix = nmi_matrix(slices)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * slices[0].size + (4 << 20)
    np.testing.assert_allclose(matrix, truth(slices, 64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("slices", [np.zeros((3, 4, 4)), np.zeros((4, 4), np.uint8), np.zeros((3, 0, 4), np.uint8)])
def test_refuses_what_is_not_a_stack_of_8_bit_slices(slices):
    with pytest.raises(ValueError, match=r"expected uint8 slices \(S, H, W\) with pixels, found"):
        nmi_matrix(slices)


@pytest.mark.parametrize("bins", [0, 8, 100, 512])
def test_refuses_other_bins(bins):
    with pytest.raises(ValueError, match=f"expected a number of bins out of 16, 32, 64, 128, 256, found {bins}"):
        nmi_matrix(np.zeros((2, 4, 4), np.uint8), bins=bins)
