"""Label maps (segmentations, masks) that lie beside CT volumes: told by their names, or by what few values they hold.

A file is taken for a label map where

- a word of its name, or of the folder it is in, is label, labelmap, mask, seg or segmentation (or their plural, with
  or without a number: `seg.nii.gz`, `ct_label.nrrd`, `LungMask2.mha`, `labelsTr/a.nii.gz`). Words end where letters
  end and where a capital begins, so `masked_ct` is none; behind capitals they need none: `GTVmask`. A folder that also
  says ct, image, scan or volume does not count: `CT-seg-challenge/a.nii.gz` is a CT;
- or its voxels are whole numbers, of whatever type, at most 64 different ones, and none of them is air (-500 HU or
  less). Reading stops at the 65th value, in a CT within its first slices.
"""

from __future__ import annotations

import re
import zlib
from pathlib import PurePosixPath

import numpy as np
from isal import isal_zlib

from lessismore_transforms.volumes.geometry import Array
from lessismore_transforms.volumes.volume import Crc32
from lessismore_transforms.volumes.voxel_stream import Voxels, unpack
from lessismore_transforms.wording import counted

ADVICE = "to take it all the same, name it with --include"

_WORD = re.compile(r"[A-Z]{2,}(?=(?:label(?:map)?|mask|seg(?:mentation)?)s?(?![a-z]))|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LABEL_WORDS = {"label", "labels", "labelmap", "labelmaps", "mask", "masks", "seg", "segs", "segmentation"}
_LABEL_WORDS.add("segmentations")
_MAYBE_LABEL = re.compile("label|mask|seg", re.IGNORECASE)  # in each of these words
_IMAGE_WORDS = {"ct", "image", "images", "img", "imgs", "scan", "scans", "volume", "volumes"}
_MOST_LABELS = 64
_AIR_HU = -500
_BLOCK = 1 << 17
_MOST_BYTES = 1 << 28  # read for this at most; no CT begins with so much of nothing


def why_label_name(path: str) -> str:
    """Why a file is taken for a label map by its name; nothing where it is not.

    Args:
        path: relative to the data set's root.
    """
    if not _MAYBE_LABEL.search(path):  # nearly always, found in a tenth of the time
        return ""
    file = PurePosixPath(path)
    stem = PurePosixPath(file.stem).stem if file.suffix.lower() == ".gz" else file.stem
    folder = _words(file.parent.name)
    if word := _words(stem) & _LABEL_WORDS:
        return f"a label map by the word {min(word)!r} in its name, not CT: {ADVICE}"
    if (word := folder & _LABEL_WORDS) and not folder & _IMAGE_WORDS:
        return f"a label map by the word {min(word)!r} in the name of its folder, not CT: {ADVICE}"
    return ""


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}


def why_label_map(voxels: Voxels, shape: tuple[int, ...]) -> str:
    """Why a file is taken for a label map by its voxels; nothing where it is not, or where it is damaged.

    Args:
        voxels: where they are.
        shape: of the grid.
    """
    dtype = np.dtype(voxels.dtype)
    if dtype.kind not in "iuf":
        return ""
    left = min(int(np.prod(shape, dtype=object)) * dtype.itemsize, _MOST_BYTES)
    seen: set[int] = set()
    try:
        with voxels.path.open("rb") as file:
            unpacked = unpack(file, voxels, Crc32())
            while left:
                data = unpacked.read(min(left, _BLOCK))
                if not data or len(data) % dtype.itemsize:
                    return ""  # truncated: reading will tell
                left -= len(data)
                found = _distinct(np.frombuffer(data, dtype))
                if found is None or len(seen := seen | found) > _MOST_LABELS:
                    return ""
                if min(value * voxels.slope + voxels.intercept for value in found) <= _AIR_HU:
                    return ""
    except (OSError, EOFError, zlib.error, isal_zlib.IsalError):  # type: ignore[misc]  # isal's stub has an instance
        return ""
    different = counted(len(seen), "different value")
    return f"a label map by its voxels: whole numbers, {different} and no air, not CT: {ADVICE}"


def _distinct(values: Array) -> set[int] | None:
    """The different values among whole numbers; None where they are many, or where some are no whole numbers."""
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        return None
    low, high = int(values.min()), int(values.max())
    if high - low > 1 << 16 or max(-low, high) > 1 << 62:
        return None
    if low == high:
        return {low}
    held = np.flatnonzero(np.bincount(values.astype(np.int64) - low))
    return None if len(held) > _MOST_LABELS else {low + int(step) for step in held}
