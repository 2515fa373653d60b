"""The files below a folder: those that can be read, and the others with the reason, so that none vanishes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lessismore_transforms.volumes.volume import Skipped
from lessismore_transforms.wording import printable

_NO_TEXT = "its name holds bytes or control characters that are no text: rename it"
_KINDS = (
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device")
)  # fmt: skip


def list_files(root: Path) -> tuple[list[str], list[Skipped]]:
    """Regular files below `root` as posix paths in a fixed order, and what else is there; nothing is opened.

    Hidden files and folders are skipped, links are followed once. A path is as on the disk where it is text, whatever
    its letters; control characters in it are escaped.
    """
    files: list[str] = []
    skipped: list[Skipped] = []
    visited: dict[str, str] = {}

    folders = [""]
    while folders:
        below = folders.pop()
        folder, shown = root / below, below or "the folder itself"
        if (first := visited.setdefault(os.path.realpath(folder), shown)) != shown:
            skipped.append(Skipped(below, f"a link to what was read before, by another path: {printable(first)}"))
            continue
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(Skipped(below or ".", f"a folder that cannot be opened: {error.strerror}"))
            continue
        deeper: list[str] = []
        for entry in found:
            path = f"{below}/{entry.name}" if below else entry.name
            is_folder, reason = _look(entry)
            if _escaped(path) != path:
                skipped.append(Skipped(_escaped(path), _NO_TEXT))
            elif reason:
                skipped.append(Skipped(path, reason))
            else:
                (deeper if is_folder else files).append(path)
        folders.extend(reversed(deeper))
    return files, skipped


def _look(entry: os.DirEntry[str]) -> tuple[bool, str]:
    """Whether an entry is a folder, and why it is not to be read; never opens it."""
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
        if entry.name.startswith("."):
            return is_folder, "a hidden folder" if is_folder else "a hidden file"
        if is_folder or is_file:
            return is_folder, ""
        mode = entry.stat().st_mode
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "neither a file nor a folder")
        return False, f"{kind}, not a file: it is never opened"
    except FileNotFoundError:
        return False, "a link to nothing: repair or remove it"
    except OSError as error:
        return False, f"cannot be opened: {error.strerror}"


def _escaped(path: str) -> str:
    """The path with its control characters and its bytes that are no text escaped; other odd characters stay."""
    if path.isprintable():
        return path
    text = path.encode(errors="backslashreplace").decode()
    return "".join(c if c >= " " else repr(c)[1:-1] for c in text)
