from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from lessismore_transforms.audit.negatives import balanced, copies_at, likelihood, shuffled
from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.balance import Balanced


def pairs_of(volumes: str) -> np.ndarray:
    """Which of n pictures are near copies of each other: those of one letter."""
    letters = np.array(list(volumes))
    return (letters[:, None] == letters) & ~np.eye(len(letters), dtype=bool)


@pytest.mark.parametrize("volumes", ["aabbbc", "aaaa", "abcde", "aaaabbc"])
@pytest.mark.parametrize("batch_size", [2, 3, 4])
def test_the_formula_is_the_enumeration_of_all_batches(volumes: str, batch_size: int) -> None:
    near = pairs_of(volumes)
    negatives, any_of = [], []
    for batch in combinations(range(len(volumes)), batch_size):
        for picture in batch:
            others = [other for other in batch if other != picture]
            negatives += [near[picture, other] for other in others]
            any_of.append(near[picture, others].any())
    found = likelihood(near.sum(axis=1), shuffled(len(volumes), batch_size))
    assert found.share == pytest.approx(np.mean(negatives))
    assert found.per_picture == pytest.approx((batch_size - 1) * np.mean(negatives))
    assert found.at_least_one == pytest.approx(np.mean(any_of))


def test_the_formula_is_what_a_simulation_finds() -> None:
    random = np.random.default_rng(0)
    near = pairs_of("".join(random.choice(list("abcdefgh"), 200)))
    found = likelihood(near.sum(axis=1), shuffled(200, 32))
    share, any_of = [], []
    for _ in range(400):
        batch = random.choice(200, 32, replace=False)
        among = near[np.ix_(batch, batch)]
        share.append(among.sum() / (32 * 31))
        any_of.append(among.any(axis=1).mean())
    for values, expected in ((share, found.share), (any_of, found.at_least_one)):
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / 20


def test_copies_alone_are_certain_and_none_is_impossible() -> None:
    assert likelihood(np.full(50, 49), shuffled(50, 8)) == pytest.approx((1.0, 7.0, 1.0))
    assert likelihood(np.zeros(50, np.int64), shuffled(50, 8)) == pytest.approx((0.0, 0.0, 0.0))
    large = likelihood(np.full(200_000, 3), shuffled(200_000, 256))  # no overflow
    assert large.at_least_one == pytest.approx(1 - (1 - 255 / 199_999) ** 3, rel=1e-3)


def test_a_batch_larger_than_the_set_is_the_set() -> None:
    copies = np.array([1, 1, 0])
    assert likelihood(copies, shuffled(3, 64)) == likelihood(copies, shuffled(3, 3))


@pytest.mark.parametrize(("n", "batch_size"), [(1, 8), (8, 1)])
def test_one_picture_has_no_negatives(n: int, batch_size: int) -> None:
    with pytest.raises(UserError, match=f"expected 2 pictures or more in a set and in a batch, found {n} and"):
        shuffled(n, batch_size)
    with pytest.raises(UserError, match=f"expected 2 pictures or more in a set and in a batch, found {n} and"):
        balanced(np.arange(n), batch_size)


@pytest.mark.parametrize(("batch_size", "together"), [(12, None), (10, None), (12, 3), (12, 2)])
def test_balanced_batches_are_what_the_sampler_of_a_training_draws(batch_size: int, together: int | None) -> None:
    sizes = [8, 12, 30, 9]
    volumes = np.repeat(np.arange(4), sizes)
    rng = np.random.default_rng(1)
    near = (rng.random((59, 59)) < 0.2) & (volumes[:, None] == volumes) & ~np.eye(59, dtype=bool)
    near |= near.T
    found = likelihood(near.sum(axis=1), balanced(volumes, batch_size, together))
    order = Balanced(volumes, np.arange(59), batch_size, 0, together)
    per_picture, any_of = [], []
    for epoch in range(600):
        for batch in order.draw(epoch)[: 59 // batch_size * batch_size].reshape(-1, batch_size):
            among = near[np.ix_(batch, batch)].sum(axis=1)
            per_picture.append(among.mean())
            any_of.append((among > 0).mean())
    for values, expected in ((per_picture, found.per_picture), (any_of, found.at_least_one)):
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))
    assert found.share == pytest.approx(found.per_picture / (batch_size - 1))


def test_copies_are_counted_by_bits_within_a_volume() -> None:
    hashes = np.array([0b0, 0b1, 0b111, 0b0], np.uint64)
    slices = pd.DataFrame({"volume": ["a", "a", "a", "b"], "hash": hashes})
    counts = copies_at(slices)
    assert counts.shape == (4, 65)
    assert [{bits: int(row[bits]) for bits in np.flatnonzero(row)} for row in counts] == [
        {1: 1, 3: 1},
        {1: 1, 2: 1},
        {2: 1, 3: 1},
        {},
    ]
