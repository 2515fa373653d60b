from __future__ import annotations

import ast
import re
from itertools import chain, pairwise

import pytest
from helpers import ROOT

from lessismore_transforms.wording import counted, duration

COUNTED = (
    "bit", "character", "column", "epoch", "file", "fold", "frame", "group", "image", "network", "pair", "patient",
    "picture", "pre-training", "row", "run", "sample", "scan", "slice", "slot", "step", "value", "volume", "window",
)  # fmt: skip
NO_NUMBERS = ("kinds", "words", "whose", "table", "run / PICTURES", "released", "speed")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3571, "1 h 0 min"), (8000, "2 h 13 min"),
        (47 * 3600 + 59 * 60, "47 h 59 min"), (48 * 3600, "2 d 0 h"), (100 * 3600, "4 d 4 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_is_no_plural() -> None:
    assert [counted(number, "slice") for number in (0, 1, 2, 1234)] == [
        "0 slices",
        "1 slice",
        "2 slices",
        "1,234 slices",
    ]


def test_counts_go_through_the_helper() -> None:
    """No text says "1 files": a number before a plural is worded by `counted`, unless it is a constant."""
    plurals = re.compile(rf" (?:[a-z-]+ )?(?:{'|'.join(COUNTED)})s\b")
    wrong = []
    for path in chain((ROOT / "lessismore_transforms").rglob("*.py"), (ROOT / "bundles").rglob("*.py")):
        for text in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for value, rest in pairwise(text.values) if isinstance(text, ast.JoinedStr) else ():
                if not isinstance(value, ast.FormattedValue) or not isinstance(rest, ast.Constant):
                    continue
                words = ast.unparse(value.value)
                if plurals.match(rest.value) and not words.isupper() and words not in NO_NUMBERS:
                    wrong.append(f"{path.relative_to(ROOT)}:{value.lineno}: {{{words}}}{rest.value[:30]}")
    assert not wrong, "\n".join(wrong)
