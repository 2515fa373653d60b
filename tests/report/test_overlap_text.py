from __future__ import annotations

import re
from pathlib import Path

from made_outputs import keep, make_out, make_pair

from lessismore_transforms.reduced.overlap import compare
from lessismore_transforms.report.overlap_text import as_text


def test_the_screen_shows_both_nulls_and_the_paper(tmp_path: Path) -> None:
    lines = as_text(compare(make_pair(tmp_path / "out"))).replace("\u00a0", " ").splitlines()
    assert lines[0] == "2 volumes, 30 slices"
    method = "HASH at 6 bits, rule exemplars"
    assert re.split(r"  +", lines[3]) == ["one", method, "6", "20.0 %", "0.0 %", "25.0 %", "0–100 %"]
    assert re.split(r"  +", lines[7]) == ["one", "other", "6", "4", "2", "50.0 %", "25.0 %", "0–75 %"]
    assert "9 to 30 %" in " ".join(lines)
    assert max(map(len, lines)) <= 100


def test_an_empty_selection_has_no_share(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [[0] * 3])
    comparison = compare([keep(out, "none", []), keep(out, "some", [1])])
    assert "–" in as_text(comparison)
