from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from lessismore_transforms.reduction.embedding import cosine_matrix, embed
from lessismore_transforms.weights.backbones import build_backbone, to_encoder

SIZE = 64
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count: int = 7, height: int = 96, width: int = 80) -> np.ndarray:
    """Discs that grow and fade on noise, so that slices differ smoothly."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - height / 2, x - width / 2)
    discs = [np.where(radius < 12 + 4 * index, 200 - 15 * index, 20) for index in range(count)]
    return (np.stack(discs) + rng.integers(0, 40, (count, height, width))).astype(np.uint8)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A ResNet18 whose batch norms are no identity: folding them must matter."""
    network = build_backbone("resnet18", weights="random")
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            layer.bias.data.normal_(0, 0.1, generator=generator)
    return network


def one_at_a_time(slices: np.ndarray, network: torch.nn.Module, *, eight_bit: bool = False) -> np.ndarray:
    """Each slice alone, as RGB picture, through torchvision's transforms and the plain network.

    Args:
        slices: uint8 (S, H, W).
        network: the network before it was made fast.
        eight_bit: resize as Pillow does, rounded to 8 bits, instead of in floats.
    """
    resize = v2.Resize((SIZE, SIZE), antialias=True)
    to_float = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    order = [resize, *to_float] if eight_bit else [*to_float, resize]
    transform = v2.Compose([*order, v2.Normalize(MEAN.tolist(), STD.tolist())])
    with torch.no_grad():
        features = [network(transform(Image.fromarray(picture).convert("RGB"))[None])[0] for picture in slices]
    return torch.stack(features).numpy()


def first_input(slices: np.ndarray, size: int = SIZE) -> torch.Tensor:
    """What the encoder is given for the first batch."""
    seen: list[torch.Tensor] = []
    embed(slices, lambda batch: seen.append(batch) or batch.mean((2, 3)), size=size)
    return seen[0]


def test_equals_one_image_at_a_time(network):
    slices = pictures()  # 7 in batches of 3: the last one is not full
    oracle = one_at_a_time(slices, network)
    for encoder in (network, to_encoder(network)):
        features = embed(slices, encoder, size=SIZE, batch_size=3)
        assert features.dtype == np.float32
        assert features.shape == (7, 512)
        assert np.abs(features - oracle).max() < 1e-5 * np.abs(oracle).max()
        assert np.abs(cosine_matrix(features) - cosine_matrix(oracle)).max() < 1e-6
    assert np.ptp(cosine_matrix(oracle)) > 1e-3  # that is no agreement of equal vectors


