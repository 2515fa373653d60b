"""Find every CT volume below a folder, at any depth and in any format, and list the files that belong to none."""

from __future__ import annotations

import fnmatch
import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lessismore_transforms.errors import UserError, VolumeError, reading
from lessismore_transforms.volumes import images, itk_files, nifti
from lessismore_transforms.volumes.label_maps import why_label_name
from lessismore_transforms.volumes.tree import list_files
from lessismore_transforms.volumes.volume import MEMORY_MB, Crc32, Skipped, Slice, Volume, most_pixels, volume_id
from lessismore_transforms.wording import counted, printable

if TYPE_CHECKING:
    from lessismore_transforms.volumes.dicom import Header

# Never images: listed as skipped without a look inside.
_OTHER_SUFFIXES = {
    ".bmp", ".csv", ".db", ".doc", ".docx", ".gif", ".htm", ".html", ".json", ".log", ".md", ".npy", ".npz", ".pdf",
    ".py", ".raw", ".rst", ".svg", ".tif", ".tiff", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml",
    ".zip", ".zraw",
}  # fmt: skip
_HEADERS_PER_TASK = 128

Map: TypeAlias = "Callable[[Callable[[Sequence[str]], list[Header | Skipped]], Sequence[Sequence[str]]], Iterable[Any]]"


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
    files, skipped = list_files(root)
    for path in files:
        if include and not _included(path, include):
            skipped.append(Skipped(path, "does not match --include"))
        elif (kind := _kind(path)) == "other":
            skipped.append(Skipped(path, "not an image in a known format"))
        elif kind != "dicom" and not include and (reason := why_label_name(path)):
            skipped.append(Skipped(path, reason))
        else:
            by_kind[kind].append(path)

    volumes: list[Volume] = []
    for paths, find in ((by_kind["nifti"], nifti.find), (by_kind["itk"], itk_files.find)):
        for path in paths:
            result = find(path, root, stored=stored, labels=bool(include))
            (volumes if isinstance(result, Volume) else skipped).append(result)  # type: ignore[arg-type]
    headers_of_volumes = {volume.path for volume in volumes if volume.format == "itk"}
    # Files of voxels, which belong to the volume of a header.
    beside = {itk_files.data_file(path, root) for path in headers_of_volumes} - {volume.path for volume in volumes}
    by_kind["dicom"] = [path for path in by_kind["dicom"] if path not in beside]
    by_kind["images"] = [path for path in by_kind["images"] if path not in beside]
    skipped = [item for item in skipped if item.path not in beside]
    candidates = by_kind["dicom"]
    tasks = [candidates[start : start + _HEADERS_PER_TASK] for start in range(0, len(candidates), _HEADERS_PER_TASK)]
    headers: list[Header] = []
    for result in (item for results in map_headers(partial(_headers, root=root), tasks) for item in results):
        (skipped if isinstance(result, Skipped) else headers).append(result)
    for more, left_out in (
        _dicom_volumes(headers, stored=stored),
        images.find(by_kind["images"], root, compiled, stored=stored),
    ):
        volumes.extend(more)
        skipped.extend(left_out)
    volumes = _told_apart(volumes)
    # Folder by folder, as a person sorts them: `p` before `p-2`, though `p-2/` comes before `p/` as text.
    volumes.sort(key=lambda volume: (volume.path.split("/"), volume.slice_path(0).split("/"), volume.volume))
    skipped.sort(key=lambda item: item.path)
    return Found(volumes, skipped)


# pydicom, which takes a fifth of a second to import, is imported where there are DICOM files.


def _headers(paths: Sequence[str], root: Path) -> list[Header | Skipped]:
    from lessismore_transforms.volumes import dicom

    return [header for path in paths for header in dicom.read_headers(path, root)]


def _dicom_volumes(headers: list[Header], *, stored: bool) -> tuple[list[Volume], list[Skipped]]:
    if not headers:
        return [], []
    from lessismore_transforms.volumes import dicom

    return dicom.build_volumes(headers, stored=stored)


def _told_apart(volumes: list[Volume]) -> list[Volume]:
    """The volumes with ids of their own: those that share one are named by their first file, which is in no other.

    An id is made of a path or a UID, and of a number where one of these holds several volumes: `case/1` is the second
    size of the pictures `case_000.png`, and also the pictures `case/1_000.png`.
    """
    shared = Counter(volume.volume for volume in volumes)
    return [
        volume
        if shared[volume.volume] == 1
        else replace(volume, volume=volume_id("\n".join((volume.format, volume.series, volume.slice_path(0)))))
        for volume in volumes
    ]


def _included(path: str, include: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(path, glob) or fnmatch.fnmatch(_name(path), glob) for glob in include)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _kind(path: str) -> str:
    name = _name(path).lower()
    for kind, suffixes in (("nifti", nifti.SUFFIXES), ("itk", itk_files.SUFFIXES), ("images", images.SUFFIXES)):
        if name.endswith(suffixes):
            return kind
    return "other" if posixpath.splitext(name)[1] in _OTHER_SUFFIXES or name == "dicomdir" else "dicom"


def checksum(volume: Volume, root: str | Path) -> str:
    """CRC32 of a volume's files, as in the manifest, without decoding a voxel; empty where a file is missing."""
    crc = Crc32()
    paths = list(dict.fromkeys(stored.path for stored in volume.slices)) or [volume.path]
    try:
        if volume.format == "itk" and (data := itk_files.data_file(volume.path, Path(root))) != volume.path:
            paths.append(data)
        for path in paths:
            crc.update_from(Path(root) / path)
    except OSError:
        return ""
    return str(crc)


_READERS = {"nifti": nifti.read, "itk": itk_files.read, "images": images.read}


def read_slices(
    volume: Volume, root: str | Path, crc: Crc32 | None = None, *, memory_mb: int | None = MEMORY_MB
) -> Iterator[Slice]:
    """Stream the slices of `volume` in HU, each once, in the order they are stored.

    No more than one slice of a volume is in memory.

    Args:
        volume: as `find_volumes` found it below `root`.
        root: the data set's folder.
        crc: checksum that is fed the bytes of the volume's files; complete when the iterator is exhausted.
        memory_mb: what reading may take; a slice that would take more is refused before it is read. None where the
            size of the slices is known to be right.

    Raises:
        VolumeError: the volume's file is damaged; a damaged file of a series comes as a slice with a `reason` instead.
    """
    count, rows, columns = volume.shape
    if memory_mb is not None and rows * columns > most_pixels(memory_mb):
        raise VolumeError(
            f"{printable(volume.path)}: a slice of {rows:,} x {columns:,} pixels needs more than the {memory_mb} MB "
            f"that reading may take: copy it again if its {counted(count, 'slice')} are smaller, or raise the limit"
        )
    if volume.format == "dicom":
        from lessismore_transforms.volumes import dicom

        return dicom.read(volume, Path(root), crc or Crc32())
    return _READERS[volume.format](volume, Path(root), crc or Crc32())
