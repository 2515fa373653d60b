from __future__ import annotations

from pathlib import Path

import pytest

from lessismore_transforms.errors import RunError
from lessismore_transforms.pipeline.estimate import estimate
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduction.target import Target


def test_an_estimate_writes_nothing(small_data: Path, tmp_path: Path) -> None:
    expected = estimate(small_data, Settings(), workers=0)
    assert (expected.volumes, expected.slices) == (4, 96)
    assert 4 <= expected.kept <= 96
    assert expected.store_bytes >= expected.kept * 48 * 48
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_refused(small_data: Path) -> None:
    with pytest.raises(RunError, match="the device 'nonsense' cannot be used"):
        estimate(small_data, Settings(Target.of(method="ssim"), device="nonsense"), workers=0)
    assert estimate(small_data, Settings(device="nonsense"), workers=0).volumes == 4  # HASH computes on none
