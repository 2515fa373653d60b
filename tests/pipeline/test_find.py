from __future__ import annotations

from pathlib import Path

import pytest

from lessismore_transforms.errors import RunError
from lessismore_transforms.pipeline.run import reduce_dataset


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="found none: the folder holds no files"):
        reduce_dataset(tmp_path, tmp_path.parent / "out", workers=0)
    (tmp_path / "a.txt").touch()
    with pytest.raises(RunError, match=r"skipped a\.txt \(not an image in a known format\) and 0 more"):
        reduce_dataset(tmp_path, tmp_path.parent / "out", workers=0)


def test_a_path_of_many_folders_is_cut_in_the_sentence(tmp_path: Path) -> None:
    deep = tmp_path.joinpath("data", *["d" * 40] * 30)
    deep.mkdir(parents=True)
    (deep / "a.txt").touch()
    with pytest.raises(RunError, match=r"skipped d{40}/[d/]+… \(not an image in a known format\)") as refused:
        reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0)
    assert len(str(refused.value)) < 500 + len(str(tmp_path))
