"""Small trainings by the bundles, for tests of what is shared of them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import bundle_environment
from warm_python import warm_run

SMALL = {"backbone": "resnet18", "batch_size": 8, "workers": 0, "log_interval": 1, "device": "cpu"}
STATED = ["--license", "cc-by-4.0", "--author", "A. Student"]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process of pytest that wants it makes, while the others wait; read only.

    Args:
        factory: of temporary folders.
        name: of the folder; in one that was made before, as `before/name`.
        make: makes it; it does not exist by then.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all processes
    folder, plain = root / name, name.replace("/", "_")
    with (root / f"{plain}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        whole = root / f"{plain}.whole"
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            make(folder)
            whole.touch()
    return folder


def train(folder: Path, files: list[str], *, only: dict[str, Any] | None = None, **overrides: Any) -> None:
    """Train by configuration files; `only` takes the place of what most small trainings have in common."""
    given = SMALL if only is None else {"workers": 0, "device": "cpu", **only}
    line = ["-m", "monai.bundle", "run", "--config_file", str(files)]
    line += [str(item) for name, value in (given | overrides).items() for item in (f"--{name}", value)]
    done = warm_run(line, cwd=folder, env=bundle_environment())
    assert done.returncode == 0, done.stderr[-3000:]
