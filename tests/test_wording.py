from __future__ import annotations

import pytest

from lessismore_transforms.wording import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3571, "1 h 0 min"), (8000, "2 h 13 min"),
        (47 * 3600 + 59 * 60, "47 h 59 min"), (48 * 3600, "2 d 0 h"), (100 * 3600, "4 d 4 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
