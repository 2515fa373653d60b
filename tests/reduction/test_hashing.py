from __future__ import annotations

import imagehash
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from lessismore_transforms.reduction.hashing import dhash, dhash_torch, format_hash, hamming_distances, parse_hash
from lessismore_transforms.reduction.intensity import min_max_uint8


def reference(slices):
    """The hexadecimal text of imagehash, slice by slice."""
    return [str(imagehash.dhash(Image.fromarray(np.ascontiguousarray(x)))) for x in slices]


def width_first(slices):
    """The same with the width resized first: Pillow 13 starts with the height of tall pictures, earlier ones do not."""
    return reference([np.array(Image.fromarray(x).resize((9, len(x)), Image.Resampling.LANCZOS)) for x in slices])


def texts(hashes):
    return [f"{value:016x}" for value in hashes]


def picture(shape, content, seed):
    rng = np.random.default_rng(seed)
    if content == "noise":
        return rng.integers(0, 256, shape, np.uint8)
    if content == "black and white":
        return rng.integers(0, 2, shape, np.uint8) * 255
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    angle, period, phase = rng.uniform(0, 7), rng.uniform(20, 400), rng.uniform(0, 7)
    wave = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) / period + phase)
    return min_max_uint8(wave + 0.01 * rng.normal(size=shape))


SIZES = st.one_of(st.integers(1, 600), st.sampled_from([1, 2, 7, 8, 9, 10, 16, 512]))


@given(SIZES, SIZES, st.sampled_from(["noise", "black and white", "smooth"]), st.integers(0, 2**32 - 1))
@settings(max_examples=250, deadline=None)
@example(8, 9, "noise", 0)  # Pillow skips both passes
@example(300, 9, "noise", 0)
@example(8, 300, "noise", 0)
@example(1, 1, "noise", 0)
@example(600, 600, "black and white", 0)
def test_equals_imagehash_for_any_shape(height, width, content, seed):
    image = picture((height, width), content, seed)
    value = dhash(image)
    assert isinstance(value, np.uint64)
    assert texts([value]) == width_first([image])
    if height <= width:
        assert texts([value]) == reference([image])
    stack = torch.from_numpy(np.stack([image, image[::-1, ::-1]]))
    assert texts(dhash_torch(stack).numpy().view(np.uint64)) == width_first(stack.numpy())


@pytest.mark.parametrize(
    ("image", "bits"),
    [
        (np.zeros((512, 512)), 0),
        (np.full((512, 512), 255), 0),
        (np.tile(np.arange(0, 256), (64, 1)), 2**64 - 1),
        (np.tile(np.arange(0, 256)[::-1], (64, 1)), 0),
        # 9 x 8 is the picture that is compared: rising from the first to the second pixel only
        (np.tile([0] + 8 * [9], (8, 1)), 0x8080808080808080),
        (np.pad([[0, 1]], ((0, 7), (0, 7))), 2**63),
    ],
)
def test_known_pictures(image, bits):
    assert int(dhash(image.astype(np.uint8))) == bits


def test_stack_equals_its_slices_whatever_the_strides():
    stack = np.random.default_rng(0).integers(0, 256, (5, 60, 70), np.uint8)
    for view in (stack, stack[::-1, ::-1, ::-1], stack.transpose(1, 0, 2), stack[:, ::2, 3:]):
        frozen = view.copy()
        frozen.flags.writeable = False
        assert texts(dhash(view)) == [f"{dhash(x):016x}" for x in view] == texts(dhash(frozen)) == reference(view)
        if min(view.strides) > 0:
            assert texts(dhash_torch(torch.from_numpy(view)).numpy().view(np.uint64)) == reference(view)


def test_no_slices_no_hashes():
    assert dhash(np.empty((0, 16, 16), np.uint8)).shape == (0,)
    assert dhash_torch(torch.empty((0, 16, 16), dtype=torch.uint8)).shape == (0,)


def test_torch_in_several_blocks():
    stack = np.random.default_rng(1).integers(0, 256, (40, 512, 512), np.uint8)
    np.testing.assert_array_equal(dhash_torch(torch.from_numpy(stack)).numpy().view(np.uint64), dhash(stack))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", [(40, 512, 512), (3, 122, 101), (2, 8, 8), (1, 600, 40), (5, 3, 2)])
def test_gpu_equals_cpu(shape):
    stack = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    hashes = dhash_torch(torch.from_numpy(stack).cuda())
    assert hashes.is_cuda
    np.testing.assert_array_equal(hashes.cpu().numpy().view(np.uint64), dhash(stack))


@pytest.mark.parametrize("slices", [np.zeros((4, 4)), np.zeros(4, np.uint8), np.zeros((2, 0, 4), np.uint8)])
def test_refuses_what_is_not_a_stack_of_8_bit_slices(slices):
    with pytest.raises(ValueError, match="expected uint8 slices"):
        dhash(slices)
    with pytest.raises(ValueError, match=r"expected torch\.uint8 slices"):
        dhash_torch(torch.from_numpy(slices))


@pytest.mark.parametrize("stored", ["chest_lidc", "abdomen_pelvis", "chest_dicom", "trunk_3mm", "head_phantom_uint8"])
def test_every_real_slice_in_three_directions(real_data, stored):
    folder = real_data / "ct" / stored
    if stored == "chest_dicom":
        volume = np.stack([pydicom.dcmread(path).pixel_array for path in sorted(folder.rglob("*.dcm"))])
    else:
        volume = np.asarray(nibabel.load(next(folder.glob("*.nii.gz"))).dataobj).T
    for axis in range(3):
        slices = min_max_uint8(np.moveaxis(volume, axis, 0))
        expected = reference(slices)
        assert texts(dhash(slices)) == expected
        assert texts(dhash_torch(torch.from_numpy(slices)).numpy().view(np.uint64)) == expected


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.lists(st.integers(0, 2**64 - 1), max_size=20))
@settings(max_examples=50, deadline=None)
def test_hamming_distances_count_bits(hashes, others):
    distances = hamming_distances(np.array(hashes, np.uint64), np.array(others, np.uint64))
    assert distances.dtype == np.uint8
    assert distances.shape == (len(hashes), len(others))
    assert distances.tolist() == [[(a ^ b).bit_count() for b in others] for a in hashes]


def test_hamming_distances_in_several_blocks():
    hashes = np.random.default_rng(3).integers(0, 2**64, 700, np.uint64)
    distances = hamming_distances(hashes, hashes)
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(distances, np.bitwise_count(hashes[:, None] ^ hashes))
    assert hamming_distances(np.array([0], np.uint64), np.array([2**64 - 1], np.uint64)).tolist() == [[64]]


@given(st.integers(0, 2**64 - 1))
def test_text_of_a_hash_reads_back(value):
    text = format_hash(value)
    assert len(text) == 18
    assert parse_hash(text) == value
    assert parse_hash(text.upper().replace("X", "x")) == value
    assert format_hash(np.uint64(value)) == text


def test_text_of_a_hash():
    assert format_hash(255) == "0x00000000000000ff"


@pytest.mark.parametrize("text", ["", "0xff", "00000000000000ff", "0x00000000000000fg", "0x00000000000000ff\n", "1e5"])
def test_refuses_a_mangled_hash(text):
    with pytest.raises(ValueError, match="16 hexadecimal digits"):
        parse_hash(text)
