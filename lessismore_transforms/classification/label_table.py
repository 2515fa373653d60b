"""A CSV file of labels: a row for each picture, with its label and, where they are known, patient, group and split.

Every mistake is found before a picture is read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.label_file import (
    FILE_COLUMNS,
    GROUP_COLUMNS,
    PATIENT_COLUMNS,
    SPLIT_COLUMN,
    check_rows,
    find_label_column,
    first_of,
    named_column,
    read_rows,
)
from lessismore_transforms.wording import bounded, counted, plural

SPLIT_NAMES = {  # of folders and of the column, in small letters
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


class Labelled(NamedTuple):
    """A picture as its data set names it; what may name a person is private.

    Attributes:
        path: below the data set's folder.
        label: position in the classes.
        patient: private; empty where it is not known.
        source: what it belongs together with where no patient is known; private too, as it may be a case's number.
        split: one of `examples.SPLITS`; empty where none is told.
        shown: the part of the path that tells the patient; empty where that is the patient's name.
        folder: another private name of the patient, as that of a folder may be.
    """

    path: str
    label: int
    patient: str = ""
    source: str = ""
    split: str = ""
    shown: str = ""
    folder: str = ""


def find_table(root: Path, labels: str | Path | None) -> Path | None:
    """The CSV file of labels: the one that is named, in `root` or anywhere, else the only one in `root`, else None.

    Raises:
        UserError: the named one is not there, or there are several.
    """
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


def read_table(
    table: Path, paths: Sequence[str], *, label_column: str | None = None, group_column: str | None = None
) -> tuple[list[Labelled], tuple[str, ...]]:
    """The pictures that a CSV file names, in the order of `paths`, and the classes, numbers sorted as numbers.

    Args:
        table: the file.
        paths: of all pictures, below the folder that the names in the table are relative to.
        label_column: of the labels; None for `label`, or the only column that can be meant.
        group_column: of what belongs together; None for the first of `GROUP_COLUMNS` that exists.

    Raises:
        UserError: a column is missing, or a value is missing, doubled, or makes no sense.
    """
    lines, names = read_rows(table)
    groups = named_column(table, names, group_column, "group") or first_of(GROUP_COLUMNS, names)
    patients = first_of((name for name in PATIENT_COLUMNS if name != groups), names)
    files = first_of((name for name in FILE_COLUMNS if name != groups), names)
    if not files:
        raise UserError(
            f"{table}: expected a column that names the picture, one of {', '.join(FILE_COLUMNS)}, found "
            f"{', '.join(names)}: rename one"
        )
    column = find_label_column(table, names, label_column, setting="label_column", groups=groups)
    check_rows(table, lines, files, column)
    rows = {name: [line[name] for line in lines] for name in names}
    values, labels = _labels(table, column, rows[column])
    found = _find_files(table, rows[files], paths)
    for name in filter(None, (patients, groups)):
        if not any(rows[name]):
            raise UserError(f"{table}: expected values in the column {name}, found none: fill it in or take it away")
    nothing = [""] * len(found)
    who, what = (rows[name] if name else nothing for name in (patients, groups))
    columns = (found, labels, who, what, _splits(table, rows))
    by_path = {each[0]: Labelled(*each) for each in zip(*columns, strict=True)}
    classes = (f"no {column}", column) if values == ["0", "1"] and column != "label" else tuple(values)
    return [by_path[path] for path in paths if path in by_path], classes


def check_classes(where: Path, names: Iterable[str]) -> None:
    """Refuse names of classes that differ in capital letters only, which is a slip.

    Raises:
        UserError: there are such names.
    """
    seen: dict[str, str] = {}
    for name in names:
        if (first := seen.setdefault(name.casefold(), name)) != name:
            raise UserError(f"{where}: expected each class by one name, found {first} and {name}: write one of them")


def check_names(where: Path, what: str, names: Iterable[str]) -> None:
    """Refuse names of patients or groups that differ in capital letters or leading zeros only, as 7 and 007 do.

    Raises:
        UserError: there are such names.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = _LEADING_ZEROS.sub("", name.casefold())
        if (first := seen.setdefault(key, name)) != name:
            raise UserError(
                f"{where}: expected each {what} by one name, found {bounded(first, 100)} and {bounded(name, 100)}: "
                "write one of them, or name them so that capital letters and leading zeros do not matter"
            )


def _splits(table: Path, rows: Mapping[str, Sequence[str]]) -> list[str]:
    """The split of each row; empty where there is no such column."""
    if SPLIT_COLUMN not in rows:
        return [""] * len(next(iter(rows.values())))
    for row, text in enumerate(rows[SPLIT_COLUMN], start=1):
        if text.lower() not in SPLIT_NAMES:
            raise UserError(
                f"{table}, row {row}: expected train, val or test in the column {SPLIT_COLUMN}, found "
                f"{bounded(text, 100)!r}: write one of them, or take the column away"
            )
    return [SPLIT_NAMES[text.lower()] for text in rows[SPLIT_COLUMN]]


def _labels(table: Path, column: str, cells: Sequence[str]) -> tuple[list[str], list[int]]:
    """The names of the classes, sorted, and the position of each row's in them."""
    numbers = [bool(NUMBER.fullmatch(cell)) for cell in cells]
    for row, cell in enumerate(cells, start=1):
        if numbers[row - 1] != numbers[0]:
            kinds = ("a number", "a name") if numbers[0] else ("a name", "a number")
            raise UserError(
                f"{table}, row {row}: expected {kinds[0]} in {column}, as {bounded(cells[0], 100)} in row 1 is, found "
                f"{kinds[1]}, {bounded(cell, 100)}: write all labels as numbers or all as names"
            )
        if numbers[row - 1] and not float(cell).is_integer():
            raise UserError(
                f"{table}, row {row}: expected a whole number in {column}, found {cell}: number the classes"
            )
    names = [str(int(float(cell))) if number else cell for cell, number in zip(cells, numbers, strict=True)]
    values = sorted(set(names), key=lambda name: (int(name), name) if numbers[0] else (0, name))
    if len(values) < 2:
        raise UserError(f"{table}: expected rows of two classes or more, found {values[0]} in {column}")
    check_classes(table, values)
    return values, [values.index(name) for name in names]


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
