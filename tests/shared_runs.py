"""Small trainings by the bundles, for tests of what is shared of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import bundle_environment
from warm_python import warm_run

SMALL = {"backbone": "resnet18", "batch_size": 8, "workers": 0, "log_interval": 1, "device": "cpu"}
STATED = ["--license", "cc-by-4.0", "--author", "A. Student"]


def train(folder: Path, files: list[str], **overrides: Any) -> None:
    line = ["-m", "monai.bundle", "run", "--config_file", str(files)]
    line += [str(item) for name, value in (SMALL | overrides).items() for item in (f"--{name}", value)]
    done = warm_run(line, cwd=folder, env=bundle_environment())
    assert done.returncode == 0, done.stderr[-3000:]
