"""A CSV file that a user wrote: a row for each picture, columns by their names, in small or capital letters."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.wording import counted

FILE_COLUMNS = ("path", "file", "filename", "image", "image_id", "id")
PATIENT_COLUMNS = ("patient", "patient_id")
GROUP_COLUMNS = ("group", "source")
SPLIT_COLUMN = "split"
_END = "end"  # a line behind the last one, which is a row unless a quotation mark is open
_NO_LABELS = (*FILE_COLUMNS, "slice_id", "index", "volume", *PATIENT_COLUMNS, *GROUP_COLUMNS, SPLIT_COLUMN)


class Row(dict[str, str]):
    """The cells of a row by their columns; `number` is its place in the file, 1 for the first below the header."""

    def __init__(self, number: int, cells: Iterable[tuple[str, str]]) -> None:
        super().__init__(cells)
        self.number = number


def read_rows(table: Path) -> tuple[list[Row], list[str]]:
    """The rows of a CSV file, and its columns in small letters; blanks around names and values are removed.

    Columns without a name are left out: they are row numbers that pandas wrote, or come of commas at the ends of lines.
    So are lines of nothing or of blanks.

    Raises:
        UserError: it cannot be read, has no rows or ragged ones, an open quotation mark, or two columns of one name.
    """
    with reading(table):
        try:
            with table.open(encoding="utf-8-sig", newline="") as file:
                *found, last = csv.reader(chain(file, [_END]), skipinitialspace=True)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"{table} is no CSV file in UTF-8: name another, or save the table with commas, in UTF-8"
            ) from error
    stripped = ([cell.strip() for cell in line] for line in found)
    lines = [line for line in stripped if line not in ([], [""])]
    if last != [_END]:  # all rows from there on would be the rest of a value
        where = f"row {len(lines)}" if lines else "header"
        raise UserError(f"{table}, {where}: expected a quotation mark behind the value, found none: add it")
    if len(lines) < 2:
        raise UserError(f"{table} has no rows: expected a header and a row per picture")
    names = [name.lower() for name in lines[0]]
    columns = list(filter(None, names))
    if len({*columns}) < len(columns):
        raise UserError(f"{table}: expected each column once, found {', '.join(columns)}: rename the others")
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(names):
            raise UserError(
                f"{table}, row {number}: expected {counted(len(names), 'value')}, found {len(line)}: write a comma "
                "between two values and nowhere else, or quotation marks around a value that holds one"
            )
    cells = ([(name, cell) for name, cell in zip(names, line, strict=True) if name] for line in lines[1:])
    return [Row(number, row) for number, row in enumerate(cells, start=1)], columns


def first_of(names: Iterable[str], columns: Sequence[str]) -> str:
    """The first of these names that is a column; empty where none is."""
    return next((name for name in names if name in columns), "")


def named_column(table: Path, columns: Sequence[str], named: str | None, kind: str) -> str:
    """The column that a user names; empty where none is named.

    Raises:
        UserError: there is no such column.
    """
    if named is None:
        return ""
    if (name := named.strip().lower()) not in columns:
        raise UserError(
            f"{table}: expected a column {named}, found {', '.join(columns)}: check the name of the {kind} column"
        )
    return name


def find_label_column(table: Path, columns: Sequence[str], named: str | None, *, setting: str, groups: str = "") -> str:
    """The column of labels: the one that is named, else `label`, else the only one that can be meant.

    Args:
        table: the file.
        columns: its columns.
        named: by the user.
        setting: by which the user names it.
        groups: a column that is none of labels.

    Raises:
        UserError: there is no such column, or there are several.
    """
    if name := named_column(table, columns, named, "label"):
        return name
    others = [name for name in columns if name not in (*_NO_LABELS, groups)]
    if "label" in others:
        return "label"
    if len(others) != 1:
        raise UserError(
            f"{table}: expected one column of labels, found {', '.join(others) or 'none'}: name it with --{setting}"
        )
    return others[0]


def check_rows(table: Path, rows: Iterable[Row], key: str, *filled: str) -> None:
    """Refuse rows that name one picture twice, or lack a value.

    Args:
        table: the file.
        rows: of it, all or some.
        key: the column that names the picture.
        filled: other columns that have a value in each row.

    Raises:
        UserError: there are such rows.
    """
    numbers: dict[str, int] = {}
    for row in rows:
        for column in (key, *filled):
            if not row[column]:
                raise UserError(f"{table}, row {row.number}: {column} is empty: fill it in or take the row away")
        if (first := numbers.setdefault(row[key], row.number)) != row.number:
            raise UserError(f"{table}, row {row.number}: {row[key]} is in row {first} already: take one of them away")
