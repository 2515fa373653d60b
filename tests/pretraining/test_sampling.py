from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, in_bundle, tiny_settings, workflows

from lessismore_transforms.cli.main import main
from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.balance import Balanced
from lessismore_transforms.pretraining.loader import SliceBatches
from lessismore_transforms.pretraining.rotation import Rotation, random_keys
from lessismore_transforms.pretraining.sampling import count_near_pairs, draws_per_epoch, make_order, near_pairs_line
from lessismore_transforms.pretraining.settings import PretrainingSettings
from lessismore_transforms.pretraining.spreading import Spread, near_in_bits, near_in_mm
from lessismore_transforms.pretraining.trainer import make_plan, slices
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import read_reduction
from lessismore_transforms.training.assembly import make_loader
from lessismore_transforms.training.loader import Order, RandomOrder, StepLoader, StepSampler

CLUSTERS = np.array([0, 1, 0, 2, 1, 0, 2, 2, 3, 2])  # of 3, 2, 4 and 1 slices


def members(cluster: int) -> list[int]:
    return np.flatnonzero(cluster == CLUSTERS).tolist()


# Random


def test_the_random_order_is_that_of_before_to_the_bit() -> None:
    """As the sampler drew it before there were other orders."""
    steps = [(1, [4, 6, 10]), (2, [0, 1, 3]), (3, [8, 7, 2]), (4, [10, 6, 0]), (5, [9, 7, 8])]
    assert list(StepSampler(11, 3, 5, batches_per_epoch=3, seed=7)) == steps
    assert list(StepSampler(11, 3, 5, batches_per_epoch=3, seed=7, order=RandomOrder(11, 7))) == steps


# Rotate


