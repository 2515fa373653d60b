from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from report_cases import (
    Case,
    count_exemplars,
    count_pairs,
    make_out,
    similarities,
    summaries_of,
    walk_hashes,
)

from lessismore_transforms.reduction.measures import rank_slices
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.summary import (
    exemplar_counts,
    nearest_pairs,
    pair_counts,
    robust_z,
)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=25))
def test_counts_of_all_thresholds_equal_one_run_each(hashes: list[int]) -> None:
    array = np.array(hashes, dtype=np.uint64)
    assert exemplar_counts(array).tolist() == [count_exemplars(hashes, bits) for bits in range(65)]
    removed_at = rank_slices("hash", array, np.ones(len(hashes), dtype=bool)).removed_at
    assert pair_counts(removed_at).tolist() == [count_pairs(hashes, bits) for bits in range(65)]


def test_opposite_hashes_stay_apart_until_64_bits() -> None:
    assert exemplar_counts(np.array([0, 2**64 - 1], dtype=np.uint64)).tolist() == [2] * 64 + [1]


def test_examples_of_a_similarity_fell_at_it_or_next_above(tmp_path: Path) -> None:
    hashes = walk_hashes(80, most=9)
    target = Target.of(method="ssim", threshold=0.85)
    (volume,) = summaries_of(make_out(tmp_path, [Case(hashes)], target, measure="ssim"))
    pairs = nearest_pairs(volume, "ssim", [0.95, 0.9, 0.85, -0.5])
    assert pairs.keys() == {0.95, 0.9, 0.85, -0.5}
    for above, mark in ((2, 0.95), (0.95, 0.9), (0.9, 0.85), (0.85, -0.5)):
        kept, removed = pairs[mark]
        ranking = volume.rankings["ssim"]
        value = similarities(hashes)[kept, removed]
        assert value == min(at for at in ranking.removed_at if mark <= at < above)
        assert not ranking.removed_at[kept] > value


def test_robust_z_without_differing_spacings_is_that_of_the_log_shares(tmp_path: Path) -> None:
    kept = [1, 2, 3, 4, 5, 6, 8, 10, 10]
    hashes = [(1 << (6 * index)) * 63 for index in range(10)]
    cases = [Case(hashes[:number] + hashes[:1] * (10 - number)) for number in kept]
    logs = np.log(np.array(kept) / 10)
    mad = np.median(np.abs(logs - np.median(logs)))
    np.testing.assert_allclose(
        robust_z(summaries_of(make_out(tmp_path, cases))), 0.6745 * (logs - np.median(logs)) / mad
    )
