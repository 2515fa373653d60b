"""Mean and standard deviation of stored slices, exact and pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lessismore_transforms.reduced.grey_statistics import pooled, store_statistics
from lessismore_transforms.reduction.intensity import pixel_sums


def record(pictures: np.ndarray) -> dict[str, Any]:
    """What a volume's record holds of its stored slices (k, rows, columns)."""
    total, squares = pixel_sums(pictures)
    _, height, width = pictures.shape
    return {"height": height, "width": width, "store": {"slices": len(pictures), "sum": total, "squares": squares}}


def test_two_stores_together_are_as_one() -> None:
    random = np.random.default_rng(0)
    first, second = (random.integers(0, most, (5, 8, 9), np.uint8) for most in (256, 90))
    apart = [store_statistics([record(pictures)]) for pictures in (first, second)]
    together = store_statistics([record(first), record(second)])
    pixels = np.concatenate([first.ravel(), second.ravel()]) / 255
    assert together == {
        "pixels": 720,
        "mean": pytest.approx(pixels.mean(), abs=1e-6),
        "std": pytest.approx(pixels.std(), abs=1e-6),
    }
    assert pooled([each for each in apart if each]) == pytest.approx((together["mean"], together["std"]), abs=2e-6)


def test_sums_do_not_overflow() -> None:
    white = np.full((1, 600, 600), 255, np.uint8)
    assert pixel_sums(white) == (91_800_000, 23_409_000_000)
    assert store_statistics([record(white)]) == {"pixels": 360_000, "mean": 1.0, "std": 0.0}


@pytest.mark.parametrize("records", [[], [record(np.zeros((0, 5, 5), np.uint8))]])
def test_what_is_not_known_is_not_told(records: list[dict[str, Any]]) -> None:
    assert store_statistics(records) is None
