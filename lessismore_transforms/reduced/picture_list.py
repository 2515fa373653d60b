"""Which pictures of a folder to read: all of them, or those that a list or one split of a table names.

A list has one path per line. A table is a CSV file with a column `path` and, optionally, `split`, `group` and
`patient` or `patient_id`. Paths are relative to the folder and never lead out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lessismore_transforms.errors import ManifestError, UserError, reading
from lessismore_transforms.reduced.label_file import PATIENT_COLUMNS, SPLIT_COLUMN, Row, first_of, read_rows
from lessismore_transforms.volumes.pictures import list_pictures
from lessismore_transforms.wording import counted


@dataclass(frozen=True)
class PictureList:
    """The pictures that were named, in the order in which they were.

    Args:
        paths: relative to the folder, posix.
        groups: what each belongs together with, such as its patient; empty where that is not told.
        patients: the patient of each; empty where that is not told. Private: write hashes only.
        file: the list or the table; None for the whole folder.
        split: which of the table's splits; None for all rows.
    """

    paths: tuple[str, ...]
    groups: tuple[str, ...]
    patients: tuple[str, ...]
    file: Path | None = None
    split: str | None = None


def list_split(folder: Path, split: str | Path | None = None) -> PictureList:
    """The pictures below a folder that a split names.

    Args:
        folder: that the paths are relative to.
        split: a text file with one path per line; or a CSV file with a column `path`, as `FILE.csv`, or where it has
            a column `split`, as `FILE.csv:NAME` for the rows of one; None for all pictures below the folder, sorted.
            The file is looked for in the working directory, then in the folder.

    Raises:
        ManifestError: the folder holds no pictures.
        UserError: the split is no list of files in the folder, names one twice, or does not say which rows count.
    """
    if split is None:
        paths = list_pictures(folder, with_dicom=True, with_tiff=True)
        if not paths:
            raise ManifestError(
                f"expected the output folder of a finished `reduce`, or PNG, JPEG, TIFF or DICOM files in {folder}, "
                "found neither: name another folder"
            )
        nothing = ("",) * len(paths)
        found = PictureList(tuple(paths), nothing, nothing)
    else:
        file, name = find_table(folder, str(split))
        found = _from_table(file, name) if file.suffix.lower() == ".csv" else _from_lines(file, name)
    _check(folder, found)
    return found


def find_table(
    folder: Path, text: str, *, what: str = "a list of pictures, as FILE.txt, FILE.csv or FILE.csv:SPLIT"
) -> tuple[Path, str | None]:
    """The file that a text names, and the split behind its last colon where the whole text names none.

    Raises:
        UserError: there is no such file in the working directory or the folder.
    """
    before, colon, name = text.rpartition(":")
    for path, split in [(text, None), *([(before, name)] if colon and before else [])]:
        for place in (Path(path), folder / path):
            if place.is_file():
                return place, split
    raise UserError(
        f"expected {what}, found no file {text}, neither in the working directory nor in {folder}: check the name"
    )


def _from_lines(file: Path, split: str | None) -> PictureList:
    if split is not None:
        raise UserError(f"expected a CSV file with a column split for {split!r}, found {file}: name the list alone")
    with reading(file):
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    paths = tuple(_posix(line.strip()) for line in lines if line.strip())
    if not paths:
        raise UserError(f"{file} is empty: expected one path of a picture per line")
    return PictureList(paths, ("",) * len(paths), ("",) * len(paths), file)


def _from_table(file: Path, split: str | None) -> PictureList:
    rows, columns = read_rows(file)
    if "path" not in columns:
        raise UserError(f"{file}: expected a column path, found {', '.join(columns)}: name the pictures in one")
    rows = rows_of_split(file, rows, columns, split)
    patients = first_of(PATIENT_COLUMNS, columns)
    groups = first_of(("group", *PATIENT_COLUMNS), columns)
    return PictureList(
        tuple(_posix(row["path"]) for row in rows),
        tuple(row[groups] if groups else "" for row in rows),
        tuple(row[patients] if patients else "" for row in rows),
        file,
        split,
    )


def rows_of_split(file: Path, rows: list[Row], columns: Sequence[str], split: str | None) -> list[Row]:
    """The rows of a split; all of a table without splits.

    Of one with splits nothing is read without a name, so that a test part never is by mistake.

    Raises:
        UserError: no split is named, or none of that name is there.
    """
    if SPLIT_COLUMN not in columns:
        if split is not None:
            raise UserError(f"{file}: expected a column split for {split!r}, found {', '.join(columns)}: add one")
        return rows
    chosen = [row for row in rows if row[SPLIT_COLUMN] == split]
    if split is None or not chosen:
        found = ", ".join(sorted({row[SPLIT_COLUMN] or "(empty)" for row in rows}))
        wrong = "none was named" if split is None else f"found no {split!r}"
        first = sorted({row[SPLIT_COLUMN] for row in rows})[-1]
        raise UserError(f"{file}: expected one of the splits {found}, {wrong}: give {file}:{first}, say")
    return chosen


def _posix(path: str) -> str:
    return PurePosixPath(path).as_posix() if path else ""


def _check(folder: Path, found: PictureList) -> None:
    """Refuse what is no file in the folder, whichever way its path takes, and what is named twice."""
    of = f" of {found.file}" if found.file else ""
    root, lacking = folder.resolve(), []
    seen: set[str] = set()
    for path in found.paths:
        pure = PurePosixPath(path)
        if not path or pure.is_absolute() or ".." in pure.parts:
            raise UserError(
                f"expected paths{of} relative to {folder} and in it, found {path!r}: name files below this folder"
            )
        if not path.isprintable():  # no table and no identity could hold it, or none would be told apart
            raise UserError(f"expected names of printable characters in {folder}, found {path!r}{of}: rename the file")
        if path in seen:
            raise UserError(f"expected each picture once, found {path}{of} twice: take one of them away")
        seen.add(path)
        place = folder / path
        if not place.is_file():
            lacking.append(path)
        elif not place.resolve().is_relative_to(root):
            raise UserError(f"expected files in {folder}, found {path}{of}, a link that leads out of it: copy the file")
    if lacking:
        raise UserError(
            f"{len(lacking):,} of {counted(len(found.paths), 'picture')}{of} {'is' if len(lacking) == 1 else 'are'} "
            f"missing in {folder}, first {lacking[0]}: paths are relative to this folder"
        )
