"""run.jsonl of an output folder: what happened when, a JSON object per line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lessismore_transforms.atomic import lock, writing
from lessismore_transforms.errors import OutputError, RunError
from lessismore_transforms.pipeline.output_folder import RUNNING
from lessismore_transforms.reduced.store import RUN_LOG


class EventLog:
    """run.jsonl, held by one run at a time.

    Args:
        output_dir: made if missing.

    Raises:
        RunError: the folder holds something else.
        OutputError: the folder cannot be written, or another run is writing into it.
    """

    def __init__(self, output_dir: Path) -> None:
        self._path = output_dir / RUN_LOG
        with writing(output_dir):
            known = any((output_dir / name).is_file() for name in (RUN_LOG, RUNNING, "manifest.json"))
            if output_dir.is_dir() and any(output_dir.iterdir()) and not known:
                raise RunError(f"{output_dir} is not empty and holds no reduction: name a new folder")
            output_dir.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+", encoding="utf-8")
        try:
            lock(self._file, output_dir)
        except OutputError:
            self._file.close()
            raise

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, event: str, **content: Any) -> None:
        """Add a line.

        Raises:
            OutputError: it cannot be written.
        """
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), **content}
        with writing(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
