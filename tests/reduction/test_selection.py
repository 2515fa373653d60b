from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessismore_transforms.reduction.hashing import dhash, hamming_distances
from lessismore_transforms.reduction.selection import (
    every_nth,
    exemplars,
    keep_at_threshold,
    keep_count,
    removal_order,
    target_count,
)

# A, B and C of the paper's measure: 0, 4 and 8 ones, so that A-B and B-C are 4 bits apart and A-C 8.
ABC = hamming_distances(*2 * [np.array([0x00, 0x0F, 0xFF], np.uint64)])


def pair_rule(distances, *, similarity=False, threshold=None, count=1):
    """The paper's rule word for word: list all pairs, sort, walk down; stop at a threshold or a count."""
    n = len(distances)
    sign = -1 if similarity else 1
    pairs = [(sign * distances[i, j].item(), i, j) for i, j in itertools.combinations(range(n), 2)]
    present, falls = [True] * n, []
    for score, i, j in sorted(pairs):
        if sum(present) <= count or (threshold is not None and score > sign * threshold):
            break
        if present[i] and present[j]:
            present[j] = False
            falls.append((j, sign * score, i))
    return present, falls


def greedy(distances, threshold, order, *, similarity=False):
    """The released scripts' rule: take the first remaining slice, delete it and all that are close, repeat."""
    remaining, kept = list(order), {}
    while remaining:
        first = remaining.pop(0)
        row = distances[first]
        close = [i for i in remaining if (row[i] >= threshold if similarity else row[i] <= threshold)]
        kept[first] = close
        remaining = [i for i in remaining if i not in close]
    return kept


@st.composite
def matrices(draw):
    """Symmetric distances with many ties or none, of the types that the measures give."""
    n = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["few bits", "hashes", "float32", "float64", "zeros"]))
    if kind == "hashes":
        hashes = np.bitwise_xor.accumulate(np.uint64(1) << rng.integers(0, 64, n, np.uint64))
        return hamming_distances(hashes, hashes)
    if kind == "zeros":
        return np.zeros((n, n), np.uint8)
    matrix = rng.integers(0, 6, (n, n)).astype(np.uint8) if kind == "few bits" else rng.uniform(-1, 1, (n, n))
    matrix = np.triu(matrix, 1)
    return (matrix + matrix.T).astype(np.uint8 if kind == "few bits" else kind)


