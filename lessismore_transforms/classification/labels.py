"""Labelled pictures of any data set: class folders or a CSV file; PNG, JPEG, TIFF or DICOM; patients without names.

Labels come from one of two layouts:

- folders: a sub-folder for each class, sorted by name (`a_without` is 0, `b_with` is 1). They may lie below folders
  train/, val/ and test/, or hold such folders, which then tell the official split. A further folder in a class folder
  is a patient, unless it is the only one and the same in all classes, as `images`.
- a CSV file, see `label_table`: a row for each picture, with a column that names it (a path, a name, or a number that
  equals the name up to leading zeros), one of labels, and perhaps `patient`, `group` (a paper, case or slide) and
  `split`. Where it has no column `split`, folders train/, val/ and test/ tell the split here too.

The patient is that of the CSV file, or PatientID of DICOM, else the folder in the class folder. Patients and groups are
written as keyed hashes, as by `reduce`, also where they are part of the path that names the picture; so is a folder in
a class folder where PatientID tells the patient.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from lessismore_transforms.classification.examples import Example, Listing
from lessismore_transforms.classification.label_table import (
    SPLIT_NAMES,
    Labelled,
    check_classes,
    check_names,
    find_table,
    read_table,
)
from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.reduction.intensity import parse_windows
from lessismore_transforms.volumes.pictures import SUFFIXES, TIFF_SUFFIXES, list_pictures, patient_id, read_image
from lessismore_transforms.wording import bounded, counted, plural

_LONG = 3  # characters, from which on a name is replaced inside words too
_LOGGER = logging.getLogger("lessismore_transforms")


def labelled_pictures(
    dataset_dir: str | Path,
    *,
    labels: str | Path | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    window: str | None = None,
    task: str = "own",
) -> Listing:
    """The labelled pictures below a folder, in order of their paths, with the official split where one is told.

    Args:
        dataset_dir: the folder that holds the pictures, at any depth.
        labels: a CSV file, in `dataset_dir` or anywhere; None for the only one in `dataset_dir`, else class folders.
        label_column: its column of labels; None for `label`, or the only column that can be meant.
        group_column: its column of what belongs together where no patient is known; None for `group` or `source`.
        window: window of DICOM in HU: a name or level/width, or three with + between as three channels; None for
            min-max. PNG, JPEG and TIFF stay as they are.
        task: its name in tables.

    Raises:
        UserError: there are no pictures, or labels do not fit them.
    """
    root = Path(dataset_dir)
    if window is not None:
        parse_windows(window)
    paths = list_pictures(root, with_dicom=True, with_tiff=True)
    if not paths:
        raise UserError(f"expected PNG, JPEG, TIFF or DICOM files below {root}, found none: name another folder")
    table = find_table(root, labels)
    if table is None:
        for kind, value in (("label", label_column), ("group", group_column)):
            if value is not None:
                raise UserError(
                    f"expected a CSV file for the {kind} column {value}, found none in {root}: name one with --labels"
                )
        rows, classes = _from_folders(root, paths)
    else:
        rows, classes = read_table(table, paths, label_column=label_column, group_column=group_column)
        rows = _completed(root, table, rows)
        unnamed = len(paths) - len(rows)
        _warn_left_out(unnamed, f"{plural(unnamed, 'has', 'have')} no row in {table.name}")
    check_names(table or root, "patient", (row.patient for row in rows))
    check_names(table or root, "group", (row.source for row in rows))
    return listing_of(root, rows, classes, window=window, task=task)


def listing_of(
    root: Path, rows: Sequence[Labelled], classes: Sequence[str], *, window: str | None = None, task: str = "own"
) -> Listing:
    """The listing of pictures whose labels are known, with hashes in place of patients and groups.

    Args:
        root: the folder that the paths are below.
        rows: the pictures.
        classes: their names.
        window: as `labelled_pictures` takes it.
        task: its name in tables.
    """
    key = load_key() if any(row.patient or row.source for row in rows) else b""
    examples, places = [], dict[str, Path]()
    for number, row in enumerate(rows, start=1):
        patient, source, folder = (
            hash_patient(each, key) if each else "" for each in (row.patient, row.source, row.folder)
        )
        hidden = {row.shown or row.patient: patient, row.folder: folder, row.source: source}
        path = _without(row.path, hidden)
        while path in places:  # 7/1.png and 007/1.png of patient 7
            path = str((place := PurePosixPath(path)).with_name(f"{place.stem}-{number}{place.suffix}"))
        examples.append(Example(path, row.label, row.split, patient, source))
        places[path] = root / row.path
    return Listing(
        task,
        tuple(classes),
        tuple(examples),
        lambda example, channels: read_image(places[example.image_id], channels, window=window),
    )


def split_folders(paths: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """The split that a folder train, val or test tells, and the path's other parts; empty where not all paths have one.

    The folder is the first or the second one of all paths. Pictures in no folder at all do not count.
    """
    parts = [PurePosixPath(path).parts for path in paths]
    for depth in (0, 1):
        inside = [each for each in parts if len(each) > 1]
        if inside and all(len(each) > depth + 1 and each[depth].lower() in SPLIT_NAMES for each in inside):
            return [
                (SPLIT_NAMES[each[depth].lower()], each[:depth] + each[depth + 1 :]) if len(each) > 1 else ("", each)
                for each in parts
            ]
    return [("", each) for each in parts]


def _from_folders(root: Path, paths: Sequence[str]) -> tuple[list[Labelled], tuple[str, ...]]:
    """The pictures in class folders, and the classes."""
    below = split_folders(paths)
    first = {parts[0] for _, parts in below if len(parts) > 1}
    if (splits := {name for name in first if name.lower() in SPLIT_NAMES}) and first - splits:
        raise UserError(
            f"expected all pictures in {root} below train, val and test, or none, found folders "
            f"{', '.join(sorted(splits))} beside {bounded(', '.join(sorted(first - splits)), 200)}: move or rename some"
        )
    classes = tuple(sorted(first))
    if len(classes) < 2:
        raise UserError(
            f"expected a folder of pictures for each class, or a CSV file of labels, in {root}, found "
            f"{', '.join(classes) or 'no such folder'}: sort the pictures or name a CSV file with --labels"
        )
    check_classes(root, classes)
    rows = []
    level = _level_of_patients([parts for _, parts in below], classes)
    for path, (split, parts) in zip(paths, below, strict=True):
        if len(parts) > 1:
            patient, folder = _patient_id(root, path), parts[level] if len(parts) > level + 1 else ""
            names = {"patient": patient, "folder": folder} if patient else {"patient": folder}
            rows.append(Labelled(path, classes.index(parts[0]), split=split, **names))
    outside = len(paths) - len(rows)
    _warn_left_out(outside, f"{plural(outside, 'is', 'are')} in no class folder")
    return rows, classes


def _level_of_patients(paths: Sequence[tuple[str, ...]], classes: Sequence[str]) -> int:
    """The place of the patient's folder in a path: the first in the class folder that is not one and the same in all.

    COVID-19 Radiography, for one, has its pictures in CLASS/images.
    """
    level = 1
    while True:
        inside = [path for path in paths if len(path) > level + 1]
        if len({path[level] for path in inside}) != 1 or {path[0] for path in inside} != set(classes):
            return level
        level += 1


def _completed(root: Path, table: Path, rows: Sequence[Labelled]) -> list[Labelled]:
    """The rows of a table with PatientID of DICOM and the split of folders where the table tells none.

    Raises:
        UserError: the table tells what some pictures belong to and not what others do.
    """
    told = any(row.patient or row.source for row in rows)
    if not any(row.split for row in rows):
        splits = [split for split, _ in split_folders([row.path for row in rows])]
        rows = [row._replace(split=split) for row, split in zip(rows, splits, strict=True)]
    rows = [row if row.patient else row._replace(patient=_patient_id(root, row.path)) for row in rows]
    alone = [row.path for row in rows if not row.patient and not row.source]
    if told and alone:
        raise UserError(
            f"{table}: expected a patient or a group in each of {counted(len(rows), 'row')}, found none in "
            f"{len(alone)}, first that of {bounded(alone[0], 100)}: fill them in, by a name of its own for a picture "
            "on its own"
        )
    return list(rows)


def _patient_id(root: Path, path: str) -> str:
    return "" if PurePosixPath(path).suffix.lower() in SUFFIXES + TIFF_SUFFIXES else patient_id(root / path)


def _without(path: str, hidden: Mapping[str, str]) -> str:
    """A path in which names are replaced by their hashes, in small and capital letters.

    A name of three characters or more is replaced wherever it stands, a shorter one, and a number with other zeros
    before it, as a word of its own.
    """
    names = sorted(filter(None, hidden), key=len, reverse=True)  # John Smith before Smith
    patterns = {hidden[name]: _pattern(name) for name in names}
    if not patterns:
        return path
    hashes = list(patterns)
    either = "|".join(f"({pattern})" for pattern in patterns.values())  # at once, so that no hash is searched
    return re.sub(either, lambda found: hashes[(found.lastindex or 1) - 1], path, flags=re.IGNORECASE)


def _pattern(name: str) -> str:
    """Where a private name stands in a path; without groups."""
    word = rf"0*{int(name)}" if name.isdecimal() else re.escape(name)
    alone = rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])"
    return rf"{re.escape(name)}|{alone}" if len(name) >= _LONG else alone


def _warn_left_out(count: int, reason: str) -> None:
    if count:
        verb = plural(count, "is", "are")
        _LOGGER.warning("%s %s and %s left out", counted(count, "picture"), reason, verb)
