from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tree

from lessismore_transforms.pipeline.run import reduce_dataset


@pytest.fixture(scope="session")
def expected(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed run in one process."""
    output = tmp_path_factory.mktemp("run") / "out"
    summary = reduce_dataset(small_data, output, workers=0)
    assert (summary.volumes, summary.slices, summary.failures, summary.resumed) == (4, 96, [], 0)
    return tree(output)
