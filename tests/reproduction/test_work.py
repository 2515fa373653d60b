from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import ROOT
from reproduction import processes
from reproduction import work as work_module
from reproduction.steps import LAST, Book, Step
from reproduction.work import Failures, work

from lessismore_transforms.errors import OutputError, UserError


class Machine:
    """In place of processes: commands end one by one, or several together, the last first, and take 2 s each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.most = 0
        self.failing: set[str] = set()
        self.interrupted_at = ""
        self.together = 1
        self.ended: list[str] = []
        self._running: list[Any] = []
        self._seconds = 0.0
        monkeypatch.setattr(work_module, "time", SimpleNamespace(monotonic=lambda: self._seconds))
        monkeypatch.setattr(work_module, "start", self.start)
        monkeypatch.setattr(work_module, "wait_for_any", self.wait)
        monkeypatch.setattr(work_module, "end_all", self.end)

    def start(self, command: Sequence[str], log: Path) -> Any:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("error: it went wrong\n", encoding="utf-8")
        process = Process(command[0], Path(command[1]))
        self.events.append(f"+{process.name}")
        self._running.append(process)
        self.most = max(self.most, len(self._running))
        return process

    def wait(self, processes: Sequence[Any]) -> list[Any]:
        assert set(processes) == set(self._running)
        self._seconds += 2
        if self._running[-1].name == self.interrupted_at:
            raise KeyboardInterrupt
        return [self.finish() for _ in range(self.together)]

    def finish(self) -> Process:
        """The process that was started last ends."""
        process = self._running.pop()
        process.exitcode = int(process.name in self.failing)
        if process.exitcode == 0:
            process.product.parent.mkdir(parents=True, exist_ok=True)
            process.product.touch()
        self.events.append(f"-{process.name}")
        return process

    def end(self, processes: Sequence[Any]) -> None:
        self.ended = sorted(process.name for process in processes)


class Process:
    def __init__(self, name: str, product: Path) -> None:
        self.name, self.product, self.exitcode = name, product, -1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def a_step(folder: Path, name: str, *needs: str) -> Step:
    return Step(name, (name, str(folder / name / "done")), folder / name, (folder / name / "done",), needs=needs)


def run(folder: Path, steps: Sequence[Step], at_once: int) -> dict[str, tuple[str, Path]]:
    return work(steps, steps, Book(folder, steps, {}), keep=lambda step: {}, refused={}, at_once=at_once)


def test_steps_run_one_after_the_other_in_their_order(tmp_path: Path, machine: Machine, capsys: Any) -> None:
    steps = [a_step(tmp_path, name) for name in ("probe/c", "probe/a", "probe/b")]
    assert run(tmp_path, steps, 1) == {}
    assert machine.events == ["+probe/c", "-probe/c", "+probe/a", "-probe/a", "+probe/b", "-probe/b"]
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("0 of 3 steps are done")
    assert [line.split("] ")[1] for line in lines] == ["probe/c 2.0 s", "probe/a 2.0 s", "probe/b 2.0 s"]


def test_as_many_as_asked_for_run_side_by_side_and_none_before_what_it_needs(
    tmp_path: Path, machine: Machine, capsys: Any
) -> None:
    steps = [
        a_step(tmp_path, "pretrain/CT_SwAV_a"),
        a_step(tmp_path, "probe/a", "pretrain/CT_SwAV_a"),
        a_step(tmp_path, "pretrain/CT_SwAV_b"),
        a_step(tmp_path, "probe/b", "pretrain/CT_SwAV_b"),
        a_step(tmp_path, "pretrain/CT_SwAV_c"),
    ]
    assert run(tmp_path, steps, 2) == {}
    # b overtakes the probe of a, which waits; when b has ended, its probe comes before c.
    assert machine.events == [
        *("+pretrain/CT_SwAV_a", "+pretrain/CT_SwAV_b", "-pretrain/CT_SwAV_b"),
        *("+probe/b", "-probe/b", "+pretrain/CT_SwAV_c", "-pretrain/CT_SwAV_c"),
        *("-pretrain/CT_SwAV_a", "+probe/a", "-probe/a"),
    ]
    assert machine.most == 2
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "[1/5, 0:00:00] pretrain/CT_SwAV_a begins",
        "[2/5, 0:00:00] pretrain/CT_SwAV_b begins",
        "  pretrain/CT_SwAV_b 2.0 s",
    ]


def test_selections_of_one_reduction_never_run_side_by_side(tmp_path: Path, machine: Machine) -> None:
    steps = []
    for measure in ("reduce/CT_hash", "reduce/CT_ssim"):
        steps.append(a_step(tmp_path, measure))
        steps += [a_step(tmp_path, f"{measure}/{name}", measure) for name in ("ALL", "HASH-6")]
    assert run(tmp_path, steps, 3) == {}
    open_now: set[str] = set()
    for event in machine.events:
        place = "/".join(event[1:].split("/")[:2])
        if event[0] == "+":
            assert place not in open_now
            open_now.add(place)
        else:
            open_now.remove(place)
    assert machine.most == 2  # of the two measures


def test_the_rest_goes_on_when_one_of_several_fails(tmp_path: Path, machine: Machine) -> None:
    steps = [
        a_step(tmp_path, "pretrain/CT_SwAV_a"),
        a_step(tmp_path, "probe/a", "pretrain/CT_SwAV_a"),
        a_step(tmp_path, "pretrain/CT_SwAV_b"),
        a_step(tmp_path, "probe/b", "pretrain/CT_SwAV_b"),
    ]
    machine.failing = {"pretrain/CT_SwAV_b"}
    failed = run(tmp_path, steps, 4)
    assert {name: reason for name, (reason, _) in failed.items()} == {
        "pretrain/CT_SwAV_b": "error: it went wrong (exit code 1)",
        "probe/b": "it needs pretrain/CT_SwAV_b, which is not done",
    }
    assert (tmp_path / "probe/a/done").is_file()


def test_all_that_run_are_ended_when_it_is_interrupted(tmp_path: Path, machine: Machine) -> None:
    steps = [a_step(tmp_path, f"pretrain/CT_SwAV_{name}") for name in "abc"]
    machine.interrupted_at = "pretrain/CT_SwAV_b"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, steps, 2)
    assert machine.ended == ["pretrain/CT_SwAV_a", "pretrain/CT_SwAV_b"]


def test_all_that_run_are_ended_when_what_was_found_cannot_be_kept(tmp_path: Path, machine: Machine) -> None:
    steps = [a_step(tmp_path, f"pretrain/CT_SwAV_{name}") for name in "abcd"]
    book = Book(tmp_path, steps, {})

    def keep(step: Step) -> Failures:
        raise UserError(f"{step.name} cannot be kept")

    with pytest.raises(UserError, match="pretrain/CT_SwAV_c cannot be kept"):
        work(steps, steps, book, keep=keep, refused={}, at_once=3)
    assert machine.ended == ["pretrain/CT_SwAV_a", "pretrain/CT_SwAV_b"]
    assert [book.done(step) for step in steps] == [False, False, True, False]  # what had ended well counts


@pytest.mark.parametrize(("together", "meanwhile"), [(2, 0), (1, 1), (3, 0)])
def test_all_that_ended_well_before_what_was_found_could_not_be_kept_are_recorded(
    tmp_path: Path, machine: Machine, together: int, meanwhile: int
) -> None:
    """Another ends together with the one whose results cannot be kept, or while they are looked at; b may fail."""
    steps = [a_step(tmp_path, f"evaluate/Brain/scratch/run_{name}") for name in "abcd"]
    steps = [replace(step, proof=False) for step in steps]
    for step in steps:
        (step.output / LAST).parent.mkdir(parents=True)
    book = Book(tmp_path, steps, {})
    machine.together, machine.failing = together, {steps[1].name} if together == 3 else set()

    def keep(step: Step) -> Failures:
        for _ in range(meanwhile):
            machine.finish()
        raise UserError(f"{step.name} cannot be kept")

    with pytest.raises(UserError, match="run_d cannot be kept"):
        work(steps, steps, book, keep=keep, refused={}, at_once=4)
    assert [book.done(step) for step in steps] == [False, False, True, True]
    assert [book.seconds(step) for step in steps[2:]] == [2.0, 2.0]
    assert [(step.output / LAST).parent.exists() for step in steps] == [True, True, False, False]
    assert not {*machine.ended} & {step.name for step in steps[2:]}
    assert steps[0].name in machine.ended


def test_all_that_run_are_ended_when_the_disk_is_full(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [a_step(tmp_path, f"pretrain/CT_SwAV_{name}") for name in "abc"]
    write = Book.write

    def full(book: Book, step: Step, **told: Any) -> None:
        if step.name.endswith("c"):
            raise OutputError("the disk is full")
        write(book, step, **told)

    monkeypatch.setattr(Book, "write", full)
    with pytest.raises(OutputError, match="the disk is full"):
        run(tmp_path, steps, 3)
    assert machine.ended == ["pretrain/CT_SwAV_a", "pretrain/CT_SwAV_b"]


@pytest.mark.parametrize("second_at", ["asking", "waiting"])
def test_a_second_interrupt_kills_all_at_any_time(monkeypatch: pytest.MonkeyPatch, second_at: str) -> None:
    asked, killed = list[int](), list[int]()

    def ask(pid: int, number: int) -> None:
        assert number == signal.SIGINT
        asked.append(pid)
        if second_at == "asking" and pid == 11:
            raise KeyboardInterrupt

    class Running:
        def __init__(self, pid: int, exitcode: int | None) -> None:
            self.pid, self.exitcode = pid, exitcode

        def join(self) -> None:
            if self.pid == 11:
                raise KeyboardInterrupt

        def kill(self) -> None:
            killed.append(self.pid)

    monkeypatch.setattr(processes.os, "kill", ask)
    try:
        processes.end_all([Running(10, None), Running(11, None), Running(12, None)])
    except KeyboardInterrupt:  # which would end all tests
        pytest.fail("the second interrupt was not taken")
    assert asked == ([10, 11] if second_at == "asking" else [10, 11, 12])
    assert killed == [10, 11, 12]
    asked.clear()
    processes.end_all([Running(13, 0), Running(14, None)])
    assert asked == [14]  # 13 has ended, and its number may be that of another process


def test_what_is_left_is_told_for_steps_side_by_side(tmp_path: Path, machine: Machine, capsys: Any) -> None:
    """What is left is told as the time of all steps, divided by those side by side."""
    steps = [a_step(tmp_path, f"pretrain/CT_SwAV_{name}") for name in "abcd"]
    book = Book(tmp_path, steps, {})
    book.write(steps[0], finished=True, seconds=100.0)
    work(steps[1:], steps, book, keep=lambda step: {}, refused={}, at_once=3)
    said = capsys.readouterr().out
    assert "[1/3, 0:00:00, about 0:01:40 left] pretrain/CT_SwAV_b begins" in said  # three of 100 s, three at once


def test_the_last_step_takes_its_whole_time(tmp_path: Path, machine: Machine, capsys: Any) -> None:
    steps = [a_step(tmp_path, f"pretrain/CT_SwAV_{name}") for name in "ab"]
    book = Book(tmp_path, steps, {})
    book.write(steps[0], finished=True, seconds=100.0)
    work(steps[1:], steps, book, keep=lambda step: {}, refused={}, at_once=4)
    assert "[1/1, 0:00:00, about 0:01:40 left] pretrain/CT_SwAV_b begins" in capsys.readouterr().out


@pytest.mark.parametrize("background", [False, True])
def test_real_processes_run_side_by_side_and_end_with_an_interrupt(tmp_path: Path, background: bool) -> None:
    """Two commands meet: each waits until the other is there. Then the one that interrupts them waits for both.

    What a shell starts in the background ignores SIGINT.
    """
    shell = ["sh", "-c", f"trap {repr('') if background else '-'} INT; exec {sys.executable} drive.py"]
    (tmp_path / "meet.py").write_text(MEET, encoding="utf-8")
    (tmp_path / "drive.py").write_text(DRIVE, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "scripts"), str(ROOT)])}
    process = subprocess.Popen(shell, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said == "[0, 0]\n"  # both ended well, so both were there
    assert process.stdout.readline() == "sleeping\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert said == "interrupted\n"
    assert sorted(path.name for path in tmp_path.glob("saved_*")) == ["saved_2", "saved_3"]


MEET = """
import sys, time
from pathlib import Path
me, other = sys.argv[1:]
Path(f"here_{me}").touch()
try:
    while not Path(f"here_{other}").exists():
        time.sleep(0.01)
except KeyboardInterrupt:
    Path(f"saved_{me}").touch()
"""

DRIVE = """
import time
from pathlib import Path
from reproduction import processes
processes._PRELOAD = []  # torch and MONAI are not needed here
from reproduction.processes import end_all, interruptible, start, wait_for_any

def both(first, second, wait_for_nobody=False):
    pairs = (first, second), (second, first)
    return [start(("meet", me, "nobody" if wait_for_nobody else other), Path(f"{me}.log")) for me, other in pairs]

if __name__ == "__main__":
    interruptible()
    running, codes = both("0", "1"), []
    while running:
        for process in wait_for_any(running):
            running.remove(process)
            codes.append(process.exitcode)
    print(codes, flush=True)
    running = both("2", "3", wait_for_nobody=True)
    while not (Path("here_2").exists() and Path("here_3").exists()):
        time.sleep(0.01)
    try:
        print("sleeping", flush=True)
        wait_for_any(running)
    except KeyboardInterrupt:
        end_all(running)
        print("interrupted", flush=True)
"""
