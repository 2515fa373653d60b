"""Progress of long work: a bar in a terminal or a notebook, else a line now and then, as in the log of a batch job."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

FIRST_S, EVERY_S = 20.0, 60.0  # seconds until the first line, and between two, where there is no terminal
_LINE = "{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed} so far, {remaining} left"


def has_bars() -> bool:
    """Whether stderr is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or _in_notebook()


def progress_bar(
    over: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    hidden: bool = False,
    leave: bool = True,
) -> Any:
    """A tqdm bar that suits the place; iterate over it, or call its `update` and `close`.

    Args:
        over: what is gone through; None where `update` is called.
        desc: what is done.
        unit: of a step, with a blank before it.
        total: number of steps, where `over` does not tell.
        initial: steps that are done already.
        hidden: show nothing.
        leave: keep the bar when it is full.
    """
    options: dict[str, Any] = {"desc": desc, "unit": unit, "total": total, "initial": initial, "leave": leave}
    if _in_notebook() and not hidden:
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(over, **options)
    from tqdm import tqdm

    if hidden or sys.stderr.isatty():
        return tqdm(over, disable=hidden, **options)
    lines: Any = _Lines(sys.stderr)
    intervals = {"delay": FIRST_S, "mininterval": FIRST_S, "maxinterval": max(FIRST_S, EVERY_S)}
    return _line_bar()(over, file=lines, bar_format=_LINE, **intervals, **options)


def _line_bar() -> Any:
    """A kind of bar that shows its first state after `mininterval` and the others every EVERY_S."""
    from tqdm import tqdm

    class LineBar(tqdm):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:  # tqdm's own remembers the first interval
            try:
                for each in self.iterable:
                    yield each
                    self.update()
            finally:
                self.close()

        def display(self, *args: Any, **kwargs: Any) -> Any:
            self.mininterval = EVERY_S
            return super().display(*args, **kwargs)

    return LineBar


class _Lines:
    """A stream that makes a line of each state that a bar writes over the one before."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.last = stream, ""

    def write(self, text: str) -> None:
        """Write a state that is not the one before."""
        state = text.replace("\r", "").strip()
        if state and state != self.last:
            self.stream.write(f"{state}\n")
            self.last = state

    def flush(self) -> None:
        """Show it now."""
        self.stream.flush()


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")
