"""What tests of the folder of a reduction share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lessismore_transforms.pipeline.run import reduce_dataset


@pytest.fixture(scope="module")
def finished(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a reduction; read only."""
    output = tmp_path_factory.mktemp("manifest") / "out"
    reduce_dataset(small_data, output, workers=0)
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A finished output that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "out"))
