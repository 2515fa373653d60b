from __future__ import annotations

import re
from pathlib import Path

from report_cases import (
    Case,
    count_similar,
    make_out,
    report,
    walk_hashes,
)

from lessismore_transforms.reduction.target import Target


def test_the_advice_for_a_similarity_goes_in_its_direction(tmp_path: Path) -> None:
    hashes = walk_hashes(80, most=9)
    out = make_out(tmp_path, [Case(hashes)], Target.of(method="ssim", threshold=0.8), measure="ssim")
    text = report(out).text
    fewer, more = re.findall(r"--method ssim --threshold ([\d.]+) --name ssim\1", text)
    assert float(fewer) < 0.8 < float(more)
    assert count_similar(hashes, float(fewer)) < count_similar(hashes, 0.8) < count_similar(hashes, float(more))
    assert text.index("To keep fewer") < text.index(f"--threshold {fewer}") < text.index("To keep more")
