from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from helpers import processes_with, tree

from lessismore_transforms.phantom import write_demo_data
from lessismore_transforms.pipeline import pool
from lessismore_transforms.pipeline.executors import SerialExecutor
from lessismore_transforms.pipeline.run import reduce_dataset


def workers_of(process: subprocess.Popen[bytes], mark: str) -> list[int]:
    """Its worker processes: those whose parent is neither the process itself nor its own parent."""
    found = []
    for name in processes_with(mark):
        try:
            parent = int((Path("/proc") / name / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent not in (process.pid, os.getpid()):
            found.append(int(name))
    return found


@pytest.mark.slow
def test_twenty_killed_workers(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", patients=10, slices=150, size=256)
    reduce_dataset(tmp_path / "data", tmp_path / "expected", workers=0)
    expected, random, killed = tree(tmp_path / "expected"), np.random.default_rng(1), 0
    while killed < 20:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        mark = uuid.uuid4().hex
        command = [sys.executable, "-m", "lessismore_transforms", "reduce", str(tmp_path / "data"), "--no_report"]
        command += ["--output_dir", str(tmp_path / "out"), "--workers", "2"]
        with (
            (tmp_path / "errors").open("w") as errors,
            subprocess.Popen(command, env={**os.environ, "RUN_MARK": mark}, stderr=errors) as process,
        ):
            for _ in range(2):
                time.sleep(float(random.uniform(0.3, 1.2)))
                if workers := workers_of(process, mark):
                    os.kill(int(random.choice(workers)), signal.SIGKILL)
                    killed += 1
        assert process.returncode == 0, (tmp_path / "errors").read_text()
        assert tree(tmp_path / "out") == expected


class Mortal(Executor):
    """Runs tasks in this process; one volume kills it."""

    def __init__(self, deadly: str, deaths: list[str]) -> None:
        self.deadly, self.deaths, self.broken = deadly, deaths, False

    def submit(self, fn, /, *args, **kwargs):
        future: Future[int] = Future()
        if self.broken or args[0].volume.path.startswith(self.deadly):
            self.broken = True
            self.deaths.append(args[0].volume.path)
            future.set_exception(BrokenProcessPool())
            return future
        return SerialExecutor().submit(fn, *args, **kwargs)


def test_a_volume_that_kills_its_process_is_listed_and_the_others_finish(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths: list[str] = []
    monkeypatch.setattr(pool, "make_executor", lambda workers, scheduler=None: Mortal("phantom_0001", deaths))
    summary = reduce_dataset(small_data, tmp_path / "out", workers=2)
    assert summary.volumes == 3
    ((path, reason),) = summary.failures
    assert path.startswith("phantom_0001")
    assert "its process died 3 times" in reason