@given(matrices(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_removal_order_is_the_sorted_walk_over_pairs(distances, similarity):
    ranking = removal_order(distances, similarity=similarity)
    _, falls = pair_rule(distances, similarity=similarity)
    n = len(distances)
    assert len(falls) == n - 1
    for step, (slice_, score, remover) in enumerate(falls):
        assert ranking.removed_at[slice_] == score
        assert ranking.removed_by[slice_] == remover
        assert ranking.rank[slice_] == n - step
    assert np.isnan(ranking.removed_at[0])
    assert ranking.removed_by[0] == -1
    assert ranking.rank[0] == 1
    assert (ranking.removed_at.dtype, ranking.removed_by.dtype, ranking.rank.dtype) == (float, np.int64, np.int64)


@given(matrices(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_threshold_and_count_is_a_filter_of_one_ranking(distances, similarity):
    ranking = removal_order(distances, similarity=similarity)
    values = np.unique(distances).astype(float)
    for threshold in (*values, *(values[:-1] + np.diff(values) / 2), -2.0, 65.0):
        kept = keep_at_threshold(ranking, threshold, similarity=similarity)
        assert kept.tolist() == pair_rule(distances, similarity=similarity, threshold=threshold)[0]
        pairs = distances[np.ix_(kept, kept)][np.triu_indices(kept.sum(), 1)]
        assert (pairs < threshold).all() if similarity else (pairs > threshold).all()
    for count in range(1, len(distances) + 2):
        kept = keep_count(ranking, count)
        assert kept.tolist() == pair_rule(distances, similarity=similarity, count=count)[0]


@given(matrices())
@settings(max_examples=60, deadline=None)
def test_ranking_depends_on_the_order_of_distances_only(distances):
    ranking = removal_order(distances)
    stretched = removal_order(np.exp(distances.astype(float) / 8))
    mirrored = removal_order(-distances.astype(float), similarity=True)
    for other in (stretched, mirrored):
        np.testing.assert_array_equal(other.rank, ranking.rank)
        np.testing.assert_array_equal(other.removed_by, ranking.removed_by)
    np.testing.assert_array_equal(-mirrored.removed_at, ranking.removed_at)


@given(matrices(), st.data())
@settings(max_examples=60, deadline=None)
def test_later_slices_change_nothing_for_earlier_ones(distances, data):
    n = data.draw(st.integers(1, len(distances)))
    whole, part = removal_order(distances), removal_order(distances[:n, :n])
    np.testing.assert_array_equal(whole.removed_at[:n], part.removed_at)
    np.testing.assert_array_equal(whole.removed_by[:n], part.removed_by)


def test_pair_rule_by_hand():
    ranking = removal_order(ABC)
    # A-B is the first pair of two equals: B goes; A-C is next: C goes
    np.testing.assert_array_equal(ranking.removed_at, [np.nan, 4, 8])
    assert ranking.removed_by.tolist() == [-1, 0, 0]
    assert ranking.rank.tolist() == [1, 3, 2]
    assert keep_at_threshold(ranking, 6).tolist() == [True, False, True]
    assert [keep_at_threshold(ranking, t).sum() for t in (3.9, 4, 7.9, 8, 64)] == [3, 2, 2, 1, 1]
    assert keep_count(ranking, 2).tolist() == [True, False, True]


def test_smallest_volumes():
    one = removal_order(np.zeros((1, 1), np.uint8))
    assert np.isnan(one.removed_at).tolist() == [True]
    assert (one.removed_by.tolist(), one.rank.tolist()) == ([-1], [1])
    none = removal_order(np.zeros((0, 0)))
    assert len(none.removed_at) == len(none.removed_by) == len(none.rank) == 0
    assert keep_at_threshold(none, 6).shape == keep_count(none, 1).shape == (0,)


def test_a_large_volume_in_any_layout():
    rng = np.random.default_rng(5)
    hashes = np.bitwise_xor.accumulate(np.uint64(1) << rng.integers(0, 64, 400, np.uint64))
    distances = hamming_distances(hashes, hashes)
    _, falls = pair_rule(distances)
    for view in (distances, np.asfortranarray(distances), np.pad(distances, 3)[3:-3, 3:-3]):
        ranking = removal_order(view)
        assert [(j, ranking.removed_at[j], ranking.removed_by[j]) for j in np.argsort(-ranking.rank)[:-1]] == falls


@pytest.mark.parametrize(("bad", "match"), [(np.zeros((2, 3)), "n, n"), (np.zeros(4), "n, n")])
def test_removal_order_needs_all_pairs(bad, match):
    with pytest.raises(ValueError, match=match):
        removal_order(bad)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_removal_order_needs_finite_distances(value):
    distances = np.zeros((3, 3))
    distances[2, 1] = distances[1, 2] = value
    with pytest.raises(ValueError, match="finite"):
        removal_order(distances)


def test_exemplars_by_hand():
    """The order decides: A B C keeps A and C, B A C keeps B alone."""
    forward = exemplars(ABC.__getitem__, 3, 6)
    assert forward.kept.tolist() == [True, False, True]
    assert forward.kept_by.tolist() == [0, 0, 2]
    assert forward.distance.tolist() == [0, 4, 0]
    from_b = exemplars(ABC.__getitem__, 3, 6, order=[1, 0, 2])
    assert from_b.kept.tolist() == [False, True, False]
    assert from_b.kept_by.tolist() == [1, 1, 1]
    assert from_b.distance.tolist() == [4, 0, 4]


def test_exemplars_remove_at_the_threshold_itself():
    assert exemplars(ABC.__getitem__, 3, 4).kept.tolist() == [True, False, True]
    assert exemplars(ABC.__getitem__, 3, 3).kept.tolist() == [True, True, True]
    assert exemplars(ABC.__getitem__, 3, 8).kept.tolist() == [True, False, False]


@given(matrices(), st.booleans(), st.data())
@settings(max_examples=300, deadline=None)
def test_exemplars_are_the_released_deletion_loop(distances, similarity, data):
    n = len(distances)
    order = data.draw(st.permutations(range(n)))
    threshold = data.draw(st.sampled_from(sorted({-2.0, 0.0, 65.0, *distances.ravel().tolist()})))
    result = exemplars(distances.__getitem__, n, threshold, order=order, similarity=similarity)
    groups = greedy(distances, threshold, order, similarity=similarity)
    assert np.flatnonzero(result.kept).tolist() == sorted(groups)
    for exemplar, others in groups.items():
        assert result.kept_by[exemplar] == exemplar
        np.testing.assert_equal(result.distance[exemplar], np.nan if similarity else 0.0)
        for other in others:
            assert result.kept_by[other] == exemplar
            assert result.distance[other] == distances[exemplar, other]


@given(matrices(), st.data())
@settings(max_examples=60, deadline=None)
def test_exemplars_follow_the_order_not_the_position(distances, data):
    n = len(distances)
    place = np.array(data.draw(st.permutations(range(n))))  # place[k]: which slice stands at k now
    threshold = data.draw(st.integers(0, 6))
    straight = exemplars(distances.__getitem__, n, threshold)
    moved = exemplars(distances[np.ix_(place, place)].__getitem__, n, threshold, order=np.argsort(place))
    np.testing.assert_array_equal(moved.kept, straight.kept[place])
    np.testing.assert_array_equal(place[moved.kept_by], straight.kept_by[place])


def test_exemplars_ask_for_kept_slices_only():
    asked = []

    def row(index):
        asked.append(index)
        return ABC[index]

    exemplars(row, 3, 6)
    assert asked == [0, 2]


def test_exemplars_of_nothing():
    assert exemplars(ABC.__getitem__, 0, 6).kept.shape == (0,)


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3], [0, 1, 2, 2]])
def test_exemplars_need_a_whole_order(order):
    with pytest.raises(ValueError, match=r"each of 0\.\.2 once"):
        exemplars(ABC.__getitem__, 3, 6, order=order)


def test_blank_slices_leave_one():
    hashes = dhash(np.zeros((10, 30, 30), np.uint8))
    distances = hamming_distances(hashes, hashes)
    assert exemplars(distances.__getitem__, 10, 0).kept.sum() == 1
    assert removal_order(distances).rank.tolist() == [1, 10, 9, 8, 7, 6, 5, 4, 3, 2]


@pytest.mark.parametrize(
    ("n", "fraction", "count"),
    [
        (10, 0.15, 2),
        (10, 0.25, 3),
        (10, 0.35, 4),
        (275, 0.1, 28),
        (5, 0.1, 1),
        (4, 0.1, 1),
        (3, 0.001, 1),
        (7, 1e-7, 1),
        (0, 0.1, 1),
        (1, 0.5, 1),
        (100, 1, 100),
        (1000, 0.0005, 1),
        (20, np.float64(0.175), 4),
    ],
)
def test_target_count_rounds_half_up_in_decimals(n, fraction, count):
    assert target_count(n, fraction) == count


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, 10, float("nan"), float("inf")])
def test_target_count_needs_a_fraction(fraction):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        target_count(10, fraction)


def test_keep_count_keeps_at_least_one():
    with pytest.raises(ValueError, match="at least 1 slice"):
        keep_count(removal_order(ABC), 0)


def test_every_nth():
    assert np.flatnonzero(every_nth(11, 5)).tolist() == [0, 5, 10]
    assert np.flatnonzero(every_nth(11, 5, offset=4)).tolist() == [4, 9]
    assert every_nth(3, 1).all()
    assert every_nth(0, 5).shape == (0,)


@pytest.mark.parametrize(("step", "offset"), [(0, 0), (-1, 0), (5, 5), (5, -1)])
def test_every_nth_needs_a_step_and_an_offset_below_it(step, offset):
    with pytest.raises(ValueError, match="a step of at least 1"):
        every_nth(10, step, offset=offset)
