"""Functions in place of the processes that an experiment runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import reproduce_paper
from reproduction import work


class _Process:
    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode


def replace_processes(monkeypatch: pytest.MonkeyPatch, run: Callable[[Sequence[str], Path], int]) -> None:
    """Let `run` do what a command does, and return its exit code; all that were started end together."""
    monkeypatch.setattr(work, "start", lambda command, log: _Process(run(command, log)))
    monkeypatch.setattr(work, "wait_for_any", list)
    monkeypatch.setattr(work, "end_all", lambda processes: None)
    monkeypatch.setattr(reproduce_paper, "interruptible", lambda: None)
