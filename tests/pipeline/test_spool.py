from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lessismore_transforms.errors import OutputError
from lessismore_transforms.pipeline.spool import Spool


@pytest.mark.parametrize("memory", [0, 59, 60, 200, 1000])
def test_pictures_come_back_whether_they_were_in_memory_or_in_the_file(tmp_path: Path, memory: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (7, 5, 12), np.uint8)
    order = [6, 0, 3, 5, 1]  # slices come in any order, and some cannot be read
    with Spool(tmp_path, pictures.shape, memory) as spool:
        for index in order:
            spool.put(index, pictures[index].T.copy().T)  # of any strides
        for index in reversed(order):
            picture = spool.picture(index)
            np.testing.assert_array_equal(picture, pictures[index])
            assert picture.flags.c_contiguous
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    picture = np.zeros((5, 12), np.uint8)
    with Spool(tmp_path / "gone", (2, 5, 12), 60) as spool:
        spool.put(0, picture)
        with pytest.raises(OutputError, match="cannot write to"):
            spool.put(1, picture)
