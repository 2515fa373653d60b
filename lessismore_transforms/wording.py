"""Numbers and tables as people read them, for the screen and for pages."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

_UNSHOWN = ("Cc", "Zl", "Zp")  # categories of Unicode: control characters, ends of lines and paragraphs
_TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # marks of bidirectional text


def count(number: int) -> str:
    """12345 as `12,345`."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """`1 slice`, `2 slices`."""
    return f"{number:,} {plural(number, noun)}"


def plural(number: float, noun: str, several: str | None = None) -> str:
    """`slice` for 1, else `slices`; or the given form for several, as in `plural(number, "is", "are")`."""
    if number == 1:
        return noun
    return f"{noun}s" if several is None else several


def listed(words: Iterable[str], last: str = "and") -> str:
    """Words as a list of two or more: `a, b and c`, or with another word before the last."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}"


def percent(share: float) -> str:
    """0.123 as `12.3 %`, with two digits below one percent."""
    return f"{100 * share:.1f}\u00a0%" if share >= 0.01 or share == 0 else f"{100 * share:.2g}\u00a0%"


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 60 * 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def bounded(reason: str, most: int = 600) -> str:
    """A reason as it may be written: one line of at most so many characters."""
    text = printable(reason)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def aligned(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Rows of cells as lines of text: the first `left` columns to the left, the numbers behind them to the right.

    No line ends in blanks.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{'<' if place < left else '>'}{width}}}" for place, width in enumerate(widths))
    return "\n".join(form.format(*row).rstrip() for row in rows)


def printable(text: str) -> str:
    """Text as one line: control, bidirectional and line-breaking characters are escaped, as are bytes that are none.

    A path stays as it is but for these.
    """
    whole = text.encode(errors="backslashreplace").decode()
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in _UNSHOWN or c in _TURNING else c for c in whole)
