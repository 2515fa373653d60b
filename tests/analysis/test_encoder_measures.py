from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lessismore_transforms.analysis import encoder_measures
from lessismore_transforms.analysis.encoder_measures import (
    alignment,
    measures_of,
    near_copy_share,
    nearest_neighbours,
    uniformity,
)
from lessismore_transforms.pretraining.indicators import rank_me


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three or so rows at a time."""
    monkeypatch.setattr(encoder_measures, "_PAIRS", 200)


def test_alignment_by_hand() -> None:
    """Distances of directions 0, sqrt(2) and 2; lengths do not matter."""
    first = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[5.0, 0.0], [0.0, 2.0], [0.0, -1.0]])
    assert alignment(first, second) == pytest.approx((0 + 2 + 4) / 3)
    assert alignment(first, second, alpha=1) == pytest.approx((0 + math.sqrt(2) + 2) / 3)


def test_uniformity_by_hand() -> None:
    """Of the corners of a square two pairs have d^2 = 4 and four have 2; all the same gives 0."""
    square = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -1.0]])
    assert uniformity(square) == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6), abs=1e-6)
    assert uniformity(square, t=0.5) == pytest.approx(math.log((4 * math.exp(-1) + 2 * math.exp(-2)) / 6), abs=1e-6)
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)


def test_uniformity_of_an_even_sphere() -> None:
    """In many dimensions nearly all pairs have d^2 = 2, so that it is about -4."""
    assert uniformity(noise(500, 512)) == pytest.approx(-4, abs=0.03)


@pytest.mark.usefixtures("few_pairs")
def test_uniformity_is_that_of_all_pairs() -> None:
    features = noise(61, 4).double()
    z = features / features.norm(dim=1, keepdim=True)
    mean = torch.pdist(z).square().mul(-2).exp().mean().log().item()
    assert uniformity(features) == pytest.approx(mean, abs=1e-6)


@pytest.mark.usefixtures("few_pairs")
def test_near_copies_are_those_of_a_double_loop() -> None:
    """Hashes with the highest bit set too, as uint64 and as int64."""
    rng = np.random.default_rng(0)
    volumes = rng.integers(10, 22, 61)
    features = torch.eye(22)[volumes] + 0.3 * noise(61, 22)
    flips = (np.uint64(1) << rng.integers(0, 64, (61, 4)).astype(np.uint64)).sum(axis=1, dtype=np.uint64)
    hashes = np.array([0, 0xFFFF000000000000], np.uint64)[rng.integers(2, size=61)] ^ flips
    z = torch.nn.functional.normalize(features, dim=1).numpy()

    def near(i: int, j: int) -> bool:
        return bool(volumes[i] == volumes[j]) and (int(hashes[i]) ^ int(hashes[j])).bit_count() <= 6

    hits, possible, nearest = 0, 0, []
    for i in range(61):
        others = [j for j in range(61) if j != i]
        nearest.append(max(others, key=lambda j, i=i: float(z[i] @ z[j])))
        hits += near(i, nearest[-1])
        possible += any(near(i, j) for j in others)
    assert 0 < hits < possible < 61
    assert nearest_neighbours(features).tolist() == nearest
    for codes in (hashes, hashes.view(np.int64), torch.from_numpy(hashes.view(np.int64))):
        assert near_copy_share(features, codes, volumes) == (pytest.approx(hits / 61), pytest.approx(possible / 61))
    assert near_copy_share(features, hashes, np.arange(61)) == (0, 0)


def test_a_slice_is_no_near_copy_of_itself() -> None:
    features, volumes = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), np.zeros(3, np.int64)
    hashes = np.array([0, 0b1111111, 0b1111110], np.int64)  # 7, 6 and 1 bits
    assert near_copy_share(features, hashes, volumes) == (pytest.approx(1 / 3), 1)
    assert near_copy_share(features, hashes, volumes, bits=7) == (1, 1)
    assert near_copy_share(features, hashes, volumes, bits=0) == (0, 0)


def test_a_row_for_each_checkpoint() -> None:
    """Features that collapse towards a line, read one after the other."""
    hashes, volumes, base = np.arange(20), np.arange(20) // 5, noise(20, 8)
    read: list[str] = []

    def checkpoints():
        for name, scale in (("epoch 1", 1.0), ("epoch 2", 0.01)):
            read.append(name)
            features = base * torch.tensor([1.0] + [scale] * 7)
            yield name, features, features + 0.1 * noise(20, 8, seed=1)

    rows = measures_of(checkpoints(), hashes, volumes)
    first = next(rows)
    assert read == ["epoch 1"]
    assert first == (
        "epoch 1",
        20,
        pytest.approx(rank_me(base).item(), rel=1e-5),
        alignment(base, base + 0.1 * noise(20, 8, seed=1)),
        uniformity(base),
        near_copy_share(base, hashes, volumes),
    )
    second = next(rows)
    assert second.rank_me < 3 < 6 < first.rank_me
    assert second.uniformity > first.uniformity


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: uniformity(torch.ones(1, 3)), r"features \(N, F\) of two pictures or more, found \(1, 3\)"),
        (lambda: uniformity(torch.full((3, 2), math.nan)), "found others for 3 of 3 pictures"),
        (lambda: alignment(torch.ones(3, 2), torch.ones(4, 2)), r"found \(3, 2\) and \(4, 2\)"),
        (lambda: near_copy_share(noise(3, 2), np.arange(3), np.arange(4)), r"found \(3,\), \(4,\) and \(3, 2\)"),
        (lambda: near_copy_share(noise(3, 2), np.arange(3), np.arange(3), bits=65), "bits from 0 to 64, found 65"),
        (
            lambda: list(measures_of([("epoch 7", noise(1, 2), noise(1, 2))], np.arange(1), np.arange(1))),
            "epoch 7: expected features",
        ),
    ],
)
def test_wrong_input_is_told(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
