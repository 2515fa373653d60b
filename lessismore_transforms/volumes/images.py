"""Volumes stored as folders of 2-D PNG or JPEG slices; volume and index of a slice are in its file name.

Such pictures hold grey values, no HU and no geometry: positions are slice numbers, orientation is as stored.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from lessismore_transforms.errors import UserError
from lessismore_transforms.volumes.geometry import LPS_TO_RAS, Orientation
from lessismore_transforms.volumes.picture_files import picture_size, read_grey, why_unreadable
from lessismore_transforms.volumes.png import read_grey_png
from lessismore_transforms.volumes.volume import (
    Crc32,
    Skipped,
    Slice,
    StoredSlice,
    Volume,
    file_patient,
    to_hu,
    volume_id,
)
from lessismore_transforms.wording import plural, printable

SUFFIXES = (".png", ".jpg", ".jpeg")
NO_PATTERN = "its name fits no slice pattern: name one with --pattern"

# Matched against the file name without its suffix. `index` orders the slices; everything before it names the volume.
PATTERNS = {
    "lidc": r"(?P<patient>LIDC-IDRI-\d+)_(?P<index>\d+)",
    "petct": r"(?P<patient>PETCT_[0-9a-f]+)_(?P<study>\d+)_(?P<index>\d+)",
    "numbered": r"(?P<patient>.*?)[_-]?(?P<index>\d+)",
}
DEFAULT_PATTERNS = (PATTERNS["lidc"], PATTERNS["petct"])


def compile_pattern(text: str) -> re.Pattern[str]:
    """The compiled pattern of file names for a preset's name or a regular expression with a group `index`.

    Raises:
        UserError: it is neither a preset nor a regular expression with a group `index`.
    """
    try:
        pattern = re.compile(PATTERNS.get(text, text))
    except re.error as error:
        raise UserError(f"the pattern {text!r} is no regular expression ({error})") from error
    if "index" not in pattern.groupindex:
        presets = ", ".join(PATTERNS)
        raise UserError(f"expected one of {presets} or a regular expression with (?P<index>...), found {text!r}")
    return pattern


def find(
    paths: Sequence[str], root: Path, patterns: Sequence[re.Pattern[str]], *, stored: bool = False
) -> tuple[list[Volume], list[Skipped]]:
    """Volumes among 2-D images, and the images that belong to none.

    Args:
        paths: image files relative to `root`.
        root: the data set's folder.
        patterns: tried in turn; the first that fits the whole name (without suffix) counts.
        stored: order by file name as text, like the released scripts, not by the number in it.
    """
    groups: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)  # by folder and start of the names
    patients: dict[tuple[str, str], str] = {}
    skipped = []
    for path in sorted(paths):
        folder, name = posixpath.split(path)
        stem = posixpath.splitext(name)[0]
        match = next(filter(None, (pattern.fullmatch(stem) for pattern in patterns)), None)
        if match is None or match["index"] is None:
            skipped.append(Skipped(path, NO_PATTERN))
            continue
        if not match["index"].isdecimal():
            skipped.append(Skipped(path, "what its slice pattern takes for the number is none: name another --pattern"))
            continue
        group = folder or ".", stem[: match.start("index")].rstrip("_-")
        groups[group].append((int(match["index"]), path))
        patients[group] = match.groupdict().get("patient") or file_patient(_key(group))
    volumes: list[Volume] = []
    for group, members in groups.items():
        sizes: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
        taken: dict[int, str] = {}
        for index, path in members:
            if (first := taken.setdefault(index, path)) != path:
                skipped.append(Skipped(path, f"has the same slice number as {printable(first)}, which was kept"))
                continue
            try:
                sizes[picture_size(f"{root}/{path}")].append((index, path))
            except Exception as error:  # decoders raise many kinds on damaged files
                skipped.append(Skipped(path, why_unreadable(error)))
        parts = sorted(sizes.items(), key=lambda part: (-len(part[1]), part[0]))
        for number, (size, part) in enumerate(parts):
            key = _key(group) if number == 0 else f"{_key(group)}/{number}"
            volumes.append(_build(key, patients[group], part, size, stored=stored))
    return volumes, skipped


def _key(group: tuple[str, str]) -> str:
    """Group as one path; `p1/000.png` and `p1_010.png` have the same one: `find_volumes` tells their volumes apart."""
    return str(PurePosixPath(*group))


def _build(key: str, patient: str, members: list[tuple[int, str]], size: tuple[int, int], *, stored: bool) -> Volume:
    members = sorted(members, key=lambda member: member[1]) if stored else sorted(members)
    missing = max(index for index, _ in members) - min(index for index, _ in members) + 1 - len(members)
    notes = ["2-D images: grey values for HU, slice numbers for positions"]
    if missing:
        notes.append(f"{missing} slice {plural(missing, 'number is', 'numbers are')} missing")
    folders = Counter(posixpath.dirname(path) or "." for _, path in members)
    return Volume(
        volume=volume_id(key),
        patient=patient,
        series="",
        format="images",
        path=folders.most_common(1)[0][0],
        shape=(len(members), *size),
        affine=tuple(map(tuple, LPS_TO_RAS.tolist())),
        orientation=Orientation(),
        slices=tuple(StoredSlice(path, float(index)) for index, path in members),
        notes=tuple(notes),
    )


def read(volume: Volume, root: Path, crc: Crc32) -> Iterator[Slice]:
    """The slices of `volume` as grey values; a slice that cannot be read comes with the reason."""
    for index, stored in enumerate(volume.slices):
        try:
            with io.FileIO(f"{root}/{stored.path}") as file:
                data = file.read()
            crc.update(data)
            hu = read_grey_png(data)  # 8 bit, which would be widened only to be made 8 bit again
            if hu is None:
                hu, _ = to_hu(read_grey(io.BytesIO(data)))
            if hu.shape != volume.shape[1:]:
                raise UserError("a picture of another size than when it was found: run again")
        except Exception as error:  # one bad file must not lose the volume; image decoders raise many kinds
            reason = f"{printable(stored.path)}: {why_unreadable(error)}"
            yield Slice(index, np.empty((0, 0), np.int16), reason=reason)
            continue
        yield Slice(index, hu)
