"""A selection of the slices of a data set: `selections/<name>.csv`, a row per slice, and `<name>.json`, its target.

The record holds the CRC32 of the table, so that the target of one selection is not taken for that of another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import write_json, writing
from lessismore_transforms.errors import ManifestError, UserError, reading
from lessismore_transforms.reduced.table_files import (
    file_crc32,
    format_number,
    parse_column,
    parse_finite,
    read_record,
    read_table,
    write_table,
)
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target

if TYPE_CHECKING:
    import pandas as pd

SELECTION_COLUMNS = ("slice_id", "kept", "kept_by", "distance")


@dataclass(frozen=True)
class Selection:
    """The slices that a target keeps.

    Args:
        slices: a row per slice of the manifest, in its order: `slice_id`, `kept` (bool), `kept_by` (the slice_id
            that stands for a removed slice, else empty) and `distance` to it (nan where there is none).
        target: rule and threshold or fraction.
    """

    slices: pd.DataFrame
    target: Target

    @property
    def kept_ids(self) -> list[str]:
        """The kept slices, in the order of the manifest."""
        ids: list[str] = self.slices.loc[self.slices["kept"], "slice_id"].tolist()
        return ids

    def rows(self, *, removed: bool = False) -> NDArray[np.bool_]:
        """Which slices (n,) it keeps or, with `removed`, those as well that another slice stands for."""
        kept: NDArray[np.bool_] = self.slices["kept"].to_numpy(dtype=bool)
        return kept | (self.slices["kept_by"].to_numpy() != "") if removed else kept

    @classmethod
    def read(cls, output_dir: str | Path, name: str = "default") -> Selection:
        """The selection `name` in `output_dir`.

        Raises:
            ManifestError: there is none of that name, or it was damaged, or the table is not the one of the record.
        """
        try:
            return cls._read(output_dir, name)
        except ManifestError:  # a `select` at the same time replaces the table, then the record
            return cls._read(output_dir, name)

    @classmethod
    def _read(cls, output_dir: str | Path, name: str) -> Selection:
        folder = Path(output_dir) / "selections"
        check_name(name)
        table, record = folder / f"{name}.csv", folder / f"{name}.json"
        with reading(folder, ManifestError):
            there = table.is_file() and record.is_file()
        if not there:
            names = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
            raise ManifestError(f"no selection {name!r} in {folder} (there: {names}): make it with `select`")
        slices = read_table(table, SELECTION_COLUMNS)
        slices["kept"] = parse_column(slices["kept"].tolist(), _parse_kept, table, "kept")
        told = read_record(record)
        target = _target_in(told, record)
        measure = MEASURES[target.measure]

        def parse_distance(text: str) -> float:
            value = parse_finite(text) if text else math.nan
            if measure.whole and not (not text or measure.low <= value <= measure.high):
                raise ValueError
            return value

        slices["distance"] = parse_column(slices["distance"].tolist(), parse_distance, table, "distance")
        found = {"slices": len(slices), "kept": int(slices["kept"].sum()), "crc32": file_crc32(table)}
        _check_record(record, told, found)
        return cls(slices, target)

    @staticmethod
    def read_target(output_dir: str | Path, name: str) -> Target:
        """The target of the selection `name`.

        Raises:
            ManifestError: its record was damaged.
        """
        record = Path(output_dir) / "selections" / f"{check_name(name)}.json"
        return _target_in(read_record(record), record)

    def write(self, output_dir: str | Path, name: str) -> None:
        """Write the selection as `name`, over an older one of that name."""
        rows = zip(
            self.slices["slice_id"],
            ("1" if kept else "0" for kept in self.slices["kept"]),
            self.slices["kept_by"],
            map(format_number, self.slices["distance"]),
            strict=True,
        )
        write_selection(Path(output_dir), name, rows, self.target, int(self.slices["kept"].sum()), len(self.slices))


def write_selection(
    output_dir: Path, name: str, rows: Iterable[Sequence[str]], target: Target, kept: int, count: int
) -> None:
    """Write selections/NAME.csv from rows of texts in the order of `SELECTION_COLUMNS`, and selections/NAME.json."""
    folder = output_dir / "selections"
    with writing(folder):
        folder.mkdir(exist_ok=True)
    table = folder / f"{name}.csv"
    write_table(table, SELECTION_COLUMNS, rows)
    found = {"kept": kept, "slices": count, "crc32": file_crc32(table)}
    write_json(folder / f"{name}.json", {"name": name, **target.as_dict(), **found})


def check_name(name: str) -> str:
    """`name` where it can name a selection.

    Raises:
        UserError: it holds anything but letters, digits, `_`, `-` and `.`, or begins with a point.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise UserError(f"expected a selection name of letters, digits, '_', '-' and '.', found {name!r}")
    return name


def _target_in(told: dict[str, Any], record: Path) -> Target:
    known = {field.name for field in fields(Target)}
    try:
        return Target.of(**{key: value for key, value in told.items() if key in known})
    except (UserError, TypeError, ValueError) as error:
        raise ManifestError(f"{record} was damaged, it holds no target: make the selection again") from error


def _check_record(record: Path, told: dict[str, Any], found: dict[str, Any]) -> None:
    """Refuse a record that tells of another table; older ones hold no CRC32."""
    for name, value in found.items():
        if told.get(name, value) != value:
            raise ManifestError(
                f"expected {record.stem}.csv to be the table that {record} tells of, with {name} {told[name]}, found "
                f"{name} {value}, as an edit, a copy with other line ends or an interrupted `select` leaves it: undo "
                "the edit, copy the file byte by byte, or "
                f"{'reduce again' if record.stem == 'default' else 'make the selection again'}"
            )


def _parse_kept(text: str) -> bool:
    return bool(("0", "1").index(text))
