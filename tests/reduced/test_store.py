from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import read_index, tree

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.phantom import phantom_scan, write_nifti
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.store import changed_stores, fill_store, last_dataset_dir
from lessismore_transforms.reduction.target import Target


def test_filled_slices_stay_and_stale_selections_are_refused(small_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(small_data, tmp_path / "data")
    later = sorted(path for path in data.iterdir() if path.is_dir())[0]
    later.rename(tmp_path / "later")
    reduce_dataset(data, tmp_path / "out", workers=0)
    selection, lacking = select(tmp_path / "out", Target.of(threshold=0), "all")
    assert fill_store(tmp_path / "out", selection) == lacking > 0
    before = read_index(tmp_path / "out")
    (tmp_path / "later").rename(later)
    reduce_dataset(data, tmp_path / "out", workers=0)
    assert read_index(tmp_path / "out").items() >= before.items()
    with pytest.raises(ManifestError, match=r"names other slices than manifest\.csv.*make it again with `select`"):
        SliceSelectionDataset(tmp_path / "out", "all")
    assert len(SliceSelectionDataset(tmp_path / "out")) == len(Selection.read(tmp_path / "out").kept_ids)


def test_a_lost_file_of_the_store_is_made_again(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "out", workers=0)
    (lost, *_) = sorted((tmp_path / "out" / "store").glob("*.npy"))
    before = lost.read_bytes()
    lost.unlink()
    with pytest.raises(
        ManifestError, match=r"is missing: `reduce` run again, or `select --fill_store`, makes it again"
    ):
        list(map(SliceSelectionDataset(tmp_path / "out").__getitem__, range(len(read_index(tmp_path / "out")))))
    filled = fill_store(tmp_path / "out", Selection.read(tmp_path / "out"))
    assert filled == len(np.load(lost))
    assert lost.read_bytes() == before


@pytest.mark.parametrize("size", [32, 40])
def test_changed_files_are_not_taken_into_a_store(tmp_path: Path, size: int) -> None:
    path = write_nifti(phantom_scan(0, slices=8, size=32), tmp_path / "data" / "ct.nii.gz")
    reduce_dataset(tmp_path / "data", tmp_path / "out", Settings(Target.of(threshold=12)), workers=0)
    selection, lacking = select(tmp_path / "out", Target.of(method="all"), "all")
    assert lacking
    path.unlink()
    write_nifti(phantom_scan(1, slices=8, size=size), path)
    before = tree(tmp_path / "out")
    with pytest.raises(ManifestError, match=r"ct\.nii\.gz changed since it was reduced: reduce again"):
        fill_store(tmp_path / "out", selection)
    assert tree(tmp_path / "out") == before


def test_slices_for_which_the_memory_limit_was_raised_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nifti(phantom_scan(0, slices=8, size=72), tmp_path / "data" / "ct.nii.gz")
    monkeypatch.setattr("lessismore_transforms.volumes.discovery.most_pixels", lambda memory_mb: memory_mb)  # 5184 here
    settings = Settings(Target.of(threshold=12), memory_mb=5184)
    assert reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0).failures == []
    selection, lacking = select(tmp_path / "out", Target.of(method="all"), "all")
    assert lacking
    with pytest.warns(UserWarning, match="not in the store"):
        direct = list(SliceSelectionDataset(tmp_path / "out", "all"))
    assert fill_store(tmp_path / "out", selection) == lacking
    stored = list(SliceSelectionDataset(tmp_path / "out", "all"))
    assert len(stored) == 8
    for one, other in zip(direct, stored, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.parametrize(
    "line", ["7", '"dataset_dir"', '["dataset_dir"]', '{"dataset_dir": 5}', "[" * 100_000, '{"data']
)
def test_an_odd_line_of_the_log_tells_nothing(tmp_path: Path, line: str) -> None:
    (tmp_path / "run.jsonl").write_text(f'{{"dataset_dir": "/data"}}\n{line}\n')
    assert last_dataset_dir(tmp_path) == Path("/data")
    (tmp_path / "run.jsonl").write_text(f"{line}\n")
    with pytest.raises(ManifestError, match="does not tell where the volumes are"):
        last_dataset_dir(tmp_path)


def test_changed_pixels_of_the_store_are_found(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reduce_dataset(small_data, out, workers=0)
    selection, lacking = select(out, Target.of(threshold=0), "all")
    assert lacking
    assert changed_stores(Manifest.read(out)) == []
    fill_store(out, selection)
    assert changed_stores(Manifest.read(out)) == []
    first, second, *_ = sorted((out / "store").glob("*.npy"))
    pixels = np.load(first)
    pixels[-1, 3, 4] ^= 1
    np.save(first, pixels)
    second.unlink()
    assert sorted(changed_stores(Manifest.read(out))) == [f"store/{first.name}", f"store/{second.name}"]
