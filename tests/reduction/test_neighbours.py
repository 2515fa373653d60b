from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessismore_transforms.reduction import neighbours
from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.neighbours import count_neighbours, exemplars_of_hashes, neighbours_within
from lessismore_transforms.reduction.selection import exemplars

FILED = 5000  # enough hashes to be filed by band for small radii


def first_come(hashes, threshold, order):
    """The rule word for word, in Python integers: index of the exemplar of each hash, and its distance."""
    values, kept, by, distance = hashes.tolist(), [], [-1] * len(hashes), [-1] * len(hashes)
    for index in order:
        for exemplar in kept:
            if (values[index] ^ values[exemplar]).bit_count() <= threshold:
                break
        else:
            kept.append(exemplar := index)
        by[index], distance[index] = exemplar, (values[index] ^ values[exemplar]).bit_count()
    return by, distance


def slices_like(n, seed, *, bits=64, step=0.04):
    """Hashes that drift as those of neighbouring slices do, with jumps and stretches of blank slices."""
    rng = np.random.default_rng(seed)
    weights = np.uint64(1) << np.arange(bits, dtype=np.uint64)
    flips = rng.random((n, bits)) < np.where(rng.random(n) < 1 / 64, 0.5, step)[:, None]
    hashes = np.bitwise_xor.accumulate((flips * weights).sum(1, dtype=np.uint64))
    hashes[(np.arange(n) // 40) % 9 == 3] = 0
    return hashes


@st.composite
def sets(draw):
    n, seed = draw(st.integers(0, 60)), draw(st.integers(0, 2**32 - 1))
    return slices_like(n, seed, bits=draw(st.sampled_from([1, 5, 20, 64])), step=draw(st.sampled_from([0.01, 0.04])))


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    return slices_like(FILED, 0)


@pytest.fixture(scope="module")
def scattered() -> np.ndarray:
    """So many and so different that searches open files up to a radius of 12 bits."""
    return np.random.default_rng(2).integers(0, 2**64, 20_000, np.uint64)


@settings(max_examples=60, deadline=None)
@given(hashes=sets(), threshold=st.integers(0, 64), seed=st.integers(0, 2**32 - 1))
def test_exemplars_equal_the_rule(hashes, threshold, seed):
    order = np.random.default_rng(seed).permutation(len(hashes))
    for walk in (None, order):
        by, distance = first_come(hashes, threshold, range(len(hashes)) if walk is None else walk)
        result = exemplars_of_hashes(hashes, threshold, order=walk)
        assert result.kept_by.tolist() == by
        assert result.distance.tolist() == distance
        assert result.kept.tolist() == [i == index for index, i in enumerate(by)]


@pytest.mark.parametrize("threshold", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 24, 63, 64])
def test_exemplars_of_many_hashes_equal_those_of_a_volume(large, threshold):
    order = np.random.default_rng(1).permutation(FILED)
    for walk in (None, order):
        expected = exemplars(lambda i: hamming_distances(large[i : i + 1], large)[0], FILED, threshold, order=walk)
        result = exemplars_of_hashes(large, threshold, order=walk)
        np.testing.assert_array_equal(result.kept_by, expected.kept_by)
        np.testing.assert_array_equal(result.distance, expected.distance)
        np.testing.assert_array_equal(result.kept, expected.kept)


def test_the_large_sets_use_both_ways(large):
    assert neighbours._file(large, 6)[0].size
    assert not neighbours._file(large, 13)[0].size
    assert not neighbours._file(large[:100], 6)[0].size
    by_files = np.full(FILED, -1)
    neighbours._claim(large, np.uint64(6), *neighbours._file(large, 6), by_files)
    by_reading = np.full(FILED, -1)
    empty = np.empty((0, 0), np.int64), np.empty((0, 0), np.int32)
    neighbours._claim(large, np.uint64(6), *empty, *neighbours._file(large, 6)[2:], by_reading)
    np.testing.assert_array_equal(by_files, by_reading)


def test_the_first_exemplar_stands_for_a_hash_not_the_closest():
    hashes = np.array([0b0000, 0b1111, 0b0111], np.uint64)
    result = exemplars_of_hashes(hashes, 3)
    assert result.kept_by.tolist() == [0, 1, 0]
    assert result.distance.tolist() == [0, 0, 3]
    assert exemplars_of_hashes(hashes, 3, order=[1, 0, 2]).kept_by.tolist() == [0, 1, 1]
    assert exemplars_of_hashes(hashes, 4).kept_by.tolist() == [0, 0, 0]


def test_blank_slices_have_one_exemplar():
    for n in (1, 10, FILED):
        result = exemplars_of_hashes(np.zeros(n, np.uint64), 0)
        assert result.kept.sum() == 1
        assert not result.kept_by.any()


def test_radius_0_and_64():
    hashes = np.array([0, 2**64 - 1, 0, 1], np.uint64)
    assert exemplars_of_hashes(hashes, 0).kept_by.tolist() == [0, 1, 0, 3]
    assert exemplars_of_hashes(hashes, 64).kept_by.tolist() == [0, 0, 0, 0]
    assert exemplars_of_hashes(hashes, 63).kept_by.tolist() == [0, 1, 0, 0]
    rows, columns, distances = neighbours_within(hashes[:2], hashes, 64)
    assert rows.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert columns.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert distances.tolist() == [0, 64, 0, 1, 64, 0, 64, 63]
    assert count_neighbours(hashes, hashes, 0).tolist() == [2, 1, 2, 1]


@settings(max_examples=60, deadline=None)
@given(hashes=sets(), others=sets(), radius=st.integers(0, 64))
def test_neighbours_are_all_pairs_within_the_radius(hashes, others, radius):
    distances = hamming_distances(hashes, others)
    rows, columns, found = neighbours_within(hashes, others, radius)
    expected_rows, expected_columns = np.nonzero(distances <= radius)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(columns, expected_columns)
    np.testing.assert_array_equal(found, distances[rows, columns])
    np.testing.assert_array_equal(count_neighbours(hashes, others, radius), (distances <= radius).sum(1))


@pytest.mark.parametrize("radius", [0, 3, 4, 6, 7, 8, 9, 20])
def test_neighbours_in_a_large_set(large, radius):
    """Among them blank slices: hundreds of equal hashes, all of which are each other's neighbours."""
    some = np.concatenate([slices_like(300, 0), slices_like(200, 5), np.zeros(3, np.uint64)])
    distances = hamming_distances(some, large)
    rows, columns, found = neighbours_within(some, large, radius)
    expected_rows, expected_columns = np.nonzero(distances <= radius)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(columns, expected_columns)
    np.testing.assert_array_equal(found, distances[rows, columns])


@settings(max_examples=30, deadline=None)
@given(radius=st.integers(0, 12), seed=st.integers(0, 2**32 - 1))
def test_every_pair_at_the_radius_is_found_once(scattered, radius, seed):
    """The bits may fall into the bands in any way; each pair must be found, and not once for each band."""
    rng = np.random.default_rng(seed)
    flips = np.zeros((200, 64), bool)
    for row in flips:
        row[rng.choice(64, radius, replace=False)] = True
    near = scattered[100:300] ^ (flips * (np.uint64(1) << np.arange(64, dtype=np.uint64))).sum(1, dtype=np.uint64)
    rows, columns, distances = neighbours_within(near, scattered, radius)
    found = list(zip(rows.tolist(), columns.tolist(), distances.tolist(), strict=True))
    assert set(zip(range(200), range(100, 300), [radius] * 200, strict=True)) <= set(found)
    assert len(set(found)) == len(found)


def test_empty_sets():
    none, some = np.empty(0, np.uint64), np.arange(3, dtype=np.uint64)
    assert [len(part) for part in neighbours_within(none, some, 6)] == [0, 0, 0]
    assert [len(part) for part in neighbours_within(some, none, 6)] == [0, 0, 0]
    assert count_neighbours(some, none, 6).tolist() == [0, 0, 0]
    assert len(exemplars_of_hashes(none, 6).kept) == 0


def test_mistakes_are_named():
    hashes = np.arange(3, dtype=np.uint64)
    with pytest.raises(ValueError, match="found int64 \\(3,\\); make them with dhash"):
        exemplars_of_hashes(np.arange(3), 6)
    with pytest.raises(ValueError, match="found uint64 \\(1, 3\\)"):
        neighbours_within(hashes, hashes[None], 6)
    for radius in (-1, 65, 2.5):
        with pytest.raises(ValueError, match=f"expected a distance of 0 to 64 whole bits, found {radius}"):
            count_neighbours(hashes, hashes, radius)
    for order in ([0, 1], [0, 0, 1], [1, 2, 3]):
        with pytest.raises(ValueError, match=r"expected an order that names each of 0\.\.2 once"):
            exemplars_of_hashes(hashes, 6, order=order)
