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
