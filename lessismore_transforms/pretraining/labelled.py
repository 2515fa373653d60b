"""Labelled pictures for the probe, without those of the pre-training set: a folder of class folders, or a CSV file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.label_file import PATIENT_COLUMNS, check_rows, find_label_column, first_of, read_rows
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.network_input import resize
from lessismore_transforms.volumes.pictures import list_pictures, read_picture, with_channels
from lessismore_transforms.wording import counted, plural

GROUPS = ("group", *PATIENT_COLUMNS, "source")  # columns of what is not compared, the first that is there
_LOGGER = logging.getLogger("lessismore_transforms")

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Labelled pictures of one size.

    Args:
        images: uint8 (N, C, size, size), C is 1 for grey, 3 in colour.
        targets: int64 (N,), positions in `classes`.
        groups: int64 (N,), patient or volume of each picture; pictures of the same group are not compared.
        classes: names, sorted.
    """

    images: torch.Tensor
    targets: torch.Tensor
    groups: torch.Tensor
    classes: tuple[str, ...]


def read_labelled(
    source: str | Path,
    size: int,
    *,
    label: str | None = None,
    output: str | Path | None = None,
    selection: str = "default",
    training: torch.Tensor | None = None,
    channels: int = 1,
) -> LabelledSet:
    """Read a labelled set: whole pictures, resized (bilinear, antialiased).

    A folder has a sub-folder of PNG, JPEG or TIFF files for each class, and each picture is a group of its own. A CSV
    file has a row per picture: its `path`, relative to the CSV file's folder, or its `slice_id` in `output`; its label;
    and, optionally, the `group`, `patient` (`patient_id`) or `source` that it belongs to (by default the volume, for a
    slice of `output`).

    Args:
        source: the folder or the CSV file.
        size: rows and columns of the network's input.
        label: the column of the labels; by default `label`, or the only column that can be meant.
        output: output folder of `reduce` with the slices that a CSV file names by `slice_id`.
        selection: name of its selection; rows of slices that are not in it are left out.
        training: int64 (n,), the bits of the difference hashes of the slices of pre-training, as
            `training_set.slices` gives them: pictures with such a hash are left out.
        channels: 1 reads grey pictures, 3 colour; slices are grey.

    Raises:
        UserError: a file is missing or cannot be read, a label or a column is missing, or what is left has fewer
            than two classes or two groups.
    """
    source = Path(source)
    if source.is_dir():
        items = _from_folders(source, channels)
    elif source.is_file():
        items = _from_table(source, label, output, selection, channels)
    else:
        raise UserError(f"expected a folder of class folders or a CSV file at {source}, found nothing: check the path")
    seen = set() if training is None else set(training.cpu().numpy().view(np.uint64).tolist())
    kept: list[_Item] = []
    images, known = [], 0
    for item in items:
        if item.hash in seen:
            known += 1
            continue
        kept.append(item._replace(picture=np.empty((0, 0), np.uint8)))
        images.append(_resized(item.picture, size))
    if known:
        share = f"{known} of {counted(known + len(kept), 'picture')} of {source}"
        sentence = f"{share} {plural(known, 'is', 'are')} in the pre-training set"
        if not kept:
            raise UserError(f"{sentence}: a probe needs pictures that pre-training does not see, name others")
        _LOGGER.warning("%s and left out of the probe", sentence)
    return _checked(source, kept, images)


class _Item(NamedTuple):
    label: str
    group: str
    hash: int
    picture: Picture


def _from_folders(folder: Path, channels: int) -> Iterator[_Item]:
    places = sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    pictures = {place: paths for place in places if (paths := list_pictures(place, with_tiff=True))}
    if len(pictures) < 2:
        found = ", ".join(place.name for place in pictures) or "none"
        raise UserError(f"expected a sub-folder of PNG, JPEG or TIFF files for each class in {folder}, found {found}")
    for place, paths in pictures.items():
        for name in paths:
            picture = read_picture(place / name, channels)
            yield _Item(place.name, f"{place.name}/{name}", _hash(picture), picture)


def _from_table(
    table: Path, label: str | None, output: str | Path | None, selection: str, channels: int
) -> Iterator[_Item]:
    rows, columns = read_rows(table)
    key = "slice_id" if "slice_id" in columns and (output is not None or "path" not in columns) else "path"
    if key not in columns:
        raise UserError(f"{table}: expected a column path or slice_id, found {', '.join(columns)}")
    if key == "slice_id" and output is None:
        raise UserError(f"{table} names slices by slice_id: give the output folder of `reduce` that holds them")
    label = find_label_column(table, columns, label, setting="probe_label")
    group = first_of(GROUPS, columns)
    check_rows(table, rows, key, label)
    named = {row[key]: (row[label], row[group] if group else None) for row in rows}
    if key == "path":
        yield from _from_files(table.parent, named, channels)
    elif output is not None:
        yield from _from_output(table, named, output, selection)


def _from_files(folder: Path, named: Mapping[str, tuple[str, str | None]], channels: int) -> Iterator[_Item]:
    for path, (label, group) in named.items():
        picture = read_picture(folder / path, channels)
        yield _Item(label, path if group is None else group, _hash(picture), picture)


def _from_output(
    table: Path, named: Mapping[str, tuple[str, str | None]], output: str | Path, selection: str
) -> Iterator[_Item]:
    dataset = SliceSelectionDataset(output, selection)
    if lacking := len(named.keys() - set(dataset.slice_ids)):
        share = f"{lacking} of {counted(len(named), 'slice')} of {table}"
        sentence = f"{share} {plural(lacking, 'is', 'are')} not in the selection {selection!r} of {output}"
        if lacking == len(named):
            raise UserError(f"{sentence}: name the output that holds them")
        _LOGGER.warning("%s and left out of the probe", sentence)
    columns = dataset.slice_ids, dataset.volumes, dataset.hashes().tolist()
    for index, (name, volume, bits) in enumerate(zip(*columns, strict=True)):
        if name in named:
            label, group = named[name]
            yield _Item(label, volume if group is None else group, bits, dataset.picture(index))


def _hash(picture: Picture) -> int:
    """The difference hash by which a picture of the pre-training set is known, see `PictureSet.hashes`."""
    return int(dhash(min_max_uint8(with_channels(picture, 1))))


def _resized(picture: Picture, size: int) -> torch.Tensor:
    """A picture (H, W) or (H, W, 3) as uint8 (C, size, size)."""
    planes = torch.from_numpy(np.atleast_3d(picture).transpose(2, 0, 1).copy())  # (C, H, W)
    small = resize(planes[None].float(), size)
    return small[0].round().clamp(0, 255).to(torch.uint8)


def _checked(source: Path, items: Sequence[_Item], images: Sequence[torch.Tensor]) -> LabelledSet:
    classes, targets = np.unique([item.label for item in items], return_inverse=True)
    names, groups = np.unique([item.group for item in items], return_inverse=True)
    if len(classes) < 2 or len(names) < 2:
        raise UserError(
            f"expected pictures of two classes and two groups or more in {source}, found {len(classes)} and "
            f"{len(names)}: the probe cannot measure anything"
        )
    origins = Counter(target for target, _ in set(zip(targets.tolist(), groups.tolist(), strict=True)))
    if alone := [str(classes[target]) for target in range(len(classes)) if origins[target] == 1]:
        _LOGGER.warning(
            "%s: all pictures of the class %s are of one group, so that the probe cannot recognise it",
            source,
            ", ".join(alone),
        )
    return LabelledSet(
        torch.stack(list(images)), torch.from_numpy(targets), torch.from_numpy(groups), tuple(classes.tolist())
    )
