"""The tables and records of an output folder as files, and the names and numbers that stand in their cells."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.errors import ManifestError, first_line, reading
from lessismore_transforms.volumes import Crc32
from lessismore_transforms.wording import bounded

if TYPE_CHECKING:
    import pandas as pd

_CONTROL = re.compile(r"[\x00-\x1f\ud800-\udfff]")


def slice_id(volume: str, index: int) -> str:
    """Name of a slice that does not depend on paths outside the data set or on the patient key."""
    return f"{volume}_{index:04d}"


def parse_slice_id(name: str) -> tuple[str, int]:
    """Volume and index of a slice from its name."""
    volume, _, index = name.rpartition("_")
    return volume, int(index)


def format_number(value: float) -> str:
    """A distance as the tables hold it: whole numbers without a point, nothing for nan."""
    if np.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table of texts with the expected columns.

    Raises:
        ManifestError: it cannot be read, is no table or has other columns.
    """
    import pandas as pd

    try:
        with reading(path, ManifestError):
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ManifestError(f"{path} is no table ({first_line(error)}): undo the edit or reduce again") from error
    if tuple(table.columns) != tuple(columns):
        found = bounded(", ".join(table.columns))
        raise ManifestError(f"{path}: expected the columns {', '.join(columns)}, found {found}")
    return table


def parse_column(texts: list[str], parse: Callable[[str], Any], path: Path, column: str) -> list[Any]:
    """The values of a column.

    Raises:
        ManifestError: a text is none; its line is named.
    """
    values = []
    for line, text in enumerate(texts, start=2):
        try:
            values.append(parse(text))
        except ValueError:
            raise ManifestError(
                f"{path}, line {line}: {text!r} is no {column}: undo the edit or reduce again"
            ) from None
    return values


def parse_whole(text: str) -> int:
    """A number of rows, pixels or slices."""
    if not -(2**31) < (value := int(text)) < 2**31:
        raise ValueError
    return value


def parse_finite(text: str) -> float:
    """A position or a distance."""
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def _in_one_line(cells: Sequence[str]) -> Sequence[str]:
    r"""Cells of a table with `\x..` for each control character, so that every reader finds the same rows."""
    if "".join(cells).isprintable():
        return cells
    return [text if text.isprintable() else _CONTROL.sub(lambda found: repr(found[0])[1:-1], text) for text in cells]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table of texts."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(map(_in_one_line, rows))


def read_record(path: Path) -> dict[str, Any]:
    """What a JSON file of an output folder holds.

    Raises:
        ManifestError: it cannot be read or is no JSON object.
    """
    try:
        with reading(path, ManifestError):
            content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, or brackets in brackets
        raise ManifestError(f"{path} is no JSON ({first_line(error)}): it was damaged, reduce again") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: expected an object, found {type(content).__name__}: reduce again")
    return content


def file_crc32(path: Path) -> str:
    """CRC32 of a file's bytes; empty where it cannot be read."""
    crc = Crc32()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                crc.update(block)
    except OSError:
        return ""
    return str(crc)


def open_array(path: Path, advice: str = "reduce again into a new folder") -> NDArray[Any]:
    """An array of an output folder, memory-mapped.

    Raises:
        ManifestError: it is missing or damaged, and what to do then.
    """
    with reading(path, ManifestError):
        try:
            array: NDArray[Any] = open_memmap(path, mode="r")  # np.load leaves damaged archives open
        except OSError:
            raise
        except Exception as error:  # many kinds, with words that help nobody here
            raise ManifestError(f"{path} was damaged, it is no array: {advice}") from error
    return array
