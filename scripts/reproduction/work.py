"""Run the steps of an experiment, several at once where that is asked for, and tell what each of them does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

from lessismore_transforms.wording import counted, plural
from reproduction.processes import end_all, last_error, start, wait_for_any
from reproduction.steps import LAST, Book, Step

Failures: TypeAlias = dict[str, tuple[str, Path]]  # by name of the step: why, and the log


def work(
    to_do: Sequence[Step],
    chosen: Sequence[Step],
    book: Book,
    *,
    keep: Callable[[Step], Failures],
    refused: Mapping[str, tuple[str, Path]],
    at_once: int = 1,
) -> Failures:
    """Run steps in their order, each once what it needs is done; returns of those that failed why, and the log.

    What is made from steps whose results were refused, or could not be kept, is left out.

    Args:
        to_do: steps to run.
        chosen: these and the ones that are done.
        book: records of all steps of the experiment.
        keep: keeps what a finished step found; returns what could not be kept.
        refused: steps whose results were not kept.
        at_once: so many processes work side by side.
    """
    done = f"{len(chosen) - len(to_do)} of {counted(len(chosen), 'step')} {plural(len(chosen), 'is', 'are')} done"
    print(f"{done}; logs: {book.folder / 'steps'}", flush=True)
    waiting, running, failed = list(to_do), dict[Any, tuple[Step, float]](), dict(refused)
    progress = _Progress(len(to_do), at_once, time.monotonic())
    try:
        while waiting or running:
            while len(running) < at_once and (step := _next(waiting, [step for step, _ in running.values()])):
                left = [step for step, _ in running.values()] + waiting
                waiting.remove(step)
                progress.begin(step, book.expected_seconds(left), min(at_once, len(left)))
                if lacking := _lacking(step, book, failed):
                    failed[step.name] = f"it needs {lacking.name}, which is not done", book.log(lacking)
                    progress.end(step, "is left out")
                    continue
                book.write(step, finished=False)
                running[start(step.full_command(), book.log(step))] = step, time.monotonic()
            for process in wait_for_any(list(running)):
                step, begin = running.pop(process)
                seconds = time.monotonic() - begin
                failed |= _finished(step, process.exitcode, seconds, book, keep)
                progress.end(step, "failed" if step.name in failed else f"{seconds:.1f} s")
    finally:  # some are left where this process was interrupted, or could not write or keep
        now = time.monotonic()
        ended = [running.pop(process) for process in list(running) if process.exitcode == 0]
        end_all(list(running))
        for step, begin in ended:
            _record(step, now - begin, book)
    return failed


def _next(waiting: Sequence[Step], running: Sequence[Step]) -> Step | None:
    """The first step that waits for none before it: it reads what they make, or writes where one of them does."""
    unfinished = {step.name for step in (*running, *waiting)}
    busy = {step.place for step in running}
    for step in waiting:
        if step.place not in busy and not any(name in unfinished for name in step.needs):
            return step
        busy.add(step.place)
    return None


def _lacking(step: Step, book: Book, failed: Mapping[str, tuple[str, Path]]) -> Step | None:
    """The first step that this one needs and that has failed or was not run."""
    by_name = {each.name: each for each in book.steps}
    return next((by_name[name] for name in step.needs if name in failed or not book.done(by_name[name])), None)


def _finished(step: Step, code: int, seconds: float, book: Book, keep: Callable[[Step], Failures]) -> Failures:
    """Record what came of a step; returns why it failed, if it did."""
    if code == 0:
        _record(step, seconds, book)
    if code or not book.done(step):
        log = book.log(step)
        return {step.name: (f"{last_error(log)} (exit code {code})", log)}
    return keep(step)


def _record(step: Step, seconds: float, book: Book) -> None:
    """Record a step whose command ended well."""
    book.write(step, finished=True, seconds=seconds)
    if step.name.startswith("evaluate") and book.done(step):  # thrice the size of the network, of no use any more
        shutil.rmtree(step.output / LAST.parent, ignore_errors=True)


@dataclass
class _Progress:
    """Says what is done, and how long it has taken.

    Args:
        total: steps to do.
        at_once: steps side by side; a single one has its line for itself.
        since: when they began.
    """

    total: int
    at_once: int
    since: float
    number: int = 0

    def begin(self, step: Step, expected: float | None, side_by_side: int) -> None:
        """Say that a step begins, and how long all that are left take, so many of them side by side."""
        self.number += 1
        elapsed = timedelta(seconds=round(time.monotonic() - self.since))
        left = "" if expected is None else f", about {timedelta(seconds=round(expected / side_by_side))} left"
        print(
            f"[{self.number}/{self.total}, {elapsed}{left}] {step.name}",
            end=" " if self.at_once == 1 else " begins\n",
            flush=True,
        )

    def end(self, step: Step, words: str) -> None:
        print(words if self.at_once == 1 else f"  {step.name} {words}", flush=True)
