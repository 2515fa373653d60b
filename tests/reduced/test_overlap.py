from __future__ import annotations

import csv
from collections import Counter
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_outputs import NAMES, keep, make_out, make_pair
from scipy import stats

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.overlap import Overlap, chance, compare, named_outputs, write_overlaps
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.table_files import slice_id
from lessismore_transforms.reduction.target import Target


def chance_by_counting(volumes: list[tuple[int, int, int]], more: float = 0) -> tuple[float, int, int]:
    """The mean and the middle 95 % of the shared number, over every way to keep a and b of n slices of each volume.

    `more` is added to the probabilities up to the ends of the interval.
    """
    ways = {0: 1}
    for a, b, n in volumes:
        shared = Counter(len({*one} & {*other}) for one, other in product(*(combinations(range(n), k) for k in (a, b))))
        before, ways = ways, Counter()
        for (total, number), (here, times) in product(before.items(), shared.items()):
            ways[total + here] += number * times
    every = sum(ways.values())
    low, high = (
        next(k for k in range(max(ways) + 1) if sum(ways[i] for i in range(k + 1)) >= q * every)
        for q in (0.025 + more, 0.975 + more)
    )
    return sum(k * number for k, number in ways.items()) / every, low, high


def chance_of(volumes: list[tuple[int, int, int]]) -> tuple[float, int, int]:
    return chance(*(np.array(column, dtype=np.int64) for column in zip(*volumes, strict=True)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_chance_is_what_counting_all_ways_gives(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    volumes = [(data.draw(st.integers(0, n)), data.draw(st.integers(0, n)), n) for n in sizes]
    assume(chance_by_counting(volumes, 1e-9) == chance_by_counting(volumes, -1e-9))  # at a tie floats may say either
    mean, low, high = chance_by_counting(volumes)
    assert chance_of(volumes) == (pytest.approx(mean), low, high)


@pytest.mark.parametrize(("a", "b", "n"), [(27, 27, 275), (100, 3, 275), (260, 250, 275), (2000, 300, 20000)])
def test_chance_of_one_volume_is_hypergeometric(a: int, b: int, n: int) -> None:
    exact = stats.hypergeom(n, a, b)
    assert chance_of([(a, b, n)]) == (pytest.approx(a * b / n), *exact.ppf([0.025, 0.975]))


def test_chance_of_many_volumes_is_nearly_normal() -> None:
    mean, low, high = chance_of([(25, 30, 250)] * 900)
    deviation = np.sqrt(900) * stats.hypergeom(250, 25, 30).std()
    assert mean == pytest.approx(2700)
    assert low == pytest.approx(2700 - 1.96 * deviation, abs=1)
    assert high == pytest.approx(2700 + 1.96 * deviation, abs=1)


# Overlap


def test_overlap_of_a_hand_made_pair(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [[0] * 10, [0] * 4])
    one, other = keep(out, "one", [0, 1, 2, 10]), keep(out, "other", [2, 3, 4, 5, 6, 10, 11])
    overlap = compare([one, other]).overlaps[0, 1]
    assert overlap.kept == (4, 7)
    assert overlap.shared == 2
    assert overlap.share == 0.5  # of the smaller
    assert overlap.expected == pytest.approx(3 * 5 / 10 + 1 * 2 / 4)
    assert (overlap.expected, overlap.low, overlap.high) == chance_by_counting([(3, 5, 10), (1, 2, 4)])


def test_the_order_of_two_selections_does_not_matter(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [[0] * 10, [0] * 4])
    pair = [keep(out, "one", [0, 1, 2, 10]), keep(out, "other", [2, 3, 4, 5, 6, 10, 11])]
    overlap, again = (compare(order).overlaps[0, 1] for order in (pair, pair[::-1]))
    assert again.kept == overlap.kept[::-1]
    assert (again.shared, again.low, again.high) == (overlap.shared, overlap.low, overlap.high)
    assert again.expected == pytest.approx(overlap.expected)


def test_chance_draws_from_slices_that_both_could_keep(tmp_path: Path) -> None:
    first, last = slice_id(NAMES[0], 0), slice_id(NAMES[0], 9)
    one = keep(make_out(tmp_path / "one", [[0] * 10], unreadable=(first,)), "default", [1, 2, 9])
    other = keep(make_out(tmp_path / "other", [[0] * 10], unreadable=(last,)), "default", [0, 1])
    overlap = compare([one, other]).overlaps[0, 1]
    assert overlap.kept == (3, 2)
    assert overlap.expected == pytest.approx(2 * 1 / 8)


def test_an_empty_selection_shares_nothing(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [[0] * 3])
    comparison = compare([keep(out, "none", []), keep(out, "some", [1])])
    assert np.isnan(comparison.overlaps[0, 1].share)
    assert (comparison.overlaps[0, 1].low, comparison.overlaps[0, 1].high) == (0, 0)
    write_overlaps(comparison, tmp_path / "compare.csv")
    assert (tmp_path / "compare.csv").read_text().splitlines()[1] == "none,some,0,1,0,,,,,,0"


# The same method in reversed order


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def exemplars_slowly(hashes: list[int], order: list[int], threshold: float) -> set[int]:
    kept: list[int] = []
    for i in order:
        if all(distance(hashes[i], hashes[k]) > threshold for k in kept):
            kept.append(i)
    return {*kept}


def pairs_slowly(hashes: list[int], order: list[int], target: Target) -> set[int]:
    there = {*order}
    pairs = sorted((distance(hashes[order[p]], hashes[order[q]]), p, q) for q in range(len(order)) for p in range(q))
    for bits, p, q in pairs:
        if target.fraction is None:
            go_on = bits <= target.threshold
        else:
            go_on = len(there) > int(target.fraction * len(order) + 0.5)
        if go_on and {order[p], order[q]} <= there:
            there.remove(order[q])
    return there


@pytest.mark.parametrize(("hashes", "share"), [([0, 0b111], 0.0), ([0, 0b1111, 0b11111111], 1.0), ([0] * 5, 0.0)])
def test_reversed_order_of_hand_made_chains(hashes: list[int], share: float, tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [hashes])
    select(out, Target.of(threshold=4), "four")
    select(out, Target.of(threshold=64), "all")
    own = compare([(out, "four"), (out, "all")]).choices[0].reversed
    assert own is not None
    assert own.share == share


@pytest.mark.parametrize("first_number", [None, 7])
@pytest.mark.parametrize(
    "target", [Target.of(threshold=6), Target.of(threshold=12, rule="pairs"), Target.of(fraction=0.25)], ids=str
)
def test_reversed_order_against_the_slow_rules(target: Target, first_number: int | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    hashes = [int(value) for value in np.bitwise_xor.accumulate(1 << rng.integers(0, 40, 24, dtype=np.uint64))]
    lost = 5
    out = make_out(tmp_path / "out", [hashes], unreadable=(slice_id(NAMES[0], lost),), first_number=first_number)
    order = sorted(range(24), key=lambda i: str(first_number + i)) if first_number else list(range(24))
    if target.rule == "exemplars":
        backwards = exemplars_slowly(hashes, [i for i in order[::-1] if i != lost], target.threshold or 0)
    else:  # the pair rule always walks by index
        backwards = pairs_slowly(hashes, [i for i in range(23, -1, -1) if i != lost], target)
    kept = {*range(0, 24, 2)}
    comparison = compare([keep(out, "one", sorted(kept), target), keep(out, "other", [0])])
    own = comparison.choices[0].reversed
    assert own is not None
    assert own.kept == (12, len(backwards))
    assert own.shared == len(kept & backwards)
    assert comparison.overlap(0, 0) is own


@pytest.mark.parametrize("rule", ["pairs", "exemplars"])
def test_reversed_order_of_another_measure_takes_the_kept_distances(rule: str, tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [[0] * 4], unreadable=(slice_id(NAMES[0], 0),))
    target = Target.of(method="ssim", threshold=0.5, rule=rule)
    pair = [keep(out, "one", [1, 3], target), keep(out, "other", [1], Target.of(method="every_n", step=4))]
    assert [choice.reversed for choice in compare(pair).choices] == [None, None]
    (out / "distances").mkdir()
    likeness = np.array([[1, 0.6, 0.4], [0.6, 1, 0.4], [0.4, 0.4, 1]], np.float32)  # of slices 1, 2, 3
    np.save(out / "distances" / f"{NAMES[0]}.npy", likeness)
    one, other = (choice.reversed for choice in compare(pair).choices)
    assert one is not None
    assert (one.kept, one.shared) == ((2, 2), 1)  # backwards 2 and 3 stay, as 2 comes before 1
    assert other is None


# Which outputs, by which names


def test_what_the_command_line_names(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert named_outputs(["OUT", "OUT:hash3"], ["default", "x"]) == [
        (Path("OUT"), "default"), (Path("OUT"), "x"), (Path("OUT"), "hash3"),
    ]  # fmt: skip
    assert named_outputs([f"{tmp_path}/a:b"], ["default"]) == [(tmp_path / "a:b", "default")]
    assert named_outputs(["C:\\data"], ["default"]) == [(Path("C:\\data"), "default")]


def test_labels_are_as_short_as_tells_them_apart(tmp_path: Path) -> None:
    folders = [make_out(tmp_path / name, [[0, 0]]) for name in ("one", "two", "deep/one")]
    for folder in folders:
        keep(folder, "default", [0])
        keep(folder, "hash3", [1])

    def labels(*outputs: tuple[int, str]) -> list[str]:
        return [choice.label for choice in compare([(folders[i], name) for i, name in outputs]).choices]

    assert labels((0, "default"), (0, "hash3")) == ["default", "hash3"]
    assert labels((0, "default"), (1, "default")) == ["one", "two"]
    assert labels((0, "default"), (0, "hash3"), (1, "default")) == ["one:default", "one:hash3", "two:default"]
    assert labels((0, "default"), (2, "default")) == ["one", "one (2)"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"volumes": [[0, 0]]}, f"volume {NAMES[1]} is in ONE but not in TWO"),
        ({"volumes": [[0, 0], [0], [0]]}, f"volume {NAMES[2]} is in TWO but not in ONE"),
        ({"volumes": [[0, 0], [0, 0]]}, f"volume {NAMES[1]} has 1 slice in ONE and 2 in TWO"),
        ({"crc": "0x00000001"}, f"volume {NAMES[0]} has 0x00000000 as CRC32 in ONE and 0x00000001 in TWO"),
        ({"as_released": True}, "TWO holds slices as released, ONE in canonical order"),
        ({"volumes": [[0], [0, 0]], "names": NAMES[1::-1]}, "ONE and TWO hold the same volumes in another order"),
    ],
)
def test_outputs_of_different_slices_are_refused(other: dict[str, object], words: str, tmp_path: Path) -> None:
    one = keep(make_out(tmp_path / "ONE", [[0, 0], [0]]), "default", [0])
    two = keep(make_out(tmp_path / "TWO", **{"volumes": [[0, 0], [0]], **other}), "default", [0])
    with pytest.raises(ManifestError) as caught:
        compare([one, two])
    assert str(caught.value).replace(f"{tmp_path}/", "") == f"{words}: compare outputs of the same data set"


def test_too_few_or_twice_the_same_is_refused(tmp_path: Path) -> None:
    one = keep(make_out(tmp_path / "one", [[0]]), "default", [0])
    with pytest.raises(ValueError, match="expected two selections or more to compare, found 1"):
        compare([one])
    with pytest.raises(ValueError, match=r"the selection default of .* is named twice"):
        compare([one, one])
    with pytest.raises(ManifestError, match="no selection 'hash3'"):
        compare([one, (one[0], "hash3")])


def test_a_selection_of_other_slices_is_refused(tmp_path: Path) -> None:
    one, two = make_out(tmp_path / "one", [[0, 0]]), make_out(tmp_path / "two", [[0, 0]], names=NAMES[1:])
    keep(one, "default", [0])
    keep(two, "foreign", [0])
    for end in ("csv", "json"):
        (two / "selections" / f"foreign.{end}").rename(one / "selections" / f"foreign.{end}")
    with pytest.raises(ManifestError, match=r"the selection foreign in .* names other slices than manifest\.csv"):
        compare([(one, "default"), (one, "foreign")])


# What is written


def test_the_table_holds_the_numbers(tmp_path: Path) -> None:
    write_overlaps(compare(make_pair(tmp_path / "out")), tmp_path / "compare.csv")
    with (tmp_path / "compare.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    random = (4 * 2 / 10 + 2 * 2 / 20) / 4
    mean, low, high = chance_by_counting([(4, 2, 10), (2, 2, 20)])
    assert mean == pytest.approx(4 * random)
    assert row == {
        "selection": "one", "other": "other", "kept": "6", "kept_other": "4", "shared": "2", "share": "0.5",
        "random_share": f"{random:.6g}", "random_low": f"{low / 4:g}", "random_high": f"{high / 4:g}",
        "reversed": "0", "reversed_other": "0",
    }  # fmt: skip  # all hashes are equal: reversed, only the last slice of each volume stays


def test_two_runs_on_the_same_scans(small_data: Path, tmp_path: Path) -> None:
    for bits in (3, 12):
        target = Target.of(threshold=bits)
        reduce_dataset(small_data, tmp_path / f"hash{bits}", Settings(target=target), workers=0)
    comparison = compare(named_outputs([str(tmp_path / "hash3"), str(tmp_path / "hash12")], ["default"]))
    assert [choice.label for choice in comparison.choices] == ["hash3", "hash12"]
    one, other = ({*Selection.read(tmp_path / name).kept_ids} for name in ("hash3", "hash12"))
    overlap = comparison.overlaps[0, 1]
    assert overlap.shared == len(one & other)
    assert overlap.kept == (len(one), len(other))
    assert isinstance(comparison.choices[1].reversed, Overlap)
