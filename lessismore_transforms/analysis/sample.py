"""The pictures that networks are shown in an analysis: some of a folder or of an output, with labels and groups."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from lessismore_transforms.bundle.inference import Pictures
from lessismore_transforms.classification.preprocessing import resized
from lessismore_transforms.errors import UserError
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.reduced.label_file import check_rows, first_of, read_rows
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.picture_list import find_table, rows_of_split
from lessismore_transforms.reduced.picture_set import is_reduction
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.volumes.pictures import with_channels
from lessismore_transforms.wording import counted, listed

FOLDERS = "folders"  # labels by the folder that a picture is in
_KEYS = ("path", "image_id", "slice_id")  # columns that name a picture
_UNITS = ("patient", "group", "source")  # columns that name what pictures have in common, the best first
_LOGGER = logging.getLogger("lessismore_transforms")


@dataclass(frozen=True, eq=False)
class Sample:
    """Pictures in memory, in an order drawn at random in which those of a group lie apart.

    Pictures of one patient in a batch look like a likeness of layers; in different batches they do not meet.

    Args:
        names: N paths below the folder, or slice_ids.
        images: float32 (N, C, S, S) in 0..1.
        labels: N names of classes; none where they are not known.
        groups: N names of what each belongs to, such as patients. Private: not written.
        unit: what a group is: patient, group, source, volume or picture.
        hashes: uint64 (N,), difference hashes.
        volumes: int64 (N,), numbers of the volume, or else of the group.
        of: number of pictures that there were to draw from.
        unread: of pictures that cannot be read, the reason by name.
    """

    names: tuple[str, ...]
    images: torch.Tensor
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    unit: str
    hashes: NDArray[np.uint64]
    volumes: NDArray[np.int64]
    of: int
    unread: Mapping[str, str]

    def classes(self, known: Sequence[str]) -> torch.Tensor:
        """The position of each picture's label (N,) in a classifier's classes.

        Raises:
            UserError: there are no labels, or one is no class of it.
        """
        strange = sorted(set(self.labels) - set(known))
        if strange or not self.labels:
            found = repr(strange[0]) if strange else "none"
            raise UserError(
                f"expected labels out of {listed(known, 'or')}, the classes of the classifier, found {found}: take a "
                "classifier of these pictures, or give the labels that it knows"
            )
        return torch.tensor([known.index(label) for label in self.labels])

    def named(self, known: Sequence[str]) -> Sample:
        """The sample with the names of classes for labels that are their numbers, as in predictions.csv."""
        numbers = {str(place): name for place, name in enumerate(known)}
        if not self.labels or set(self.labels) <= set(known) or not set(self.labels) <= numbers.keys():
            return self
        return replace(self, labels=tuple(numbers[label] for label in self.labels))

    def class_names(self, known: Sequence[str]) -> list[str]:
        """The classes that the labels name: in a classifier's order, else by number, else by name."""
        found = set(self.labels)
        if found <= set(known):
            return [name for name in known if name in found]
        return sorted(found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def read_sample(
    dataset_dir: str | Path | Sequence[str | Path],
    *,
    size: int,
    selection: str = "default",
    labels: str | Path | None = None,
    pictures: int | None = 1000,
    seed: int = 0,
    channels: int = 1,
    resize: str = "bilinear",
    transpose: bool = False,
    window: str | None = None,
) -> Sample:
    """Draw pictures and read them.

    Args:
        dataset_dir: a folder of PNG, JPEG, TIFF or DICOM files, or one or more outputs of `reduce`.
        size: rows and columns of each, in pixels.
        selection: of the outputs.
        labels: a table `FILE.csv`, or `FILE.csv:SPLIT` for a part of it: a column path, image_id or slice_id names the
            picture, label its class, and patient, group or source what it belongs to; the predictions.csv of an
            evaluation is one. Only its pictures are drawn from. Or `folders`: the first folder of a path is its class.
        pictures: the most that are drawn; None for all.
        seed: of the draw and of the order.
        channels: 1 or 3.
        resize: `bilinear` or `area`.
        transpose: exchange rows and columns.
        window: for DICOM that holds HU, see `pictures.read_image`.

    Raises:
        UserError: there are no such pictures, the table lacks something, or fewer than 4 pictures can be read.
        ManifestError: an output is damaged, or has no such selection.
    """
    source = Pictures(dataset_dir, selection, channels=channels, dicom=True, window=window)
    names = source.names
    label_of, group_of, unit = _told(names, dataset_dir, labels)
    outputs = _slices_of(dataset_dir, names)
    if outputs is not None and group_of is None:
        group_of, unit = {name: patient for name, (patient, _, _) in outputs.items()}, "patient"
    chosen = [place for place, name in enumerate(names) if label_of is None or name in label_of]
    drawn = np.random.default_rng(seed).permutation(chosen)[:pictures].tolist()
    drawn = _spread(drawn, [group_of.get(name, name) if group_of else name for name in names], seed)
    images, kept, hashes = [], list[str](), list[int]()
    unread: dict[str, str] = {}
    for place in progress_bar(drawn, desc="read", unit=" pictures"):
        item = source[place]
        if item["error"]:
            path = f"{Path(str(dataset_dir)) / names[place]}"  # private
            reason = item["error"].replace(path, names[place])
            unread[names[place]] = reason
            _LOGGER.warning("%s could not be read: %s", names[place], reason)
            continue
        picture = item["image"]
        kept.append(names[place])
        hashes.append(_hash(picture))
        images.append(resized(picture.mT if transpose else picture, size, resize))
    if len(kept) < 4:
        raise UserError(
            f"expected 4 pictures or more to compare networks by, found {len(kept)} in {dataset_dir} that can be read: "
            "take more"
        )
    if outputs is not None:
        volumes = [outputs[name][1] for name in kept]
        hashes = [outputs[name][2] for name in kept]
    groups = tuple(group_of[name] if group_of else name for name in kept)
    return Sample(
        names=tuple(kept),
        images=torch.stack(images),
        labels=() if label_of is None else tuple(label_of[name] for name in kept),
        groups=groups,
        unit=unit,
        hashes=np.array(hashes, np.uint64),
        volumes=np.unique(groups if outputs is None else volumes, return_inverse=True)[1].astype(np.int64),
        of=len(chosen),
        unread=unread,
    )


def _told(
    names: Sequence[str], dataset_dir: str | Path | Sequence[str | Path], labels: str | Path | None
) -> tuple[dict[str, str] | None, dict[str, str] | None, str]:
    """Label and group by name as far as they are told, and what a group is."""
    if labels is None:
        return None, None, "picture"
    if str(labels) == FOLDERS:
        folders = {name: PurePosixPath(name).parts[0] for name in names if len(PurePosixPath(name).parts) > 1}
        if not folders:
            raise UserError(f"expected pictures in a folder for each class in {dataset_dir}, found none: give a table")
        return folders, None, "picture"
    folder = Path(dataset_dir) if isinstance(dataset_dir, (str, Path)) else Path()
    file, split = find_table(folder, str(labels), what="a table of labels, as FILE.csv or FILE.csv:SPLIT")
    rows, columns = read_rows(file)
    rows = rows_of_split(file, rows, columns, split)
    key = first_of(_KEYS, columns)
    if not key or "label" not in columns:
        raise UserError(
            f"{file}: expected a column label and one out of {listed(_KEYS, 'or')}, found {', '.join(columns)}: "
            "name both"
        )
    unit = next((name for name in _UNITS if name in columns and any(row[name] for row in rows)), "")
    check_rows(file, rows, key, "label", *filter(None, [unit]))
    lacking = sorted({row[key] for row in rows} - set(names))
    if lacking:
        raise UserError(
            f"{len(lacking):,} of {counted(len(rows), 'picture')} of {file} are not in {dataset_dir}, first "
            f"{lacking[0]}: paths are relative to that folder"
        )
    groups = {row[key]: row[unit] for row in rows} if unit else None
    return {row[key]: row["label"] for row in rows}, groups, unit or "picture"


def _slices_of(
    dataset_dir: str | Path | Sequence[str | Path], names: Sequence[str]
) -> dict[str, tuple[str, str, int]] | None:
    """Patient, volume and hash of each slice; None for pictures of a folder."""
    outputs = [dataset_dir] if isinstance(dataset_dir, (str, Path)) else dataset_dir
    if not is_reduction(outputs[0]):
        return None
    found: dict[str, tuple[str, str, int]] = {}
    for output in outputs:
        slices = Manifest.read(Path(output)).slices
        slice_ids, *columns = (slices[name].tolist() for name in ("slice_id", "patient", "volume", "hash"))
        found |= zip(slice_ids, zip(*columns, strict=True), strict=True)
    return {name: found[name] for name in names}


def _hash(picture: torch.Tensor) -> int:
    """The difference hash of a picture (C, H, W) in grey."""
    rows = picture.numpy().transpose(1, 2, 0)  # (H, W, C)
    return int(dhash(min_max_uint8(with_channels(rows[..., 0] if rows.shape[2] == 1 else rows, 1))))


def _spread(places: Sequence[int], groups: Sequence[str], seed: int) -> list[int]:
    """Places in an order in which those of each group lie evenly apart, so that few of them meet in a batch."""
    counts, seen = Counter(groups[place] for place in places), Counter[str]()
    first = dict(zip(counts, np.random.default_rng(seed).random(len(counts)), strict=True))
    at = []
    for place in places:
        group = groups[place]
        at.append((seen[group] + first[group]) / counts[group])  # in 0..1
        seen[group] += 1
    return [places[number] for number in np.argsort(at, kind="stable")]
