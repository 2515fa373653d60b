from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.measures import rank_slices
from lessismore_transforms.reduction.target import Kept, Target, text_order
from lessismore_transforms.reduction.target import choose as choose_slices

# Few bits set, so that distances are small and ties are many.
HASHES = st.lists(st.integers(0, 255), min_size=1, max_size=24).map(lambda values: np.array(values, dtype=np.uint64))


def choose(target, hashes, ranking, candidate, order=None) -> Kept:
    return choose_slices(
        target,
        ranking,
        candidate,
        positions_mm=np.arange(len(hashes), dtype=np.float64),
        distances_from=lambda index: hamming_distances(hashes[index : index + 1], hashes)[0],
        order=order,
        hashes=hashes,
    )


def bits(a: int, b: int) -> int:
    return int(a ^ b).bit_count()


def paper_rule(hashes: list[int], threshold: int) -> list[int]:
    """Section 2.1 by hand: the most similar pair that is left loses its later slice, until none is similar."""
    left = list(range(len(hashes)))
    while True:
        pairs = [(bits(hashes[i], hashes[j]), i, j) for i in left for j in left if i < j]
        if not pairs or min(pairs)[0] > threshold:
            return left
        left.remove(min(pairs)[2])


def released_rule(hashes: list[int], order: list[int], threshold: int) -> list[int]:
    """The released scripts by hand: copy the first that is left, delete all within the threshold, repeat."""
    left, copied = list(order), []
    while left:
        first = left[0]
        copied.append(first)
        left = [i for i in left if i != first and bits(hashes[first], hashes[i]) > threshold]
    return sorted(copied)


@given(HASHES, st.integers(0, 8), st.data())
def test_both_rules_equal_their_oracles_whoever_takes_part(hashes, threshold, data) -> None:
    candidate = np.array(data.draw(st.lists(st.booleans(), min_size=len(hashes), max_size=len(hashes))))
    taking_part = np.flatnonzero(candidate)
    values = [int(value) for value in hashes[taking_part]]
    ranking = rank_slices("hash", hashes, candidate)

    pairs = choose(Target.of(rule="pairs", threshold=threshold), hashes, ranking, candidate)
    assert np.flatnonzero(pairs.kept).tolist() == taking_part[paper_rule(values, threshold)].tolist()

    order = np.array(data.draw(st.permutations(range(len(hashes)))))
    exemplars = choose(Target.of(threshold=threshold), hashes, ranking, candidate, order)
    position = {slice_: i for i, slice_ in enumerate(taking_part.tolist())}
    walk = [position[i] for i in order.tolist() if candidate[i]]
    assert np.flatnonzero(exemplars.kept).tolist() == taking_part[released_rule(values, walk, threshold)].tolist()

    for kept in (pairs, exemplars):
        assert not (kept.kept & ~candidate).any()
        remaining = hashes[kept.kept].tolist()
        assert all(bits(a, b) > threshold for i, a in enumerate(remaining) for b in remaining[:i])
        for i in np.flatnonzero(candidate & ~kept.kept):
            stand_in = kept.kept_by[i]
            assert kept.distance[i] == bits(int(hashes[i]), int(hashes[stand_in])) <= threshold
        assert (kept.kept_by[kept.kept] == -1).all()
        assert np.isnan(kept.distance[kept.kept]).all()
    assert exemplars.kept[exemplars.kept_by[candidate & ~exemplars.kept]].all()


@given(HASHES, st.floats(0.01, 1))
def test_a_fraction_gives_its_exact_count_and_nests(hashes, fraction) -> None:
    candidate = np.ones(len(hashes), dtype=bool)
    ranking = rank_slices("hash", hashes, candidate)
    kept = choose(Target.of(fraction=fraction), hashes, ranking, candidate).kept
    more = choose(Target.of(fraction=min(1.0, 2 * fraction)), hashes, ranking, candidate).kept
    assert abs(kept.sum() - len(hashes) * fraction) <= 0.5 + 1e-9 or kept.sum() == 1
    assert not (kept & ~more).any()


