"""Archives unpacked without a surprise: no name that leads out of the folder, no link, no more than fits."""

from __future__ import annotations

import filecmp
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lessismore_transforms.atomic import TEMPORARY, writing
from lessismore_transforms.errors import OutputError, UserError, first_line

_ENCRYPTED = 1  # flag of a member of a ZIP archive
# What Python's readers raise for damaged bytes; what fails to write is an OutputError by then.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, NotImplementedError),
)
_PASSED_OVER = "__MACOSX"  # what macOS adds: a second file for each picture


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a ZIP or tar archive into a folder, all of it or nothing; returns the number of files.

    Files that are there already, whole, stay; what macOS adds is left out.

    Raises:
        UserError: it is damaged or encrypted, holds a name that leads out of the folder, or a link, or a file of which
            another one is there.
        OutputError: there is no room, or the folder cannot be written.
    """
    place = folder / f"{TEMPORARY}{archive.stem}"
    try:
        with writing(folder):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        try:
            members = _members_of_zip(archive) if zipfile.is_zipfile(archive) else _members_of_tar(archive)
            count = _write(members, archive, place)
        except _DAMAGED as error:
            raise UserError(
                f"expected a whole archive in {archive}, found a damaged one ({first_line(error)}): delete it and run "
                "the same command again"
            ) from error
        with writing(folder):
            _refuse_others(place, folder, archive)
            _move(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return count


def _members_of_zip(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise _refused(archive, member.filename, "is a link")
            if member.flag_bits & _ENCRYPTED:
                raise _refused(archive, member.filename, "is encrypted")
            if not member.is_dir():
                _check_name(archive, member.filename)
                with content.open(member) as file:
                    yield member.filename, member.file_size, file


def _members_of_tar(archive: Path) -> Iterator[tuple[str, int, Any]]:
    with tarfile.open(archive) as content:
        for member in content:
            if member.isdir() and member.name in (".", ""):
                continue
            _check_name(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise _refused(archive, member.name, "is a link or a device")
            if member.isfile():
                yield member.name, member.size, content.extractfile(member)
        rest: Any = content.fileobj
        while rest.read(2**20):  # the end of what was cut short reads like that of an archive; its compression tells
            pass


def _write(members: Iterator[tuple[str, int, Any]], archive: Path, place: Path) -> int:
    count = 0
    for name, size, file in members:
        if PurePosixPath(name).parts[0] == _PASSED_OVER:
            continue
        if size > (free := shutil.disk_usage(place).free):
            raise OutputError(
                f"expected room for {name} of {archive.name} ({size / 1e9:.2f} GB), found {free / 1e9:.2f} GB: make "
                "room, then run the same command again"
            )
        target = place / name
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            out = target.open("wb")
        with out:
            _copy(file, out, size, archive, target)
        count += 1
    return count


def _copy(file: Any, out: IO[bytes], size: int, archive: Path, target: Path) -> None:
    """Copy what the archive says a file has, and not a byte more."""
    left = size
    while left and (chunk := file.read(min(left, 2**20))):
        with writing(target):
            out.write(chunk)
        left -= len(chunk)
    if left or file.read(1):
        raise _refused(archive, target.name, "has another size than it says")
    with writing(target):
        out.flush()


def _check_name(archive: Path, name: str) -> None:
    """Refuse a name that leads out of the folder, on any system."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/") or ":" in plain.split("/")[0] or not plain.strip("./"):
        raise _refused(archive, name, "leads out of the folder")


def _refused(archive: Path, name: str, why: str) -> UserError:
    return UserError(
        f"expected plain files in {archive}, found {name!r}, which {why}: nothing was unpacked; tell its publisher"
    )


def _refuse_others(place: Path, folder: Path, archive: Path) -> None:
    """Refuse to put a file where another one is.

    Raises:
        UserError: there is one.
    """
    for path in sorted(place.rglob("*")):
        target = folder / path.relative_to(place)
        if path.is_dir():
            other = target.exists() and not target.is_dir()
        else:
            other = target.is_dir() or (target.exists() and not filecmp.cmp(path, target, shallow=False))
        if other:
            raise UserError(
                f"expected nothing at {target}, or the file of that name in {archive.name}, found another one: nothing "
                "was unpacked; move it away, then run the same command again"
            )


def _move(place: Path, folder: Path) -> None:
    """Move what was unpacked to its place, file by file where a folder is there already."""
    for path in sorted(place.rglob("*")):
        target = folder / path.relative_to(place)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            path.replace(target)
