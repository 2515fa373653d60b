"""The predictions of a classifier: predictions.csv, from which every metric, interval and test is computed.

A row per picture: `image_id, patient, source, split, label, p_0, p_1, ...`. The probabilities are float32, and nine
digits keep them exactly, so that their order and their ties are those of the network.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.wording import bounded, counted

if TYPE_CHECKING:
    from _csv import Reader

PREDICTIONS = "predictions.csv"
_COLUMNS = ("image_id", "patient", "source", "split", "label")
_SUM_TOLERANCE = 1e-4  # of a row's probabilities


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions for N pictures of C classes, at least one picture and two classes.

    Args:
        image_ids: N different names.
        patients: N keys, "" where the patient is not known.
        splits: N names of splits.
        labels: (N,) int64, positions of the true classes.
        probabilities: (N, C) float64, rows that sum to 1.
        sources: N common origins, such as papers, "" where one is not known; empty where none is.

    Raises:
        UserError: the parts do not fit each other.
    """

    image_ids: list[str]
    patients: list[str]
    splits: list[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    sources: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.sources:
            object.__setattr__(self, "sources", [""] * len(self.image_ids))
        lengths = [len(column) for column in (self.image_ids, self.patients, self.sources, self.splits, self.labels)]
        if self.probabilities.ndim != 2 or {*lengths, len(self.probabilities)} != {len(self.image_ids)}:
            raise UserError(
                "expected an image_id, a patient, a source, a split, a label and a row of probabilities per picture, "
                f"found {lengths} and {self.probabilities.shape}"
            )
        if self.probabilities.shape[1] < 2 or not self.image_ids:
            raise UserError(f"expected pictures and two classes or more, found {self.probabilities.shape}")
        for row, problem in _problems(self.image_ids, self.labels, self.probabilities):
            raise UserError(f"prediction {row} ({self.image_ids[row]!r}): {problem}")

    def of(self, split: str) -> Predictions:
        """The predictions for one split, in the same order.

        Raises:
            UserError: the split has no picture.
        """
        rows = [row for row, name in enumerate(self.splits) if name == split]
        if not rows:
            raise UserError(f"expected predictions for the split {split!r}, found {', '.join(sorted({*self.splits}))}")
        return self.rows(rows)

    def rows(self, rows: Sequence[int]) -> Predictions:
        """The predictions in these rows, in their order."""
        ids, patients, splits, sources = (
            [column[row] for row in rows] for column in (self.image_ids, self.patients, self.splits, self.sources)
        )
        return Predictions(ids, patients, splits, self.labels[rows], self.probabilities[rows], sources)

    def write(self, path: Path) -> None:
        """Write the table, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"p_{number}" for number in range(self.probabilities.shape[1]))])
        names = zip(self.image_ids, self.patients, self.sources, self.splits, strict=True)
        for name, label, row in zip(names, self.labels.tolist(), self.probabilities.tolist(), strict=True):
            writer.writerow([*name, label, *(f"{value:.9g}" for value in row)])
        with atomic_write(path, "wb") as file:  # bytes: a file name that is not UTF-8 comes back as it was
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """The checked table in a file.

        Raises:
            UserError: the file is missing or damaged; the message names the file and the line.
        """
        if not path.is_file():
            raise UserError(f"{path} is missing: expected the {PREDICTIONS} of a finished evaluation")
        # -sig: saved by Excel
        with reading(path), path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            header = next(_table(path, reader), [])
            classes = len(header) - len(_COLUMNS)
            expected = [*_COLUMNS, *(f"p_{number}" for number in range(classes))]
            if header != expected or classes < 2:
                found = ", ".join(header) or "none"
                raise _damaged(path, 1, f"expected the columns {', '.join(_COLUMNS)}, p_0, p_1, ..., found {found}")
            rows: list[list[str]] = []
            lines: list[int] = []
            for row in _table(path, reader):
                lines.append(reader.line_num)
                if len(row) != len(header):
                    raise _damaged(path, lines[-1], f"expected {counted(len(header), 'value')}, found {len(row)}")
                rows.append(row)
        if not rows:
            raise _damaged(path, 2, "expected a row per picture, found none")
        numbers = [_numbers(path, line, row[len(_COLUMNS) - 1 :]) for line, row in zip(lines, rows, strict=True)]
        labels = np.asarray([label for label, _ in numbers], dtype=np.int64)
        probabilities = np.asarray([values for _, values in numbers], dtype=np.float64)
        image_ids, patients, sources, splits = ([row[column] for row in rows] for column in range(4))
        for place, problem in _problems(image_ids, labels, probabilities):
            raise _damaged(path, lines[place], problem)
        return cls(image_ids, patients, splits, labels, probabilities, sources)


def _table(path: Path, reader: Reader) -> Iterator[list[str]]:
    """The rows of a table, which may be any file."""
    try:
        yield from reader
    except csv.Error as error:
        raise _damaged(path, reader.line_num, f"expected a table, found none ({error})") from error


def _numbers(path: Path, line: int, texts: list[str]) -> tuple[int, list[float]]:
    try:
        return int(np.int64(int(texts[0]))), [float(text) for text in texts[1:]]
    except (ValueError, OverflowError):
        raise _damaged(path, line, f"expected a label and probabilities, found {', '.join(texts)}") from None


def _problems(
    image_ids: list[str], labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> Iterator[tuple[int, str]]:
    """The impossible rows, each with its error."""
    classes = probabilities.shape[1]
    sums = probabilities.sum(axis=1)
    for row in np.flatnonzero((labels < 0) | (labels >= classes)).tolist():
        yield row, f"expected a label from 0 to {classes - 1}, found {labels[row]}"
    for row in np.flatnonzero(~(np.abs(sums - 1) <= _SUM_TOLERANCE) | (probabilities < 0).any(axis=1)).tolist():
        yield row, f"expected probabilities that sum to 1, found {', '.join(f'{p:g}' for p in probabilities[row])}"
    seen: set[str] = set()
    for row, name in enumerate(image_ids):
        if name in seen:
            yield row, f"expected each image_id once, found {name!r} again"
        seen.add(name)


def _damaged(path: Path, line: int, problem: str) -> UserError:
    return UserError(f"{path}, line {line}: {bounded(problem)}: undo the edit or evaluate again")