def test_defaults() -> None:
    assert Target.of() == Target("hash", "exemplars", 6.0, None)
    assert Target.of(threshold=3, rule="pairs") == Target("hash", "pairs", 3.0, None)
    assert Target.of(fraction=0.1) == Target("hash", "pairs", fraction=0.1)
    assert Target.of(**Target.of(fraction=0.1).as_dict()) == Target.of(fraction=0.1)
    assert str(Target.of()) == "HASH at 6 bits, rule exemplars"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"threshold": 65}, "0 to 64 whole bits, found 65"),
        ({"threshold": -1}, "0 to 64 whole bits, found -1"),
        ({"threshold": 2.5}, "0 to 64 whole bits, found 2.5"),
        ({"threshold": float("nan")}, "0 to 64 whole bits, found nan"),
        ({"fraction": 0}, "above 0 and up to 1, found 0"),
        ({"fraction": 1.5}, "above 0 and up to 1, found 1.5"),
        ({"threshold": 3, "fraction": 0.1}, "found both"),
        ({"fraction": 0.1, "rule": "exemplars"}, "cannot hit a fraction"),
        ({"method": "SvaV"}, "method out of hash, ssim, .*, found 'SvaV'"),
        ({"rule": "first"}, "rule out of exemplars, pairs, found 'first'"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        Target.of(**arguments)


def test_released_names_sort_as_text() -> None:
    assert text_order(0, 12).tolist() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert text_order(98, 4).tolist() == [2, 3, 0, 1]  # 100, 101, 98, 99


@given(HASHES, st.integers(0, 8), st.integers(0, 3), st.data())
def test_near_slices_are_the_nearest_of_each_exemplar(hashes, threshold, near, data) -> None:
    order = np.array(data.draw(st.permutations(range(len(hashes)))))
    candidate, ranking = np.ones(len(hashes), dtype=bool), rank_slices("hash", hashes, np.ones(len(hashes), dtype=bool))
    plain = choose(Target.of(threshold=threshold), hashes, ranking, candidate, order)
    found = choose(Target.of(threshold=threshold, near=near), hashes, ranking, candidate, order)

    expected = set(np.flatnonzero(plain.kept).tolist())
    for exemplar in list(expected):
        members = [i for i in order.tolist() if plain.kept_by[i] == exemplar]  # in the walk
        expected |= {*sorted(members, key=lambda i: bits(hashes[i], hashes[exemplar]))[:near]}
    assert set(np.flatnonzero(found.kept).tolist()) == expected
    assert (found.kept_by[found.kept] == -1).all()
    np.testing.assert_array_equal(found.kept_by[~found.kept], plain.kept_by[~found.kept])


def test_a_random_choice_is_of_its_seed_and_volume_and_spreads_evenly() -> None:
    hashes, candidate = np.arange(10, dtype=np.uint64), np.arange(10) != 3
    ranking = rank_slices("hash", hashes, candidate)
    target = Target.of(method="random", fraction=1 / 3, seed=5)
    kept = [choose(target, hashes, ranking, candidate).kept for _ in range(2)]
    assert kept[0].tolist() == kept[1].tolist()
    assert kept[0].sum() == 3  # of nine candidates
    assert not kept[0][3]
    draws = [
        choose(Target.of(method="random", fraction=1 / 3, seed=seed), hashes, ranking, candidate).kept
        for seed in range(600)
    ]
    times = np.sum(draws, axis=0)
    assert times[3] == 0
    assert (np.abs(times[candidate] - 200) < 5 * np.sqrt(600 * 2 / 9)).all()  # five standard deviations
    others = choose(target, hashes + np.uint64(1), ranking, candidate).kept
    assert others.tolist() != kept[0].tolist()  # another volume


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "random", "step": 3}, "expected for random a fraction or a like, found a step"),
        ({"method": "every_n", "like": "a", "step": 3}, "found both"),
        ({"method": "hash", "like": "a"}, "found a like"),
        ({"method": "hash", "seed": 3}, "only random has a seed"),
        ({"method": "random", "seed": -1}, "seed of 0 or more"),
        ({"method": "hash", "fraction": 0.1, "near": 1}, "only the rule exemplars"),
        ({"method": "every_n", "near": 1}, "only the rule exemplars"),
        ({"near": -1}, "whole number of slices from 0"),
        ({"method": "every_n", "fraction": 0.1, "offset": 1}, "an offset goes with a step"),
    ],
)
def test_controls_that_make_no_sense_are_refused(options, words) -> None:
    with pytest.raises(UserError, match=words):
        Target.of(**options)
