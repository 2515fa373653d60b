"""A real dask scheduler and two worker processes on the loopback interface."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import tree

from lessismore_transforms.cli.main import main
from lessismore_transforms.phantom import write_demo_data
from lessismore_transforms.pipeline import executors
from lessismore_transforms.pipeline.run import reduce_dataset

pytest.importorskip("distributed", reason="dask is an extra: pip install lessismore-transforms[cluster]")


def dask(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dask", *arguments, "--local-directory", str(folder)]
    if arguments[0] == "scheduler":
        command = command[:-2]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """The scheduler's address and its two workers."""
    scheduler = dask(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", folder=tmp_path
    )
    assert scheduler.stderr is not None
    address = next(found[0] for line in scheduler.stderr if (found := re.search(r"tcp://127\.0\.0\.1:\d+", line)))
    threading.Thread(target=scheduler.stderr.read, daemon=True).start()  # so that its log never blocks it
    workers = []
    for number in range(2):
        folder = tmp_path / f"worker{number}"
        folder.mkdir()
        worker = dask("worker", address, "--no-nanny", "--no-dashboard", "--nthreads", "1", folder=folder)
        assert worker.stderr is not None
        assert any("Registered to" in line for line in worker.stderr)
        threading.Thread(target=worker.stderr.read, daemon=True).start()
        workers.append(worker)
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def test_a_cluster_gives_the_same_bytes_also_when_a_worker_is_lost(
    cluster: tuple[str, list[subprocess.Popen[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, workers = cluster
    write_demo_data(tmp_path / "data", patients=8, slices=60, size=96)
    reduce_dataset(tmp_path / "data", tmp_path / "expected", workers=0)

    parts = tmp_path / "out" / "parts"
    killed = []

    def kill_in_the_middle() -> None:
        while len(list(parts.glob("[0-9a-f]*.json"))) < 2:
            time.sleep(0.002)
        os.kill(workers[0].pid, signal.SIGKILL)
        killed.append(len(list(parts.glob("[0-9a-f]*.json"))))

    threading.Thread(target=kill_in_the_middle, daemon=True).start()
    command = ["reduce", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out"), "--no_report"]
    assert main([*command, "--scheduler", address]) == 0
    assert 2 <= killed[0] < 8
    assert workers[0].wait(10) == -signal.SIGKILL
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")
    assert "2 slots on the cluster; dashboard: http://127.0.0.1:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("tcp://127.0.0.1:9", "no dask scheduler answers at tcp://127.0.0.1:9"),
        ("nonsense", "no dask scheduler answers at nonsense"),
    ],
)
def test_a_scheduler_that_is_not_there(
    small_data: Path,
    tmp_path: Path,
    address: str,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "_CONNECT_SECONDS", 1)
    command = ["reduce", str(small_data), "--output_dir", str(tmp_path / "out"), "--scheduler", address]
    assert main(command) == 2
    assert f"error: {sentence}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dask_that_is_not_installed(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert main(["reduce", str(small_data), "--output_dir", str(tmp_path / "out"), "--scheduler", "tcp://a:1"]) == 2
    assert "pip install lessismore-transforms[cluster]" in capsys.readouterr().err
