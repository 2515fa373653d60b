"""What tests of the report share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_report(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the five real volumes, with its report."""
    from lessismore_transforms.pipeline.run import reduce_dataset

    folder = tmp_path_factory.mktemp("real")
    (folder / "key").write_bytes(b"0" * 32)
    reduce_dataset(real_data / "ct", folder / "out", workers=0, patient_key=folder / "key")
    return folder / "out"
