"""Questions to whoever sits at the terminal; where nobody does, no answer."""

from __future__ import annotations

import sys


def ask(question: str) -> str | None:
    """The answer, without blanks around it; None where input or output is no terminal, or it ended.

    Args:
        question: without a blank at its end.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    print(f"{question} ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.strip() or None
