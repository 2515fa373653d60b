"""Head CT slices with and without hemorrhage, as DICOM, PNG or JPEG, in patient-grouped folds made here.

Labels come from one of two layouts:

- folders: a sub-folder for each class, sorted by name (`a_without` is 0, `b_with` is 1). Such folders below train/ and
  test/ are merged, as the folds are made anew. A folder in a class folder is a patient.
- a CSV file: a row for each picture, with a column that names it (the first of `FILE_COLUMNS` that exists; a path, a
  name, or a number that equals the name up to leading zeros), one of labels, and optionally `patient` or `group`.

The patient is that of the CSV file, or PatientID of DICOM, else the folder in the class folder. It is written as a
keyed hash, as by `reduce`, also where it is part of the path that names the picture. Where no patient is known each
picture is a group of its own.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from lessismore_transforms.classification.examples import Example, Listing
from lessismore_transforms.classification.splits import split_fold
from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.reduction.intensity import Window
from lessismore_transforms.volumes.pictures import SUFFIXES, list_pictures, patient_id, read_image
from lessismore_transforms.wording import bounded, counted, plural

FILE_COLUMNS = ("path", "file", "filename", "image", "image_id", "id")
PATIENT_COLUMNS = ("patient", "group")
PARTS = ("train", "val", "test")  # folders that are no classes

_LOGGER = logging.getLogger("lessismore_transforms")


class _Labelled(NamedTuple):
    path: str
    label: int
    patient: str  # as the data set names it: private


def listing(
    dataset_dir: str | Path,
    labels: str | None = None,
    label_column: str | None = None,
    fold: int = 0,
    folds: int = 5,
    validation: float = 0.1,
    split_seed: int = 0,
    window: str | None = "brain",
) -> Listing:
    """The pictures in order of their paths; one fold is test, the rest is split into train and val.

    Args:
        dataset_dir: the folder that holds the pictures, at any depth.
        labels: a CSV file, in `dataset_dir` or anywhere; None for the only one in `dataset_dir`, else class folders.
        label_column: its column of labels; None for `label`, or the only column that can be meant.
        fold: number of the fold that is test, from 0.
        folds: number of folds.
        validation: the share of val in the pictures that are not test.
        split_seed: seed of folds and val.
        window: window of DICOM in HU: a name or level/width; None for min-max. PNG and JPEG stay as they are.

    Raises:
        UserError: there are no pictures, labels do not fit them, or a class has fewer patients than folds.
    """
    root = Path(dataset_dir)
    if window is not None:
        Window.parse(window)
    paths = list_pictures(root, with_dicom=True)
    if not paths:
        raise UserError(f"expected PNG, JPEG or DICOM files below {root}, found none: name another folder")
    table = _table(root, labels)
    if table is None:
        rows, classes = _from_folders(root, paths)
    else:
        rows, classes = _from_table(root, table, label_column, paths)
    named = _hashed([row.patient for row in rows])
    groups = [patient or row.path for patient, row in zip(named, rows, strict=True)]
    splits = split_fold(
        [classes[row.label] for row in rows], groups, fold=fold, folds=folds, validation=validation, seed=split_seed
    )
    public = [_public(row, patient) for row, patient in zip(rows, named, strict=True)]
    place = {name: root / row.path for name, row in zip(public, rows, strict=True)}
    examples = tuple(
        Example(name, row.label, split, patient)
        for name, row, split, patient in zip(public, rows, splits, named, strict=True)
    )
    return Listing(
        "Brain",
        classes,
        examples,
        lambda example, channels: read_image(place[example.image_id], channels, window=window),
    )


def _table(root: Path, labels: str | None) -> Path | None:
    if labels is not None:
        places = [place for place in (root / labels, Path(labels)) if place.is_file()]
        if not places:
            raise UserError(f"expected the CSV file of labels at {root / labels}, found nothing: check the path")
        return places[0]
    tables = sorted(path for path in root.glob("*.csv") if not path.name.startswith("."))
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"expected one CSV file of labels in {root}, found {names}: name one with --labels")
    return tables[0] if tables else None


def _from_folders(root: Path, paths: Sequence[str]) -> tuple[list[_Labelled], tuple[str, ...]]:
    """The pictures in class folders, and the classes."""
    places = [PurePosixPath(path) for path in paths]
    nested = all(place.parts[0].lower() in PARTS for place in places)
    below = [place.parts[1:] if nested else place.parts for place in places]
    classes = tuple(sorted({parts[0] for parts in below if len(parts) > 1}))
    if len(classes) < 2:
        raise UserError(
            f"expected a folder of pictures for each class, or a CSV file of labels, in {root}, found "
            f"{', '.join(classes) or 'no such folder'}: sort the pictures or name a CSV file with --labels"
        )
    rows = [
        _Labelled(path, classes.index(parts[0]), _patient_id(root, path) or (parts[1] if len(parts) > 2 else ""))
        for path, parts in zip(paths, below, strict=True)
        if len(parts) > 1
    ]
    outside = len(paths) - len(rows)
    _warn_left_out(outside, f"{plural(outside, 'is', 'are')} in no class folder")
    return rows, classes


def _from_table(
    root: Path, table: Path, label_column: str | None, paths: Sequence[str]
) -> tuple[list[_Labelled], tuple[str, ...]]:
    """The pictures that a CSV file names, and the classes, sorted as numbers if they are numbers."""
    rows = _read_table(table)
    column = _label_column(table, list(rows), label_column)
    file_column = next((name for name in FILE_COLUMNS if name in rows), "")
    if not file_column:
        raise UserError(
            f"{table}: expected a column that names the picture, one of {', '.join(FILE_COLUMNS)}, found "
            f"{', '.join(rows)}: rename one"
        )
    patients = next((rows[name] for name in PATIENT_COLUMNS if name in rows), pd.Series([""] * len(rows)))
    values = sorted(set(rows[column]), key=lambda text: (0, int(text), "") if text.isdecimal() else (1, 0, text))
    if "" in values:
        line = rows[column].tolist().index("") + 1
        raise UserError(f"{table}, row {line}: {column} is empty: fill it in or take the row away")
    if len(values) < 2:
        raise UserError(
            f"{table}: expected rows of two classes or more, found {', '.join(values) or 'no row'} in {column}"
        )
    found = _find_files(table, rows[file_column].tolist(), paths)
    by_path = {
        path: _Labelled(path, values.index(label), patient or _patient_id(root, path))
        for path, label, patient in zip(found, rows[column], patients, strict=True)
    }
    unnamed = len(paths) - len(by_path)
    _warn_left_out(unnamed, f"{plural(unnamed, 'has', 'have')} no row in {table.name}")
    classes = (f"no {column}", column) if values == ["0", "1"] and column != "label" else tuple(values)
    return [by_path[path] for path in paths if path in by_path], classes


def _read_table(table: Path) -> pd.DataFrame:
    """All cells as text without blanks around, under column names in lower case."""
    options = {"header": None, "dtype": str, "keep_default_na": False, "skipinitialspace": True}
    try:
        cells = pd.read_csv(table, encoding="utf-8-sig", **options).fillna("")
    except (ValueError, OSError) as error:  # pandas' own are ValueErrors
        found = re.search(r"line \d+", str(error))
        where = f" ({found[0]})" if found else ""
        raise UserError(f"{table} cannot be read as a CSV file{where}: save it with commas, in UTF-8") from error
    cells = cells.apply(lambda column: column.str.strip())
    names = cells.iloc[0].str.lower()
    if not names.is_unique:
        raise UserError(f"{table}: expected each column once, found {', '.join(names)}: rename the others")
    return cells.iloc[1:].reset_index(drop=True).set_axis(names, axis=1)


def _label_column(table: Path, columns: Sequence[str], label_column: str | None) -> str:
    if label_column is not None and label_column.strip().lower() in columns:
        return label_column.strip().lower()
    others = [name for name in columns if name not in (*FILE_COLUMNS, *PATIENT_COLUMNS)]
    if label_column is not None:
        raise UserError(f"{table}: expected a column {label_column}, found {', '.join(columns)}: check --label_column")
    if "label" not in others and len(others) != 1:
        raise UserError(
            f"{table}: expected one column of labels, found {', '.join(others) or 'none'}: name it with --label_column"
        )
    return "label" if "label" in others else others[0]


def _find_files(table: Path, names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The path that each row names: by path, name, name without suffix, or number, as ids often lose leading zeros."""
    known, keys = set(paths), defaultdict[str, list[str]](list)
    for path in paths:
        place = PurePosixPath(path)
        number = str(int(place.stem)) if place.stem.isdecimal() else place.stem
        for key in {str(place.with_suffix("")), place.name, place.stem, number}:
            keys[key].append(path)
    found: dict[str, int] = {}
    missing = []
    for row, name in enumerate(names, start=1):
        text = PurePosixPath(name.replace("\\", "/")).as_posix()
        number = str(int(text)) if text.isdecimal() else text
        fitting = [text] if text in known else keys.get(text) or keys.get(number, [])
        if len(fitting) > 1:
            raise UserError(f"{table}, row {row}: {name} may be {fitting[0]} or {fitting[1]}: give the path")
        if not fitting:
            missing.append(name)
        elif (first := found.setdefault(fitting[0], row)) != row:
            raise UserError(f"{table}, row {row}: {name} is in row {first} already: take one of them away")
    if missing:
        share = f"{len(missing)} of {counted(len(names), 'row')} of {table}"
        raise UserError(
            f"{share} {plural(len(missing), 'has', 'have')} no picture, first {bounded(missing[0], 100)!r}: copy it "
            "there or take the row away"
        )
    return list(found)


def _patient_id(root: Path, path: str) -> str:
    return "" if PurePosixPath(path).suffix.lower() in SUFFIXES else patient_id(root / path)


def _hashed(patients: Sequence[str]) -> list[str]:
    key = load_key() if any(patients) else b""
    return [hash_patient(patient, key) if patient else "" for patient in patients]


def _public(row: _Labelled, hashed: str) -> str:
    """The path of a picture in which the name or number of the patient is replaced by its hash."""
    if not row.patient:
        return row.path
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(row.patient)}(?![A-Za-z0-9])", hashed, row.path)


def _warn_left_out(count: int, reason: str) -> None:
    if count:
        verb = plural(count, "is", "are")
        _LOGGER.warning("%s %s and %s left out", counted(count, "picture"), reason, verb)
