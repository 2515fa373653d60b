from __future__ import annotations

import tracemalloc
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
    VOLUMES_FOR_SLOPE,
    VolumeSummary,
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


def volume_of(kept: int, spacing: float, count: int = 1000) -> VolumeSummary:
    """A volume of which the score asks only how many slices it has and keeps, and how far apart they are."""
    nothing = np.zeros(0)
    return VolumeSummary(
        record={"spacing_mm": [spacing, 1.0, 1.0]},
        hashes=nothing.astype(np.uint64),
        walk=nothing.astype(np.int64),
        reasons=[],
        rankings={},
        kept=np.arange(count) < kept,
        kept_by=nothing.astype(np.int64),
        distance=nothing,
        counts={},
    )


def drawn_volumes(number: int) -> list[VolumeSummary]:
    """Volumes that keep 2 % at 1 mm and in proportion at others, more or less, but for the last, which keeps all."""
    draw = np.random.default_rng(0)
    spacings = draw.choice([0.625, 1, 1.25, 2.5, 5], number)
    kept = np.round(20 * spacings * np.exp(draw.normal(0, 0.2, number))).astype(int)
    volumes = [volume_of(int(each), float(mm)) for each, mm in zip(kept, spacings, strict=True)]
    return [*volumes[:-1], volume_of(1000, 1.0)]


def z_by_the_slope_of(some: list[int], volumes: list[VolumeSummary]) -> np.ndarray:
    """The scores by a second implementation, which takes the slope of some of the volumes."""
    share = np.log([volume.share for volume in volumes])
    spacing = np.log([volume.spacing_mm for volume in volumes])
    pairs = [(a, b) for a in some for b in some if a < b and spacing[a] != spacing[b]]
    slope = np.median([(share[a] - share[b]) / (spacing[a] - spacing[b]) for a, b in pairs])
    residual = share - slope * spacing
    residual -= np.median(residual)
    return 0.6745 * residual / np.median(np.abs(residual))


def test_robust_z_is_that_of_all_pairs_of_so_many_volumes() -> None:
    volumes = drawn_volumes(VOLUMES_FOR_SLOPE)
    np.testing.assert_allclose(robust_z(volumes), z_by_the_slope_of(list(range(len(volumes))), volumes))


def test_robust_z_of_more_volumes_takes_the_slope_of_some_and_no_room_for_all_pairs() -> None:
    volumes = drawn_volumes(4 * VOLUMES_FOR_SLOPE)
    tracemalloc.start()
    z = robust_z(volumes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6  # bytes; all pairs took 24 each, 384 MB
    some = [round(place * (len(volumes) - 1) / (VOLUMES_FOR_SLOPE - 1)) for place in range(VOLUMES_FOR_SLOPE)]
    np.testing.assert_allclose(z, z_by_the_slope_of(some, volumes))
    assert z[-1] == max(z) > 10
    silent = [volume_of(1, 1.0, count=1), *volumes]  # one slice says nothing
    np.testing.assert_array_equal(robust_z(silent), [0, *z])
