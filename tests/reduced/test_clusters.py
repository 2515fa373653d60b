from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lessismore_transforms.errors import ManifestError, UserError
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.clusters import cluster_numbers
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import read_reduction
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.store import fill_store
from lessismore_transforms.reduction.target import Target


@pytest.fixture(scope="module")
def whole(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 96 slices in the store, and selections of them."""
    output = tmp_path_factory.mktemp("clusters") / "out"
    reduce_dataset(small_data, output, Settings(Target.of(method="all")), workers=0)
    select(output, Target.of(threshold=12), "hash12")
    select(output, Target.of(threshold=12, rule="pairs"), "pairs12")
    select(output, Target.of(method="every_n", step=3), "third")
    return output


def test_chains_lead_to_a_kept_slice() -> None:
    names = ["a", "b", "c", "d", "e", "f", "g"]
    kept_by = ["b", "d", "", "e", "f", "", "c"]  # a - b - d - e - f
    assert cluster_numbers(names, kept_by).tolist() == [1, 1, 0, 1, 1, 1, 0]
    assert cluster_numbers([], []).tolist() == []


def test_a_long_chain_in_any_order() -> None:
    numbers = list(range(1000))
    random.Random(3).shuffle(numbers)
    kept_by = ["" if number % 250 == 0 else str(number - 1) for number in numbers]
    clusters = cluster_numbers([str(number) for number in numbers], kept_by)
    ends = [number // 250 for number in numbers if number % 250 == 0]  # numbered in their order
    assert clusters.tolist() == [ends.index(number // 250) for number in numbers]


@pytest.mark.parametrize(
    ("kept_by", "message"),
    [
        (["", "x", ""], "expected the slice that stands for b among the slices, found no x: make the selection again"),
        (["", "c", "b"], "expected `kept_by` to lead to a kept slice, found that it leads from b in a circle"),
        (["", "b", ""], "leads from b in a circle"),
    ],
    ids=["nowhere", "circle", "itself"],
)
def test_what_leads_to_no_kept_slice_is_refused(kept_by: list[str], message: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(message)):
        cluster_numbers(["a", "b", "c"], kept_by)


@pytest.mark.parametrize("name", ["hash12", "pairs12"])
def test_a_data_set_with_what_was_removed(whole: Path, name: str) -> None:
    dataset, table = SliceSelectionDataset(whole, name, removed=True), Selection.read(whole, name).slices
    assert dataset.slice_ids == table["slice_id"].tolist()
    lead = dict(zip(table["slice_id"], table["kept_by"], strict=True))
    kept = table.loc[table["kept"], "slice_id"].tolist()
    assert dataset.cluster_count == len(kept) < len(dataset) == 96
    for item, cluster in zip(dataset.slice_ids, dataset.clusters.tolist(), strict=True):
        while lead[item]:
            item = lead[item]
        assert item == kept[cluster]
    everything = SliceSelectionDataset(whole)
    assert all((dataset[i]["image"] == everything[i]["image"]).all() for i in range(96))
    reduced = SliceSelectionDataset(whole, name)
    assert reduced.slice_ids == kept
    assert (reduced.clusters == np.arange(len(kept))).all()
    assert reduced.cluster_count == len(kept)


def test_the_identity_is_of_clusters_too(whole: Path) -> None:
    select(whole, Target.of(threshold=20), "hash20")
    identities = [SliceSelectionDataset(whole, name, removed=True).identity() for name in ("hash12", "hash20")]
    assert len({*identities, SliceSelectionDataset(whole).identity()}) == 3  # the same 96 slices
    assert SliceSelectionDataset(whole, "hash12", removed=True).identity() == identities[0]


def test_the_tables_of_all_members(whole: Path) -> None:
    dataset = SliceSelectionDataset(whole, "hash12", removed=True)
    manifest, selection = read_reduction(whole, "hash12")
    table = manifest.slices[selection.rows(removed=True)]
    assert table["slice_id"].tolist() == dataset.slice_ids
    assert table["hash"].tolist() == dataset.hashes().tolist()
    assert table["position_mm"].tolist() == dataset.positions_mm.tolist()
    assert len(SliceSelectionDataset(whole, "hash12").hashes()) == dataset.cluster_count < len(dataset)
    assert dataset.smallest() == (48, 48)


def test_members_have_to_be_known_and_in_the_store(small_data: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found 'third' of .* removed 64 slices without comparing \(EveryN every 3 sl"):
        SliceSelectionDataset(whole, "third", removed=True)
    output = tmp_path / "out"
    reduce_dataset(small_data, output, Settings(Target.of(threshold=12)), workers=0)
    lacking = 96 - len(SliceSelectionDataset(output))
    advice = f"{lacking} slices are not there: `select {output} --method all --name all --fill_store` puts them there"
    with pytest.raises(ManifestError, match=re.escape(advice)):
        SliceSelectionDataset(output, removed=True)
    fill_store(output, select(output, Target.of(method="all"), "all")[0])  # as the sentence says
    assert len(SliceSelectionDataset(output, removed=True)) == 96
    shutil.rmtree(output / "store")
    with pytest.raises(ManifestError, match="96 slices are not there"):
        SliceSelectionDataset(output, removed=True)
