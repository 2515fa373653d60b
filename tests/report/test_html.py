from __future__ import annotations

from lessismore_transforms.report.html import ranges
from lessismore_transforms.wording import percent


def test_ranges_and_shares_read_well() -> None:
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([1, 2, 3, 7]) == "1–3, 7"
    assert ranges([1, 3, 5, 6]) == "1, 3, …"
    assert [percent(share) for share in (0, 0.0036, 0.01, 0.2204, 1)] == [
        "0.0\u00a0%", "0.36\u00a0%", "1.0\u00a0%", "22.0\u00a0%", "100.0\u00a0%",
    ]  # fmt: skip