def test_resizes_as_pillow_does_in_floats():
    for height, width in ((96, 80), (64, 64), (33, 200), (1, 1)):
        picture = pictures(1, height, width)[0]
        floats = Image.fromarray(picture.astype(np.float32))  # mode F: no rounding
        small = np.asarray(floats.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        expected = (small / 255 - MEAN[:, None, None]) / STD[:, None, None]
        found = first_input(picture[None])[0].numpy()
        assert np.abs(found - expected).max() < 2e-5, (height, width)


def test_rounding_to_8_bit_would_move_features_little(network):
    oracle = one_at_a_time(pictures(), network, eight_bit=True)
    features = embed(pictures(), to_encoder(network), size=SIZE)
    difference = np.abs(cosine_matrix(features) - cosine_matrix(oracle)).max()
    assert 1e-8 < difference < 1e-4


def test_a_grey_level_becomes_its_normalised_value():
    slices = np.repeat(np.array([0, 51, 255], np.uint8), 30 * 40).reshape(3, 30, 40)
    expected = (np.array([0, 0.2, 1])[:, None] - MEAN) / STD
    for pool in (lambda batch: batch.mean((2, 3)), lambda batch: batch.amax((2, 3), keepdim=True)):
        np.testing.assert_allclose(embed(slices, pool, size=8), expected, atol=1e-6)


def test_the_encoder_gets_normalised_batches_in_channels_last():
    shapes = []

    def encoder(batch):
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert torch.is_inference_mode_enabled()
        shapes.append(tuple(batch.shape))
        return batch.mean((2, 3))

    embed(pictures(7), encoder, size=16, batch_size=3)
    assert shapes == [(3, 3, 16, 16), (3, 3, 16, 16), (1, 3, 16, 16)]
    assert not torch.is_inference_mode_enabled()


def test_batches_order_and_memory_layout_change_nothing(network):
    encoder = to_encoder(network)
    slices = pictures()
    features = embed(slices, encoder, size=SIZE)
    scale = np.abs(features).max()
    np.testing.assert_array_equal(embed(slices, encoder, size=SIZE), features)
    for batch_size in (1, 3, 16):
        again = embed(slices, encoder, size=SIZE, batch_size=batch_size)
        np.testing.assert_allclose(again, features, atol=1e-6 * scale)
    np.testing.assert_allclose(embed(slices[::-1], encoder, size=SIZE)[::-1], features, atol=1e-6 * scale)
    frozen = np.asfortranarray(slices)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(embed(frozen, encoder, size=SIZE), features)


def test_equal_slices_are_wholly_similar(network):
    slices = pictures(6)
    slices[4] = slices[1]
    slices[[2, 5]] = 0  # constant slices
    cosines = cosine_matrix(embed(slices, to_encoder(network), size=SIZE))
    assert cosines[1, 4] == cosines[2, 5] == 1
    assert cosines[1, 2] < 1


def test_bfloat16_is_close(network):
    encoder = to_encoder(network)
    features = embed(pictures(), encoder, size=SIZE)
    half = embed(pictures(), encoder, size=SIZE, dtype="bfloat16")
    assert half.dtype == np.float32
    assert not np.array_equal(half, features)  # it was used
    cosines = (features * half).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(half, axis=1)
    assert cosines.min() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_features(network):
    expected = embed(pictures(), to_encoder(network), size=SIZE)
    features = embed(pictures(), to_encoder(network, "cuda"), size=SIZE, device="cuda")
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


def test_no_slices():
    features = embed(np.empty((0, 8, 8), np.uint8), lambda batch: batch.mean((2, 3)))
    assert features.shape == (0, 0)
    assert cosine_matrix(features).shape == (0, 0)


def test_wrong_input_is_named(network):
    def pool(batch):
        return batch.mean((2, 3))

    slices = pictures(2)
    with pytest.raises(ValueError, match=r"uint8 slices \(S, H, W\), found float64 of shape \(2, 96, 80\)"):
        embed(slices.astype(np.float64), pool)
    with pytest.raises(ValueError, match=r"found uint8 of shape \(96, 80\)"):
        embed(slices[0], pool)
    with pytest.raises(ValueError, match="float32, bfloat16, found 'float16'"):
        embed(slices, pool, dtype="float16")
    with pytest.raises(ValueError, match="found 224 and 0"):
        embed(slices, pool, batch_size=0)
    with pytest.raises(ValueError, match=r"\(2, D, 1, 1\) from the encoder, found \(2, 3, 8, 8\)"):
        embed(slices, lambda batch: batch, size=8)
    with pytest.raises(ValueError, match=r"found \(3,\)"):
        embed(slices, lambda batch: batch.mean((0, 2, 3)), size=8)
    with pytest.raises(ValueError, match="training mode"):
        embed(slices, torch.nn.Sequential(network).train(), size=8)
    network.eval()
    with pytest.raises(ValueError, match="encoder on cpu, found it on meta"):
        embed(slices, torch.nn.Conv2d(3, 3, 8, device="meta").eval(), size=8)


def test_cosines_of_hand_made_vectors():
    features = np.array([[3, 4], [4, 3], [-6, -8], [0, 0], [0, 0], [8, -6]], np.float32)
    expected = [
        [1, 0.96, -1, 0, 0, 0],
        [0.96, 1, -0.96, 0, 0, 0.28],
        [-1, -0.96, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0.28, 0, 0, 0, 1],
    ]
    cosines = cosine_matrix(features)
    assert cosines.dtype == np.float32
    np.testing.assert_allclose(cosines, expected, atol=1e-7)


def test_cosines_equal_a_loop_and_ignore_lengths():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 300)).astype(np.float32)
    cosines = cosine_matrix(features)
    for i, j in rng.integers(0, 40, (60, 2)):
        x, y = features[i].astype(float), features[j].astype(float)
        assert abs(cosines[i, j] - sum(x * y) / (sum(x * x) * sum(y * y)) ** 0.5) < 1e-7
    np.testing.assert_array_equal(cosines, cosines.T)
    np.testing.assert_array_equal(cosines.diagonal(), 1)
    lengths = np.float32(10.0) ** rng.integers(-25, 25, (40, 1))  # their squares leave the range of float32
    np.testing.assert_allclose(cosine_matrix(features * lengths), cosines, atol=1e-6)


def test_cosines_refuse_what_has_none():
    with pytest.raises(ValueError, match="NaN or infinity"):
        cosine_matrix(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match=r"features \(S, D\), found \(3,\)"):
        cosine_matrix(np.ones(3))
