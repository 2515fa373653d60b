"""Run steps, each in a process of its own with a time limit, and write down what each found."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu.page import read_result
from gpu.setup import ROOT, LeftOut, Setup
from gpu.steps import parts
from lessismore_transforms.atomic import write_json

PACKAGES = ("torch", "torchvision", "monai", "pytorch-ignite", "timm", "numpy", "numba", "lightly", "kornia")


def run_step(name: str, setup: Setup) -> dict[str, Any]:
    """Run the parts of a step here and write `<step>.json` after each; a part that fails does not stop the next."""
    began = time.perf_counter()
    result: dict[str, Any] = {"step": name, "figures": [], "failed": [], "left_out": []}
    for part, work in parts(name).items():
        try:
            for figure in work(setup):
                result["figures"].append({"part": part, **asdict(figure)})
                if figure.equal is False:
                    result["failed"].append(f"{part}: {figure.what}: expected {figure.wanted}, found {figure.value}")
        except LeftOut as reason:
            result["left_out"].append(f"{part}: {reason}")
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            result["failed"].append(f"{part}: {type(error).__name__}: {_sentence(error)}")
        result["seconds"] = round(time.perf_counter() - began, 1)
        write_json(setup.output_dir / f"{name}.json", result)
    return result


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).replace(str(ROOT), ".").split())[-600:]


def run_all(
    names: Sequence[str],
    folder: Path,
    command: Callable[[str], Sequence[str]],
    *,
    limit_s: float,
    deadline: float,
    say: Callable[[str], None],
) -> list[str]:
    """Run each step as a command, for so many seconds at most; returns the names of those that failed.

    Args:
        names: of the steps.
        folder: where each step writes its results, and what it prints, `<step>.log`.
        command: of a step.
        limit_s: seconds for each.
        deadline: of `time.monotonic`; a step that has not begun by then is not run.
        say: prints a line.
    """
    failed = []
    for name in names:
        if time.monotonic() >= deadline:
            say(f"{name}: not run, the time is up")
            failed.append(name)
            continue
        (folder / f"{name}.json").unlink(missing_ok=True)  # of an earlier check
        began = time.monotonic()
        code = _run(list(command(name)), folder / f"{name}.log", min(limit_s, deadline - began))
        if code is None:
            _add_failure(folder / f"{name}.json", name, f"stopped after {time.monotonic() - began:.0f} s")
        elif code and not _failures(folder / f"{name}.json"):
            _add_failure(folder / f"{name}.json", name, f"ended with exit code {code}: see {name}.log")
        found = _failures(folder / f"{name}.json")
        if found:
            failed.append(name)
        say(
            f"{name}: {'FAILED' if found else 'done'} in {time.monotonic() - began:.0f} s"
            + "".join(f"\n  {one}" for one in found)
        )
    return failed


def _run(line: list[str], log: Path, seconds: float) -> int | None:
    """The exit code of a command; None where its time was up, when all that it started is ended with it."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _failures(path: Path) -> list[str]:
    return read_result(path)["failed"] if path.is_file() else []


def _add_failure(path: Path, name: str, sentence: str) -> None:
    empty: dict[str, Any] = {"step": name, "figures": [], "failed": [], "left_out": []}
    result = read_result(path) if path.is_file() else empty
    write_json(path, result | {"failed": [*result["failed"], sentence]})


def about(device: str, commit: str) -> dict[str, str]:
    """Machine, versions and commit; no name of a host."""
    import torch

    names = {"commit": commit or _commit(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            names[package] = version(package)
        except PackageNotFoundError:
            names[package] = "not installed"
    names["CPU cores"] = str(len(os.sched_getaffinity(0)))
    names["device"] = "CPU"
    if device != "cpu":
        names["device"] = torch.cuda.get_device_name(device)
        names["CUDA"] = str(torch.version.cuda)
        names["device memory"] = f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
    return names


def _commit() -> str:
    line = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def python_command(*arguments: str) -> list[str]:
    """A command of `gpu_check.py` by this Python."""
    return [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), *arguments]
