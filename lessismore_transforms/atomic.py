"""Write a file whole or not at all, so that a killed run leaves nothing half written under a final name."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

TEMPORARY = ".partial-"


class OutputError(Exception):
    """An output that cannot be written; the message says where and what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's complaints about writing to `path` into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or f"is the disk full? ({error})"
        raise OutputError(
            f"cannot write to {path}: {reason}: make room, mend the permissions or name another folder, "
            "then run the same command again"
        ) from error


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a uniquely named temporary beside `path` that takes its name when the block ends without an exception.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with writing(path):
            with temporary.open(mode, **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write `content` as JSON that is the same for the same content; without an indent several times faster."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left in `folder`."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)
