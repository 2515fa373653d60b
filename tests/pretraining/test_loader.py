from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import in_processes

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pretraining.loader import SliceBatches
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.training.loader import StepLoader, StepSampler

Steps = list[tuple[int, list[int]]]


class Pictures:
    """Slices of three sizes; slice i is filled with i + 1."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> dict[str, Any]:
        height, width = ((6, 9), (8, 5), (7, 7))[index % 3]
        return {"image": np.full((1, height, width), index + 1, np.uint8), "slice_id": str(index)}


def sampler(start: int = 0, **changes: int) -> StepSampler:
    made = StepSampler(**{"slices": 23, "batch_size": 4, "iterations": 13, "batches_per_epoch": 5, **changes})
    made.start = start
    return made


def content(loader: StepLoader) -> list[tuple[int, bytes, list[list[int]], list[int]]]:
    return [(b["step"], b["image"].numpy().tobytes(), b["size"].tolist(), b["index"].tolist()) for b in loader]


def test_epochs_are_permutations_cut_into_batches() -> None:
    steps = list(sampler())
    assert [step for step, _ in steps] == list(range(1, 14))
    assert {len(indices) for _, indices in steps} == {4}
    epochs = [list(itertools.chain(*(indices for _, indices in steps[begin : begin + 5]))) for begin in (0, 5, 10)]
    assert [len(set(epoch)) for epoch in epochs] == [20, 20, 12]  # no slice twice; the third epoch is cut short
    assert set().union(*epochs) == set(range(23))  # another three are left out in each
    assert epochs[0] != epochs[1]
    assert list(sampler()) == steps
    assert list(sampler(seed=1)) != steps
    assert len(sampler()) == 5


def test_many_epochs_take_every_slice_equally_often() -> None:
    steps = list(sampler(iterations=5 * 400))
    counts = np.bincount(list(itertools.chain(*(indices for _, indices in steps))), minlength=23)
    # Out of 400 epochs each slice is in a share of 20/23: a deviation is 6.7.
    assert np.abs(counts - 400 * 20 / 23).max() < 4 * 6.7


def test_a_resumed_stream_goes_on_with_the_same_batches() -> None:
    steps = list(sampler())
    for start in range(14):
        assert list(sampler(start)) == steps[start:]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batches_of_one(processes: int) -> None:
    shares = [list(sampler(rank=rank, processes=processes)) for rank in range(processes)]
    together = [
        (parts[0][0], list(itertools.chain(*(part[1] for part in parts)))) for parts in zip(*shares, strict=True)
    ]
    assert together == list(sampler())


def _share() -> list[tuple[int, list[int]]]:
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    loader = StepLoader(SliceBatches(Pictures()), sampler(3, rank=rank, processes=processes))
    return [(batch["step"], batch["index"].tolist()) for batch in loader]


def test_two_real_processes_share_the_batches_of_one() -> None:
    first, second = in_processes(_share, 2)
    assert [(step, a + b) for (step, a), (_, b) in zip(first, second, strict=True)] == list(sampler(3))


def test_workers_give_the_same_bytes_also_after_a_resume() -> None:
    alone = content(StepLoader(SliceBatches(Pictures()), sampler()))
    assert content(StepLoader(SliceBatches(Pictures()), sampler(), workers=2)) == alone
    assert content(StepLoader(SliceBatches(Pictures()), sampler(7), workers=2)) == alone[7:]


def test_slices_of_different_sizes_are_padded_at_the_right_and_the_bottom() -> None:
    batch = SliceBatches(Pictures()).__getitems__((9, [4, 0, 3]))
    assert batch["image"].shape == (3, 1, 8, 9)
    assert batch["image"].dtype == torch.uint8
    assert batch["size"].tolist() == [[8, 5], [6, 9], [6, 9]]
    assert batch["index"].tolist() == [4, 0, 3]
    assert batch["index"].dtype == batch["size"].dtype == torch.int64
    assert batch["step"] == 9
    for image, (height, width), value in zip(batch["image"][:, 0], batch["size"].tolist(), (5, 1, 4), strict=True):
        assert (image[:height, :width] == value).all()
        assert image.count_nonzero() == height * width


def test_batches_come_from_the_store(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "out", Settings(Target.of(threshold=6)), workers=0)
    dataset = SliceSelectionDataset(tmp_path / "out")
    seen = 0
    for workers in (0, 1):
        steps = StepSampler(len(dataset), 4, 5, batches_per_epoch=len(dataset) // 4)
        loader = StepLoader(SliceBatches(dataset), steps, workers=workers)
        assert len(loader) == len(dataset) // 4
        for batch in loader:
            for image, index in zip(batch["image"], batch["index"].tolist(), strict=True):
                np.testing.assert_array_equal(image.numpy(), dataset[index]["image"])
                seen += 1
    assert seen == 2 * 5 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 24}, "at least as many slices as a batch holds, found 23 slices for a batch_size of 24"),
        ({"processes": 3}, "a batch_size that 3 processes can share evenly, found 4"),
        ({"batch_size": 0}, "batch_size"),
        ({"batches_per_epoch": 6}, "expected 1 to 5 batches per epoch"),
        ({"batches_per_epoch": 0}, "expected 1 to 5 batches per epoch"),
    ],
)
def test_what_cannot_be_batched_is_refused_in_a_sentence(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(**changes)


def test_what_does_not_fill_a_batch_makes_a_smaller_one_where_it_is_kept() -> None:
    shares = [list(sampler(drop_last=False, batches_per_epoch=6, iterations=12, rank=r, processes=2)) for r in range(2)]
    for epoch in range(2):
        steps = range(6 * epoch, 6 * epoch + 6)
        batches = [shares[0][step][1] + shares[1][step][1] for step in steps]
        assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
        assert sorted(itertools.chain(*batches)) == list(range(23))
    assert [len(shares[rank][5][1]) for rank in range(2)] == [1, 2]
