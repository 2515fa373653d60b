from __future__ import annotations

from pathlib import Path

from lessismore_transforms.pipeline.estimate import estimate
from lessismore_transforms.pipeline.settings import Settings


def test_an_estimate_writes_nothing(small_data: Path, tmp_path: Path) -> None:
    expected = estimate(small_data, Settings(), workers=0)
    assert (expected.volumes, expected.slices) == (4, 96)
    assert 4 <= expected.kept <= 96
    assert expected.store_bytes >= expected.kept * 48 * 48
    assert list(tmp_path.iterdir()) == []
