from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import read_index, tree

from lessismore_transforms.phantom import phantom_scan, write_nifti
from lessismore_transforms.pipeline import run
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.store import fill_store
from lessismore_transforms.reduction.target import Target


@pytest.mark.parametrize("last", ["index.csv", "default.csv", "default.json", "manifest.csv", "manifest.json"])
def test_an_addition_that_is_killed_while_it_is_assembled(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes], last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands already, the old tables and the new ones are never mixed."""
    data = shutil.copytree(small_data, tmp_path / "data")
    later = sorted(path for path in data.iterdir() if path.is_dir())[1]
    later.rename(tmp_path / "later")
    reduce_dataset(data, tmp_path / "out", workers=0)
    (tmp_path / "later").rename(later)

    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == last and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        reduce_dataset(data, tmp_path / "out", workers=0)
    assert reduce_dataset(data, tmp_path / "out", workers=0).volumes == 4
    assert tree(tmp_path / "out") == expected


def test_a_changed_volume_reduced_again_by_a_run_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of before, with slices that fill_store added, no longer tells what the volume's file holds."""
    path = write_nifti(phantom_scan(0, slices=12, size=32), tmp_path / "data" / "ct.nii.gz")
    settings = Settings(Target.of(threshold=12))
    reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0)
    selection, _ = select(tmp_path / "out", Target.of(method="all"), "all")
    assert fill_store(tmp_path / "out", selection)
    path.unlink()
    write_nifti(phantom_scan(1, slices=12, size=32), path)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "assemble", killed)
        with pytest.raises(KeyboardInterrupt):
            reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0)
    assert reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0).resumed == 1
    reduce_dataset(tmp_path / "data", tmp_path / "fresh", settings, workers=0)
    assert read_index(tmp_path / "out") == read_index(tmp_path / "fresh")
    again, fresh = SliceSelectionDataset(tmp_path / "out"), SliceSelectionDataset(tmp_path / "fresh")
    for i in range(len(fresh)):
        np.testing.assert_array_equal(again[i]["image"], fresh[i]["image"])
