"""The overlaps of selections in words and numbers, for the screen and for the page."""

from __future__ import annotations

import math
import textwrap

from lessismore_transforms.reduced.overlap import Comparison, Overlap
from lessismore_transforms.wording import aligned, count, counted, percent

READ = (
    "A number is the share of the smaller selection that the other one keeps too; it tells something where it lies "
    "outside the range of chance, into which 95 % of random selections of the same sizes fall, and beside what the "
    "method shares with itself when it walks through the slices in reversed order"
)
FIRST_STAYS = (
    "The first slice of a volume stays by every rule (EveryN: without offset), so volumes of which few slices are kept "
    "share more."
)
PAPER = (
    "In the paper, where each method keeps 10 % of a volume, two methods share 9 to 30 %: SSIM and MI most, EveryN "
    "with any other 9 to 11 %, which is chance."
)


def as_text(comparison: Comparison) -> str:
    """The comparison as the screen shows it."""
    slices = len(comparison.choices[0].kept)
    singles = [("selection", "method", "kept", "", "itself reversed", "chance", "95 % of chance")]
    for choice in comparison.choices:
        kept = int(choice.kept.sum())
        share = percent(kept / slices if slices else 0)
        singles.append((choice.label, str(choice.target), count(kept), share, *cells(choice.reversed)))
    pairs: list[tuple[str, ...]] = [("selection", "other", "kept", "kept", "both", "share", "chance", "95 % of chance")]
    for (i, j), overlap in comparison.overlaps.items():
        one, other = comparison.choices[i], comparison.choices[j]
        pairs.append((one.label, other.label, *map(count, (*overlap.kept, overlap.shared)), *cells(overlap)))
    size = f"{counted(len(comparison.volumes), 'volume')}, {counted(slices, 'slice')}"
    words = (textwrap.fill(text, 100) for text in (f"{READ}. {FIRST_STAYS}", PAPER))
    return "\n\n".join((size, aligned(singles, left=2), aligned(pairs, left=2), *words))


def cells(overlap: Overlap | None) -> tuple[str, str, str]:
    """Share, that of chance and the range of chance, for people."""
    if overlap is None or math.isnan(overlap.share):
        return "–", "–", "–"
    low, high = (f"{100 * overlap.of_smaller(number):.0f}" for number in (overlap.low, overlap.high))
    return percent(overlap.share), percent(overlap.of_smaller(overlap.expected)), f"{low}–{high}\u00a0%"
