"""Write a file whole or not at all, so that a killed run leaves nothing half written under a final name."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lessismore_transforms.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]
TEMPORARY = ".partial-"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's complaints about writing to `path` into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or f"is the disk full? ({error})"
        raise OutputError(
            f"cannot write to {path}: {reason}: make room, fix the permissions or name another folder, "
            "then run the same command again"
        ) from error


def lock(file: IO[Any] | int, folder: Path, *, wait: bool = False) -> None:
    """Hold `file`, or a descriptor, for this process until it is closed, as the one that writes into `folder`.

    Args:
        file: any open file in that folder.
        folder: for the sentence.
        wait: until another process has let it go, rather than raise.

    Raises:
        OutputError: another process holds it.
    """
    if fcntl is None:
        return  # type: ignore[unreachable]
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise OutputError(f"another run is writing into {folder}: wait for it or name another folder") from error
    except OSError:  # some network file systems have no locks; a run alone needs none
        return


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Be the one process that writes into a folder, which is made if absent; no file is left for that.

    Raises:
        OutputError: another process holds it, or it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:  # Windows opens no folder
        yield  # type: ignore[unreachable]
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path, mode: str = "w", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Open a uniquely named temporary beside `path` that takes its name when the block ends without an exception.

    Args:
        path: of the file.
        mode: as `open` takes it.
        durable: wait until the file is on the disk, so that it is whole after a power cut too. Not needed for one of
            many files whose checksum is looked at before they are used.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with writing(path):
            with temporary.open(mode, **text) as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, *, indent: int | None = 1, durable: bool = True) -> None:
    """Write `content` as JSON that is the same for the same content; without an indent several times faster."""
    with atomic_write(path, durable=durable) as file:
        file.write(json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def finite(content: Any) -> Any:
    """Plain values with null for every number that is none, or infinite, which have no place in JSON."""
    if isinstance(content, Mapping):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left in `folder`."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)
