from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from lessismore_transforms.reduction import ssim, ssim_kernels
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.selection import removal_order, target_count
from lessismore_transforms.reduction.ssim import ssim_matrix, ssim_removal_order

C1, C2 = 0.01**2 * 255**2, 0.03**2 * 255**2
DEVICES = [None, "cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
VOLUMES = ["chest_lidc", "abdomen_pelvis", "trunk_3mm", "head_phantom_uint8"]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.fixture
def measured(monkeypatch):
    """How many pairs each sweep measured."""
    counts = []
    sweep = ssim.sweep

    def counting(slices, pairs, *args, **kwargs):
        counts.append(len(pairs[0]))
        return sweep(slices, pairs, *args, **kwargs)

    monkeypatch.setattr(ssim, "sweep", counting)
    return counts


def real_volume(real_data, name):
    image = nibabel.load(next((real_data / "ct" / name).glob("*.nii.gz")))
    return min_max_uint8(np.asarray(image.dataobj).T)


def gaussian_means(pictures):
    """Over each 11 x 11 window inside the pictures (..., H, W), by matrices that hold the weights."""
    weights = np.exp(-(np.arange(-5.0, 6) ** 2) / (2 * 1.5**2))
    for _ in range(2):
        size = pictures.shape[-2]
        matrix = np.zeros((size - 10, size))
        for row in range(size - 10):
            matrix[row, row : row + 11] = weights / weights.sum()
        pictures = (matrix @ pictures).swapaxes(-1, -2)
    return pictures


def truth(slices):
    """SSIM of all pairs by the definition in float64, and the condition that rounding grows with."""
    x = slices.astype(float)
    mean = gaussian_means(x)
    variance = gaussian_means(x * x) - mean**2
    matrix, condition = np.ones((2, len(x), len(x)))
    for i in range(len(x)):
        luminance = (2 * mean[i] * mean + C1) / (mean[i] ** 2 + mean**2 + C1)
        contrast = variance[i] + variance + C2
        covariance = gaussian_means(x[i] * x) - mean[i] * mean
        matrix[i] = (luminance * (2 * covariance + C2) / contrast).mean((1, 2))
        condition[i] = (luminance * gaussian_means((x[i] - x) ** 2) / contrast).mean((1, 2))
    return matrix, condition


def scikit_image(one, other):
    return structural_similarity(
        one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )


def random_volume(content, count, height, width, seed):
    rng = np.random.default_rng(seed)
    if content == "noise":
        volume = rng.integers(0, 256, (count, height, width))
    elif content == "flat":
        volume = np.broadcast_to(rng.integers(0, 256, (count, 1, 1)), (count, height, width))
    elif content == "halves":
        volume = np.broadcast_to(
            rng.choice([0, 100, 155, 255], (count, 1, 2)).repeat(width, 2), (count, height, 2 * width)
        )
        volume = volume[:, :, width // 2 : width // 2 + width]
    elif content == "drift":
        volume = 100 + rng.normal(size=(count, height, width)).cumsum(0) * rng.choice([0.1, 3, 20])
    else:  # few different pictures, many times
        volume = rng.integers(0, 256, (3, height, width))[rng.integers(0, 3, count)]
    return np.clip(volume, 0, 255).astype(np.uint8)


VOLUME = st.builds(
    random_volume,
    st.sampled_from(["noise", "flat", "halves", "drift", "repeated"]),
    st.integers(2, 12),
    st.integers(11, 45),
    st.integers(11, 70),
    st.integers(0, 2**32 - 1),
)


def assert_order(ranking, matrix, count, *, tolerance=1e-3):
    """The ranking is the pair rule's on a matrix of truth, down to `count` slices."""
    full = removal_order(matrix, similarity=True)
    left = full.rank <= count
    np.testing.assert_array_equal(ranking.rank, np.where(left, 0, full.rank))
    np.testing.assert_array_equal(ranking.removed_by, np.where(left, -1, full.removed_by))
    np.testing.assert_allclose(ranking.removed_at, np.where(left, np.nan, full.removed_at), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", VOLUMES)
def test_equals_scikit_image_on_real_slices(real_data, name, device):
    volume = real_volume(real_data, name)
    slices = volume[[0, len(volume) // 2, len(volume) // 2 + 1, -1]]
    matrix = ssim_matrix(slices, device=device)
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, matrix.T)
    for i, j in zip(*np.triu_indices(4), strict=True):
        assert matrix[i, j] == pytest.approx(scikit_image(slices[i], slices[j]), rel=0, abs=1e-6)


@given(VOLUME)
@settings(max_examples=60, deadline=None)
def test_equals_the_definition_within_the_stated_rounding(slices):
    expected, condition = truth(slices)
    for device in (None, "cpu"):
        matrix = ssim_matrix(slices, device=device)
        assert (abs(matrix - expected) <= 2e-6 * (1 + condition)).all()
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(matrix.diagonal(), 1)


def test_float64_measures_equal_the_definition():
    slices = random_volume("drift", 9, 50, 33, 0)
    pairs = np.tril_indices(9, -1)
    np.testing.assert_allclose(
        1 - ssim.sweep(slices, pairs, np.float64)[0], truth(slices)[0][pairs], rtol=0, atol=1e-13
    )


def test_constant_slices_have_the_luminance_term(device):
    matrix = ssim_matrix(np.full((4, 20, 15), [[[0]], [[255]], [[100]], [[100]]], np.uint8), device=device)
    assert matrix[2, 3] == 1
    assert matrix[0, 1] == pytest.approx(C1 / (255**2 + C1), abs=1e-6)
    assert matrix[1, 2] == pytest.approx((2 * 255 * 100 + C1) / (255**2 + 100**2 + C1), abs=1e-4)


def test_no_slices_one_slice_two_slices(device):
    rng = np.random.default_rng(0)
    for count in (0, 1):
        slices = rng.integers(0, 256, (count, 16, 16), np.uint8)
        np.testing.assert_array_equal(ssim_matrix(slices, device=device), np.eye(count))
        ranking = ssim_removal_order(slices, count=1, device=device)
        assert (ranking.rank.tolist(), ranking.removed_by.tolist()) == ([0] * count, [-1] * count)
        assert np.isnan(ranking.removed_at).all()
    slices = rng.integers(0, 256, (2, 11, 11), np.uint8)
    ranking = ssim_removal_order(slices, count=1, device=device)
    assert (ranking.rank.tolist(), ranking.removed_by.tolist()) == ([0, 2], [-1, 0])
    assert ranking.removed_at[1] == pytest.approx(truth(slices)[0][0, 1], abs=1e-6)
    assert ssim_removal_order(slices, count=2, device=device).rank.tolist() == [0, 0]
    assert ssim_matrix(np.empty((0, 0, 0), np.uint8), device=device).shape == (0, 0)


def test_any_strides_and_read_only():
    stack = random_volume("drift", 6, 30, 40, 1)
    frozen = stack.copy()
    frozen.flags.writeable = False
    for view in (stack[::-1, ::-1, ::-1], stack.transpose(0, 2, 1), stack[::2, ::2, 3:], frozen):
        for device in (None, "cpu"):
            np.testing.assert_allclose(ssim_matrix(view, device=device), truth(view)[0], rtol=0, atol=1e-6)


@given(VOLUME, st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_permuted_slices_permute_the_matrix(slices, seed):
    order = np.random.default_rng(seed).permutation(len(slices))
    permuted = ssim_matrix(slices[order])
    expected, condition = ssim_matrix(slices), truth(slices)[1]
    assert (abs(permuted - expected[np.ix_(order, order)]) <= 4e-6 * (1 + condition[np.ix_(order, order)])).all()


@given(VOLUME, st.data())
@settings(max_examples=60, deadline=None)
def test_lazy_order_is_that_of_all_pairs_in_float64(slices, data):
    pairs = np.tril_indices(len(slices), -1)
    matrix = np.eye(len(slices))
    matrix[pairs] = 1 - ssim.sweep(slices, pairs, np.float64)[0]
    count = data.draw(st.integers(1, len(slices) + 1))
    for device in (None, "cpu"):
        assert_order(ssim_removal_order(slices, count=count, device=device), matrix, count)
        assert_order(removal_order(ssim_matrix(slices, device=device), similarity=True), matrix, 0)


@pytest.mark.parametrize("name", VOLUMES)
def test_order_of_real_volumes_is_that_of_float64(real_data, name):
    volume = real_volume(real_data, name)
    middle, centre = (size // 2 for size in volume.shape[1:])
    crop = volume[:, middle - 32 : middle + 32, centre - 32 : centre + 32]
    matrix = truth(crop)[0]
    n = len(crop)
    for count in {1, 2, n - 1, n, *(target_count(n, fraction) for fraction in (0.05, 0.1, 0.2, 0.5))}:
        assert_order(ssim_removal_order(crop, count=count), matrix, count)
    assert_order(removal_order(ssim_matrix(crop), similarity=True), matrix, 0)


@pytest.mark.parametrize(("name", "share"), [("trunk_3mm", 0.3), ("head_phantom_uint8", 0.1)])
def test_lazy_order_measures_few_pairs(real_data, name, share, measured):
    volume = real_volume(real_data, name)
    n = len(volume)
    count = target_count(n, 0.1)
    ranking = ssim_removal_order(volume, count=count)
    assert n <= sum(measured) < share * n * (n - 1) / 2
    assert_order(ranking, ssim_matrix(volume), count)


@given(VOLUME, st.data())
@settings(max_examples=60, deadline=None)
def test_float64_decides_what_float32_cannot(slices, data):
    """With a float32 that is off by as much as 0.01, and says so."""
    pairs = np.tril_indices(len(slices), -1)
    matrix = np.eye(len(slices))
    sweep = ssim.sweep
    matrix[pairs] = 1 - sweep(slices, pairs, np.float64)[0]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count = data.draw(st.integers(1, len(slices)))

    def rough(slices, pairs, dtype=np.float32, *, bound=None):
        measure = sweep(slices, pairs, dtype, bound=bound)
        if dtype == np.float32:
            measure[0] += rng.uniform(-0.01, 0.01, measure.shape[1])
            measure[1] = 0.01 / 2e-6
        return measure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssim, "sweep", rough)
        assert_order(ssim_removal_order(slices, count=count), matrix, count, tolerance=0.01)
        assert_order(removal_order(ssim_matrix(slices), similarity=True), matrix, 0, tolerance=0.01)


def test_blank_slices_are_not_measured(measured):
    volume = np.concatenate([np.zeros((60, 16, 16), np.uint8), random_volume("drift", 4, 16, 16, 2)])
    ranking = ssim_removal_order(volume, count=3)
    assert sum(measured) < 120  # of 2016
    assert_order(ranking, truth(volume)[0].round(12), 3)  # float64 takes equal slices for 1 - 1e-16


def test_bounds_hold_and_are_of_use():
    for content in ("noise", "flat", "halves", "drift"):
        for seed in range(5):
            slices = random_volume(content, 8, 37, 53, seed)
            bound = np.zeros((8, 8))
            ssim.sweep(slices, (np.arange(1, 8), np.arange(7)), bound=bound)
            pairs = np.tril_indices(8, -1)
            exact = 1 - truth(slices)[0][pairs]
            assert (bound[pairs] <= exact + 1e-5).all()
            if content == "flat":
                np.testing.assert_allclose(bound[pairs], exact, atol=0.02)


def test_torch_in_several_strips_and_batches(monkeypatch):
    slices = random_volume("drift", 7, 61, 40, 3)
    for batch, strips in ((40 * 25, 2**25), (40 * 61 * 3, 2**25), (2**19, 7 * 40 * 30)):
        monkeypatch.setattr(ssim_kernels, "_BATCH_CPU", batch)
        monkeypatch.setattr(ssim_kernels, "_STRIPS", strips)
        np.testing.assert_allclose(ssim_matrix(slices, device="cpu"), truth(slices)[0], rtol=0, atol=1e-6)


def test_both_blurs_of_torch_equal_the_definition(device):
    pictures = np.random.default_rng(4).integers(0, 256, (5, 30, 23)).astype(float)
    expected = gaussian_means(pictures)
    for blur in (ssim_kernels._blur_shifted, ssim_kernels._blur_depthwise):
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
            found = blur(torch.tensor(pictures, dtype=dtype, device=device)).cpu()
            assert found.dtype == dtype
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "slices",
    [
        np.zeros((3, 20, 20)),
        np.zeros((20, 20), np.uint8),
        np.zeros((3, 10, 20), np.uint8),
        np.zeros((3, 20, 10), np.uint8),
    ],
)
def test_refuses_what_it_cannot_compare(slices):
    for function in (ssim_matrix, lambda slices: ssim_removal_order(slices, count=1)):
        with pytest.raises(ValueError, match=r"expected uint8 slices \(S, H, W\) of at least 11 x 11 pixels, found"):
            function(slices)


def test_refuses_to_leave_no_slice():
    with pytest.raises(ValueError, match="expected at least 1 slice to keep, found 0"):
        ssim_removal_order(np.zeros((3, 11, 11), np.uint8), count=0)