def test_each_cluster_gives_one_member_in_each_epoch() -> None:
    order = Rotation(CLUSTERS, seed=5)
    assert order.draws == 4
    for epoch in range(24):
        assert sorted(CLUSTERS[order.draw(epoch)].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("cluster", range(4))
def test_each_member_comes_once_in_as_many_epochs_as_there_are(cluster: int) -> None:
    order, size = Rotation(CLUSTERS, seed=5), len(members(cluster))
    drawn = [next(item for item in order.draw(epoch).tolist() if CLUSTERS[item] == cluster) for epoch in range(60)]
    cycles = [tuple(drawn[begin : begin + size]) for begin in range(0, 60, size)]
    assert {tuple(sorted(cycle)) for cycle in cycles} == {tuple(members(cluster))}
    permutations = {1: 1, 2: 2, 3: 6, 4: 24}[size]
    assert len(set(cycles)) > permutations / 3  # another one in the next cycle


def test_all_permutations_of_a_cluster_are_as_likely() -> None:
    order = Rotation(np.zeros(3, np.int64), seed=1)
    cycles = np.array([order.draw(epoch)[0] for epoch in range(3 * 1200)]).reshape(1200, 3)
    counts = np.unique(cycles, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.abs(counts - 200).max() < 4 * 13  # a deviation is 12.9


def test_turns_depend_on_seed_and_epoch_alone() -> None:
    order = Rotation(CLUSTERS, seed=5)
    later = order.draw(7).tolist()
    assert Rotation(CLUSTERS, seed=5).draw(7).tolist() == later
    assert [Rotation(CLUSTERS, seed=6).draw(epoch).tolist() for epoch in range(4)] != [
        order.draw(epoch).tolist() for epoch in range(4)
    ]
    literal = [[4, 3, 5], [2, 6, 1], [0, 4, 8], [7, 2, 1], [1, 8, 0], [7, 4, 5]]
    order = Rotation(np.array([0, 1, 0, 2, 1, 0, 2, 2, 2]), 5)
    assert [
        order.draw(epoch).tolist() for epoch in range(6)
    ] == literal  # the same on every machine and in all versions


def splitmix64(value: int) -> int:
    """The published generator in whole numbers of Python."""
    most = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & most
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & most
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & most
    return value ^ (value >> 31)


def test_keys_are_those_of_splitmix64() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the first number of the authors' generator with the seed 0
    keys = random_keys(2**40 + 3, np.array([0, 0, 9]), np.array([0, 1, 2**33]))
    assert keys.dtype == np.uint64
    for key, cycle, member in zip(keys.tolist(), (0, 0, 9), (0, 1, 2**33), strict=True):
        assert key == splitmix64(splitmix64(splitmix64(2**40 + 3) ^ cycle) ^ member)


def test_an_epoch_of_many_slices_takes_no_second() -> None:
    random = np.random.default_rng(0)
    order = Rotation(np.unique(random.integers(0, 24_000, 240_000), return_inverse=True)[1], seed=1)
    begin = time.process_time()
    assert len(np.unique(order.clusters[order.draw(3)])) == order.draws
    assert time.process_time() - begin < 1


# Near pairs


def volumes_and_places(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slices of five volumes in any order, some at the same place, with hashes that are often near."""
    random = np.random.default_rng(seed)
    places = np.round(random.choice([0.7, 2.5, 0.001], 60) * random.integers(-20, 20, 60), 3)
    hashes = random.integers(0, 2**63, 3, dtype=np.uint64)[random.integers(0, 3, 60)]
    for _ in range(6):
        hashes = hashes ^ (np.uint64(1) << random.integers(0, 64, 60, dtype=np.uint64))
    return random.integers(0, 5, 60), places, hashes


def pairs_where(near: Callable[[int, int], bool], volumes: np.ndarray) -> set[tuple[int, int]]:
    """The slow, obvious search."""
    pairs = itertools.combinations(range(len(volumes)), 2)
    return {(i, j) for i, j in pairs if volumes[i] == volumes[j] and near(i, j)}


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    found = {(min(pair), max(pair)) for pair in pairs.tolist()}
    assert len(found) == len(pairs)  # none twice
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("distance", [0.0, 0.7, 2.1, 10.0, 1e9])
def test_near_along_the_axis(seed: int, distance: float) -> None:
    volumes, places, _ = volumes_and_places(seed)
    expected = pairs_where(lambda i, j: round(abs(places[i] - places[j]), 6) <= distance, volumes)
    assert as_set(near_in_mm(volumes, places, distance)) == expected


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bits", [0, 6, 12, 64])
def test_near_by_their_hashes(seed: int, bits: int) -> None:
    volumes, _, hashes = volumes_and_places(seed)
    expected = pairs_where(lambda i, j: (int(hashes[i]) ^ int(hashes[j])).bit_count() <= bits, volumes)
    assert as_set(near_in_bits(volumes, hashes, bits)) == expected


def test_a_distance_that_is_reached_is_near_whatever_rounding_makes_of_it() -> None:
    assert 20.1 - 10.1 > 10
    assert near_in_mm(np.zeros(2, np.int64), np.array([20.1, 10.1]), 10).tolist() == [[1, 0]]
    assert not len(near_in_mm(np.zeros(2, np.int64), np.array([20.101, 10.1]), 10))


def test_no_slices_have_no_near_pairs() -> None:
    none = np.empty(0, np.int64)
    assert near_in_mm(none, np.empty(0), 10).shape == near_in_bits(none, none.view(np.uint64), 6).shape == (0, 2)


# Spread


def spread(volumes: int, slices: int, spacing_mm: float, batch_size: int, distance_mm: float = 10) -> Spread:
    """Volumes of so many slices each."""
    which, places = np.repeat(np.arange(volumes), slices), np.tile(np.arange(slices) * spacing_mm, volumes)
    count = volumes * slices
    return Spread(near_in_mm(which, places, distance_mm), count, batch_size, count // batch_size, seed=3)


def near_in_batches(order: Spread, epoch: np.ndarray) -> int:
    """The slow, obvious count, in whole batches."""
    near = as_set(order.pairs)
    begins = range(0, order.batches * order.batch_size, order.batch_size)
    batches = [sorted(epoch[begin : begin + order.batch_size].tolist()) for begin in begins]
    return sum(pair in near for batch in batches for pair in itertools.combinations(batch, 2))


@pytest.mark.parametrize(
    ("volumes", "slices", "spacing_mm", "batch_size"),
    [(4, 24, 5.0, 8), (4, 24, 2.0, 8), (6, 40, 1.0, 16), (6, 25, 2.0, 16), (1, 50, 5.0, 12)],
    ids=["loose", "tight", "tighter", "left out", "one volume"],
)
def test_no_near_pair_remains_where_none_has_to(volumes: int, slices: int, spacing_mm: float, batch_size: int) -> None:
    order = spread(volumes, slices, spacing_mm, batch_size)
    for epoch in range(10):
        drawn, random = order.draw(epoch), RandomOrder(order.draws, 3).draw(epoch)
        assert sorted(drawn.tolist()) == list(range(order.draws))
        assert near_in_batches(order, drawn) == order.count_near(drawn) == 0
        assert near_in_batches(order, random) == order.count_near(random) > 0


def test_pairs_that_have_to_share_a_batch_are_as_few_as_possible() -> None:
    order = spread(2, 40, 1.0, 8, distance_mm=1000)  # 8 of a batch from 2 volumes: 2 x 6 pairs at least
    for epoch in range(5):
        assert order.count_near(order.draw(epoch)) == 10 * 2 * 6


def test_an_order_that_no_swap_helps_ends() -> None:
    order = spread(1, 40, 1.0, 8, distance_mm=1000)
    assert order.count_near(order.draw(0)) == 5 * 28


def test_the_batches_that_are_left_out_do_not_count() -> None:
    order = spread(1, 40, 1.0, 8, distance_mm=1000)
    order.batches = 3
    assert order.count_near(order.draw(0)) == 3 * 28


def test_spread_epochs_depend_on_seed_and_epoch_alone() -> None:
    order = spread(4, 24, 2.0, 8)
    later = order.draw(9).tolist()
    assert spread(4, 24, 2.0, 8).draw(9).tolist() == order.draw(9).tolist() == later
    assert order.draw(10).tolist() != later
    changed = Spread(order.pairs, order.draws, order.batch_size, order.batches, seed=4)
    assert changed.draw(9).tolist() != later


def test_without_near_slices_it_is_the_random_order() -> None:
    order = Spread(np.empty((0, 2), np.int64), 50, 8, 6, seed=3)
    assert order.draw(2).tolist() == RandomOrder(50, 3).draw(2).tolist()


def test_what_is_left_out_is_that_of_the_random_order() -> None:
    """So that the middle of a volume, where each slice has many neighbours, is seen as often as its ends."""
    order = spread(3, 25, 2.0, 16)
    for epoch in range(5):
        drawn, random = order.draw(epoch), RandomOrder(75, 3).draw(epoch)
        assert drawn[64:].tolist() == random[64:].tolist()
        assert drawn[:64].tolist() != random[:64].tolist()


# Batches


class Numbers:
    """Slice i is filled with i."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": np.full((1, 4, 4), index, np.uint8)}

    def __len__(self) -> int:
        return 96


ORDERS: dict[str, Callable[[], Order]] = {
    "rotate": lambda: Rotation(np.arange(96) // 4, 3), "spread": lambda: spread(4, 24, 2.0, 8)
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_workers_processes_and_a_resume_change_nothing(name: str) -> None:
    per_epoch = ORDERS[name]().draws // 8

    def sampler(start: int = 0, **more: int) -> StepSampler:
        order = ORDERS[name]()
        made = StepSampler(order.draws, 8, 3 * per_epoch, batches_per_epoch=per_epoch, seed=3, order=order, **more)
        made.start = start
        return made

    def drawn(start: int, workers: int) -> list[tuple[int, list[int]]]:
        loader = StepLoader(SliceBatches(Numbers()), sampler(start), workers=workers)
        return [(batch["step"], batch["image"][:, 0, 0, 0].tolist()) for batch in loader]

    steps = list(sampler())
    assert len(steps) == 3 * per_epoch
    assert drawn(0, 0) == drawn(0, 2) == steps
    for start in (1, per_epoch, per_epoch + 1):
        assert drawn(start, 0) == drawn(start, 2) == steps[start:]
    shares = [list(sampler(rank=rank, processes=2)) for rank in range(2)]
    assert [(step, a + b) for (step, a), (_, b) in zip(*shares, strict=True)] == steps


# Settings


@pytest.fixture(scope="module")
def reduced(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 96 slices of the small data set, and a selection of them."""
    folder = tmp_path_factory.mktemp("reduced") / "out"
    line = ["reduce", str(small_data), "--output_dir", str(folder), "--method", "all", "--workers", "0", "--no_report"]
    assert main(line) == 0
    assert main(["select", str(folder), "--threshold", "12", "--name", "hash12"]) == 0
    return folder


def settings(folder: Path, **given: Any) -> PretrainingSettings:
    return PretrainingSettings(folder, device="cpu", **{"batch_size": 4, "max_epochs": 2, "workers": 0, **given})


def dataset_of(given: PretrainingSettings) -> SliceSelectionDataset:
    return SliceSelectionDataset(given.dataset_dir, given.selection, removed=given.sampling == "rotate")


def test_an_epoch_of_clusters_is_as_long_as_that_of_the_reduced_set(reduced: Path) -> None:
    small, turning = (settings(reduced, selection="hash12", sampling=name) for name in ("random", "rotate"))
    few, all_of_them = dataset_of(small), dataset_of(turning)
    assert draws_per_epoch(turning, all_of_them) == len(few) < len(all_of_them) == 96
    plan = make_plan(turning, all_of_them)
    assert plan == make_plan(small, few)
    loader = make_loader(
        SliceBatches(all_of_them), plan, batch_size=4, seed=0, workers=0, device="cpu",
        order=make_order(turning, all_of_them, plan.batches_per_epoch),
    )  # fmt: skip
    assert len(loader) == len(few) // 4
    for _, indices in loader.sampler_of_steps:
        assert len(set(all_of_them.clusters[indices])) == 4
    assert len(slices(all_of_them)[0]) == 96
    assert len(slices(few)[0]) == len(few)


@pytest.mark.parametrize("given", [{}, {"spread_mm": 60}, {"spread_bits": 6}])
def test_near_slices_of_a_data_set(reduced: Path, given: dict[str, Any]) -> None:
    chosen = settings(reduced, sampling="spread", **given)
    manifest, selection = read_reduction(reduced)
    table, dataset = manifest.slices[selection.rows()], SliceSelectionDataset(reduced)
    order = make_order(chosen, dataset, 24)
    assert isinstance(order, Spread)
    volumes, places = table["volume"].to_numpy(), table["position_mm"].to_numpy()
    hashes = table["hash"].tolist()
    if "spread_bits" in given:
        expected = pairs_where(lambda i, j: (hashes[i] ^ hashes[j]).bit_count() <= 6, volumes)
        within = "6 bits"
    else:
        reach = given.get("spread_mm", 10)
        expected = pairs_where(lambda i, j: round(abs(places[i] - places[j]), 3) <= reach, volumes)
        within = f"{reach} mm"
    assert as_set(order.pairs) == expected
    found = count_near_pairs(order)
    assert found == {
        "spread": near_in_batches(order, order.draw(0)),
        "random": near_in_batches(order, RandomOrder(96, 0).draw(0)),
    }
    assert found["spread"] < found["random"] or not given  # slices of this set are 20 mm apart
    assert f"slices of one volume within {within} share a batch {found['spread']} times" in near_pairs_line(
        chosen, found
    )


def test_the_default_distance_is_written_down() -> None:
    assert PretrainingSettings("out", sampling="spread").spread_mm == 10
    assert PretrainingSettings("out", sampling="spread", spread_bits=0).spread_mm is None
    assert PretrainingSettings("out").spread_mm is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampling": "rotat"}, "expected a sampling of random, rotate or spread, found 'rotat'; random is usual"),
        ({"sampling": None}, "expected a sampling of random, rotate or spread, found None"),
        ({"spread_mm": 10}, "expected spread_mm with --sampling spread, found it with random: drop it, or take spread"),
        ({"sampling": "rotate", "spread_bits": 6}, "expected spread_bits with --sampling spread, found it with rotate"),
        ({"sampling": "spread", "spread_mm": 9, "spread_bits": 6}, "found both .9 and 6.: drop one"),
        (
            {"sampling": "spread", "spread_mm": 0},
            "expected spread_mm to be a number of mm above 0, found 0; 10 is usual",
        ),
        ({"sampling": "spread", "spread_mm": float("inf")}, "above 0, found inf"),
        ({"sampling": "spread", "spread_mm": "far"}, "above 0, found 'far'"),
        (
            {"sampling": "spread", "spread_bits": 65},
            "expected spread_bits to be 0 to 64 whole bits, found 65; 6 is usu",
        ),
        ({"sampling": "spread", "spread_bits": True}, "whole bits, found True"),
        ({"sampling": "spread", "spread_bits": 6.5}, "whole bits, found 6.5"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PretrainingSettings("out", **given)


def test_nothing_to_rotate(reduced: Path) -> None:
    chosen = settings(reduced, sampling="rotate")
    with pytest.raises(UserError, match=r"found that 'default' of .* removed none: name one with --selection"):
        make_plan(chosen, dataset_of(chosen))


def test_bundles_rotate_and_spread(tmp_path: Path, reduced: Path) -> None:
    """Through the shipped configuration, in one process to save its start."""
    files = [str(ROOT / "bundles" / "ct_moco_pretraining" / "configs" / "train.json")]
    given = tiny_settings()["moco"] | {
        "dataset_dir": str(reduced), "backbone": "resnet18", "batch_size": 8, "workers": 0, "log_interval": 1,
        "max_epochs": 2,
    }  # fmt: skip
    given.pop("queue_length", None)
    turning = {"selection": "hash12", "sampling": "rotate", "output_dir": "rotate"}
    runs: list[dict[str, Any]] = [
        turning,
        turning | {"resume": True, "max_epochs": 3, "sampling": "random"},
        {"sampling": "spread", "spread_mm": 60, "output_dir": "spread", "max_epochs": 1},
        {"sampling": "spread", "spread_mm": 50, "output_dir": "spread", "max_epochs": 1, "resume": True},
    ]
    code = workflows(*((files, given | run) for run in runs))
    code += """
said = [run(workflow) for workflow in workflows]
queue = len(workflows[0].parser.get_parsed_content("learner_def").queue_index)
print("SAID" + json.dumps([said, queue]))
"""
    printed, _, rest = in_bundle(tmp_path, "ct_moco_pretraining", code).partition("SAID")
    said, queue = json.loads(rest)
    assert "error: " not in said[0] + said[2]
    kept = len(SliceSelectionDataset(reduced, "hash12"))
    assert queue == max(1, kept // 2 // 8) * 8
    assert "error: expected to go on with sampling 'random', found 'rotate'" in said[1]
    assert "error: expected to go on with spread_mm 50.0, found 60.0" in said[3]

    config = json.loads((tmp_path / "rotate" / "config.json").read_text())
    assert config["plan"]["steps_per_epoch"] == kept // 8
    assert config["settings"]["sampling"] == "rotate"
    config = json.loads((tmp_path / "spread" / "config.json").read_text())
    first = json.loads((tmp_path / "spread" / "log.jsonl").read_text().splitlines()[0])
    found = config["near_pairs"]
    assert first["near_pairs"] == found
    assert found["spread"] < found["random"]
    assert config["settings"]["spread_mm"] == 60
    line = f"within 60 mm share a batch {found['spread']} times in the first epoch, in a random order {found['random']}"
    assert printed.count(line) == 1


# Balance


def balanced(sizes: list[int], batch_size: int, seed: int = 0, copies: int = 1) -> Balanced:
    """Volumes of so many clusters, each of so many slices."""
    volumes = np.repeat(np.arange(len(sizes)), np.array(sizes) * copies)
    return Balanced(volumes, np.repeat(np.arange(sum(sizes)), copies), batch_size, seed)


@pytest.mark.parametrize(("sizes", "batch_size"), [([3, 9, 40, 5], 12), ([2, 2, 30], 4), ([1, 8, 3], 3), ([20], 20)])
def test_volumes_are_drawn_equally_often_and_no_batch_holds_a_slice_twice(sizes: list[int], batch_size: int) -> None:
    order, volumes = balanced(sizes, batch_size, seed=3), np.repeat(np.arange(len(sizes)), sizes)
    assert order.draws == sum(sizes)
    for epoch in range(30):
        drawn = order.draw(epoch)
        counts = np.bincount(volumes[drawn], minlength=len(sizes))
        assert counts.sum() == order.draws
        assert np.ptp(counts) <= 1
        for begin in range(len(drawn) - batch_size + 1):  # wherever a batch begins
            assert len({*drawn[begin : begin + batch_size].tolist()}) == batch_size
        for volume, size in enumerate(sizes):  # all slices of a volume before one comes again
            times = np.bincount(drawn[volumes[drawn] == volume], minlength=len(volumes))[volumes == volume]
            assert np.ptp(times) <= 1
            assert times.sum() in (order.draws // len(sizes), order.draws // len(sizes) + 1)
            assert size == len(times)


@pytest.mark.parametrize(("together", "batch_size"), [(2, 8), (4, 8), (5, 10), (3, 12)])
def test_a_batch_takes_of_some_volumes_and_all_come_equally_often(together: int, batch_size: int) -> None:
    sizes = [4, 9, 40, 5, 22]
    volumes = np.repeat(np.arange(5), sizes)
    order = Balanced(volumes, np.arange(80), batch_size, seed=3, volumes_per_batch=together)
    for epoch in range(30):
        drawn = order.draw(epoch)
        batches = drawn[: len(drawn) // batch_size * batch_size].reshape(-1, batch_size)
        for batch in batches:
            counts = np.bincount(volumes[batch], minlength=5)
            assert np.count_nonzero(counts) == together
            assert set(counts[counts > 0].tolist()) == {batch_size // together}
            assert len({*batch.tolist()}) == batch_size
        taken = np.array([np.unique(volumes[batch]).tolist() for batch in batches])  # (batches, together)
        assert np.ptp(np.bincount(taken.ravel(), minlength=5)) <= 1


def test_all_volumes_per_batch_is_a_turn_of_its_own_and_an_impossible_number_is_refused() -> None:
    volumes, clusters = np.repeat(np.arange(3), 4), np.arange(12)
    assert Balanced(volumes, clusters, 6, 1, 3).draw(2).tolist() == Balanced(volumes, clusters, 6, 1).draw(2).tolist()
    for wrong in (0, -3, 4, 6, 2.0, True):
        with pytest.raises(UserError, match=rf"divide a batch of 6 evenly, and at most 3 volumes, found {wrong}:"):
            Balanced(volumes, clusters, 6, 1, wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="found a volume with 4"):
        Balanced(volumes, clusters, 5, 1, 1)
    with pytest.raises(UserError, match="volumes_per_batch with balance, found it without"):
        PretrainingSettings(dataset_dir="out", volumes_per_batch=3)


def test_within_a_volume_all_slices_and_copies_are_as_likely() -> None:
    order = balanced([2, 5], batch_size=4, copies=3)
    times = sum(np.bincount(order.draw(epoch), minlength=21) for epoch in range(3000))
    clusters = times.reshape(7, 3)
    assert np.abs(clusters[:2] / clusters[:2].mean() - 1).max() < 0.1
    assert np.abs(clusters[2:] / clusters[2:].mean() - 1).max() < 0.1
    assert clusters[:2].sum() == pytest.approx(clusters[2:].sum(), rel=0.01)


def test_balance_depends_on_seed_and_epoch_alone() -> None:
    order = balanced([3, 9, 5], 9, seed=4)
    later = order.draw(7).tolist()
    assert balanced([3, 9, 5], 9, seed=4).draw(7).tolist() == later
    assert balanced([3, 9, 5], 9, seed=5).draw(7).tolist() != later
    assert order.draw(6).tolist() != later


def test_a_volume_with_fewer_slices_than_a_batch_takes_of_it_is_refused() -> None:
    balanced([3, 9, 5], 9)
    with pytest.raises(UserError, match=r"4 slices or more of every volume .* a batch of 10 .* 3 volumes, found .* 3:"):
        balanced([3, 9, 5], 10)
    with pytest.raises(UserError, match="random or rotate"):
        PretrainingSettings(dataset_dir="out", sampling="spread", balance=True)
