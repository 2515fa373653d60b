from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lessismore_transforms.errors import OutputError, RunError
from lessismore_transforms.pipeline.run import reduce_dataset


def test_a_folder_of_something_else_is_refused(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not empty and holds no reduction"):
        reduce_dataset(small_data, tmp_path / "out", workers=0)
    with pytest.raises(RunError, match="lies inside the data set"):
        reduce_dataset(small_data, small_data / "out", workers=0)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write to .*file"):
        reduce_dataset(small_data, tmp_path / "file" / "out", workers=0)
    with pytest.raises(OutputError, match=r"cannot write to .*file"):
        reduce_dataset(small_data, tmp_path / "file", workers=0)


def test_a_disk_that_is_full_at_the_first_line(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self) -> int:
            return os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)

    opened = Path.open

    def opens(path: Path, *arguments: Any, **options: Any) -> Any:
        return Full() if path.name == "run.jsonl" else opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opens)
    with pytest.raises(OutputError, match=r"cannot write to .*run\.jsonl: No space left on device: make room"):
        reduce_dataset(small_data, tmp_path / "out", workers=0)


def test_a_second_run_into_the_same_folder_is_refused(small_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    script = (
        "import sys, time; from pathlib import Path; from lessismore_transforms.pipeline.event_log import EventLog;"
        f"log = EventLog(Path({str(output)!r})); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(OutputError, match="another run is writing into"):
            reduce_dataset(small_data, output, workers=0)
        other.kill()
    time.sleep(0.1)
    assert reduce_dataset(small_data, output, workers=0).volumes == 4
