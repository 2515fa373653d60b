"""Find every CT volume below a folder, at any depth and in any format, and list the files that belong to none."""

from __future__ import annotations

import fnmatch
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.volumes import dicom, images, itk_files, nifti
from lessismore_transforms.volumes.volume import Crc32, Skipped, Slice, Volume

# Never images: listed as skipped without a look inside.
_OTHER_SUFFIXES = {
    ".bmp", ".csv", ".db", ".doc", ".docx", ".gif", ".htm", ".html", ".json", ".log", ".md", ".npy", ".npz", ".pdf",
    ".py", ".raw", ".rst", ".svg", ".tif", ".tiff", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml",
    ".zip", ".zraw",
}  # fmt: skip
_HEADERS_PER_TASK = 128

Map = Callable[[Callable[[Sequence[str]], list[dicom.Header | Skipped]], Sequence[Sequence[str]]], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Found:
    """The volumes below a folder in order of their paths, and the files that belong to none of them."""

    volumes: list[Volume]
    skipped: list[Skipped]


def find_volumes(
    root: str | Path,
    *,
    include: Sequence[str] = (),
    patterns: Sequence[str] = (),
    stored: bool = False,
    map_headers: Map = map,
) -> Found:
    """Every CT volume below `root`: DICOM series, NIfTI, NRRD and MetaImage files, groups of 2-D images.

    Only headers are read. `Found.volumes[i].as_dict(root)` is an item for a MONAI pipeline.

    Args:
        root: the data set's folder, of any depth.
        include: globs of file names or of paths relative to `root` (`CT.nii.gz`, `*/CT/*`); empty takes all files.
        patterns: presets (`lidc`, `petct`, `numbered`) or regular expressions with a group `index` for the names
            of 2-D images; empty takes the first two presets.
        stored: keep stored orientation and the order of file names, like the released scripts, instead of the
            canonical ones (see `geometry`).
        map_headers: applies a function to each of many lists of DICOM paths, as an executor's `map` does.

    Raises:
        UserError: `root` is not a folder, or a pattern has no group `index`.
    """
    root = Path(root)
    with reading(root):
        if not root.is_dir():
            found = "a file" if root.exists() else "nothing"
            raise UserError(f"expected a folder of CT volumes at {root}, found {found}: fix the path")
    compiled = [images.compile_pattern(pattern) for pattern in patterns or images.DEFAULT_PATTERNS]
    by_kind: dict[str, list[str]] = defaultdict(list)
    skipped: list[Skipped] = []

    def unreadable(error: OSError) -> None:
        below = Path(error.filename).relative_to(root).as_posix()
        skipped.append(Skipped(_printable(below), f"a folder that cannot be opened: {error.strerror}"))

    for path in _files(root, unreadable):
        if _printable(path) != path:
            skipped.append(Skipped(_printable(path), "its name holds bytes that are no text: rename it"))
        elif include and not any(fnmatch.fnmatch(path, glob) or fnmatch.fnmatch(_name(path), glob) for glob in include):
            skipped.append(Skipped(path, "does not match --include"))
        elif (kind := _kind(path)) == "other":
            skipped.append(Skipped(path, "not an image in a known format"))
        else:
            by_kind[kind].append(path)

    volumes: list[Volume] = []
    for paths, find in ((by_kind["nifti"], nifti.find), (by_kind["itk"], itk_files.find)):
        for path in paths:
            result = find(path, root, stored=stored)
            (volumes if isinstance(result, Volume) else skipped).append(result)  # type: ignore[arg-type]
    candidates = by_kind["dicom"]
    tasks = [candidates[start : start + _HEADERS_PER_TASK] for start in range(0, len(candidates), _HEADERS_PER_TASK)]
    headers: list[dicom.Header] = []
    for result in (item for results in map_headers(partial(_headers, root=root), tasks) for item in results):
        (headers if isinstance(result, dicom.Header) else skipped).append(result)
    for more, left_out in (
        dicom.build_volumes(headers, stored=stored),
        images.find(by_kind["images"], root, compiled, stored=stored),
    ):
        volumes.extend(more)
        skipped.extend(left_out)
    # Folder by folder, as a person sorts them: `p` before `p-2`, though `p-2/` comes before `p/` as text.
    volumes.sort(key=lambda volume: (volume.path.split("/"), volume.slice_path(0).split("/"), volume.volume))
    skipped.sort(key=lambda item: item.path)
    return Found(volumes, skipped)


def _headers(paths: Sequence[str], root: Path) -> list[dicom.Header | Skipped]:
    return [header for path in paths for header in dicom.read_headers(path, root)]


def _printable(path: str) -> str:
    text = path.encode(errors="backslashreplace").decode()
    return "".join(c if c >= " " else repr(c)[1:-1] for c in text)


def _files(root: Path, onerror: Callable[[OSError], None]) -> Iterator[str]:
    """Files below `root` as posix paths in a fixed order; hidden files are left out, links are followed once."""
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(root, onerror=onerror, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = PurePosixPath(Path(folder).relative_to(root).as_posix())
        for name in sorted(names):
            if not name.startswith("."):
                yield str(below / name)


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _kind(path: str) -> str:
    name = _name(path).lower()
    for kind, suffixes in (("nifti", nifti.SUFFIXES), ("itk", itk_files.SUFFIXES), ("images", images.SUFFIXES)):
        if name.endswith(suffixes):
            return kind
    return "other" if PurePosixPath(name).suffix in _OTHER_SUFFIXES or name == "dicomdir" else "dicom"


def checksum(volume: Volume, root: str | Path) -> str:
    """CRC32 of a volume's files, as in the manifest, without decoding a voxel; empty where a file is missing."""
    crc = Crc32()
    paths = list(dict.fromkeys(stored.path for stored in volume.slices)) or [volume.path]
    try:
        for path in paths:
            for file in itk_files.files_of(Path(root) / path) if volume.format == "itk" else [Path(root) / path]:
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        crc.update(block)
    except OSError:
        return ""
    return str(crc)


_READERS = {"dicom": dicom.read, "nifti": nifti.read, "itk": itk_files.read, "images": images.read}


def read_slices(volume: Volume, root: str | Path, crc: Crc32 | None = None) -> Iterator[Slice]:
    """Stream the slices of `volume` in HU, each once, in the order they are stored.

    Args:
        volume: as `find_volumes` found it below `root`.
        root: the data set's folder.
        crc: checksum that is fed the bytes of the volume's files; complete when the iterator is exhausted.

    Raises:
        VolumeError: the volume's file is damaged; a damaged file of a series comes as a slice with a `reason` instead.
    """
    return _READERS[volume.format](volume, Path(root), crc or Crc32())
