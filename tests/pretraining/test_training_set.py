"""What a pre-training asks of outputs of `reduce` is told of one state of their tables, which are read once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from lessismore_transforms.phantom import write_demo_data
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pretraining.training_set import grey_mean, grey_std, open_dataset, slices, smallest
from lessismore_transforms.reduced.manifest import Manifest, read_reduction
from lessismore_transforms.reduction.target import Target


@pytest.fixture
def outputs(small_data: Path, tmp_path: Path) -> list[Path]:
    """Two outputs, of slices of 48 and of 32 pixels."""
    write_demo_data(tmp_path / "data", patients=2, slices=8, size=32, seed=50)
    folders = [tmp_path / "out", tmp_path / "other"]
    for data, folder in zip((small_data, tmp_path / "data"), folders, strict=True):
        reduce_dataset(data, folder, Settings(Target.of(threshold=3)), workers=0)
    return folders


def test_hashes_and_numbered_volumes_are_those_of_the_tables(outputs: list[Path]) -> None:
    read = [read_reduction(folder) for folder in outputs]
    table = pd.concat([manifest.slices[selection.rows()] for manifest, selection in read])
    hashes, volumes = slices(open_dataset(outputs))
    assert [int(bits) % 2**64 for bits in hashes] == table["hash"].tolist()
    assert volumes.tolist() == pd.factorize(table["volume"])[0].tolist()  # in the order in which they appear
    assert (hashes.dtype, volumes.dtype) == (torch.int64, torch.int64)
    assert volumes.unique().tolist() == [0, 1, 2, 3, 4, 5]
    part = open_dataset(outputs)[5:9]
    assert torch.equal(slices(part)[0], hashes[5:9])


def test_each_table_is_read_once(outputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read, reading = [], Manifest.read

    def count(folder: Path) -> Manifest:
        read.append(folder)
        return reading(folder)

    monkeypatch.setattr(Manifest, "read", count)
    dataset = open_dataset(outputs)
    expected = slices(dataset), smallest(dataset), grey_mean(dataset), grey_std(dataset)
    assert read == outputs
    for folder in outputs:
        shutil.rmtree(folder)  # what is told later is of the same state as the items
    again = slices(dataset), smallest(dataset), grey_mean(dataset), grey_std(dataset)
    assert all(map(torch.equal, again[0], expected[0]))
    assert again[1:] == expected[1:]
    assert expected[1] == (32, 32)
    assert 0 < expected[2][0] < 1
