"""Tables of labels that an experiment tells by regular expressions for the paths of pictures."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.errors import UserError


def write_labels(table: Path, pictures: Path, labels: Mapping[str, str]) -> None:
    """Write the label of each picture whose path below a folder, with /, an expression is found in.

    Raises:
        UserError: a path fits several expressions, or an expression fits none.
    """
    rows: list[tuple[str, str]] = []
    for path in sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*") if path.is_file()):
        found = [label for label, pattern in labels.items() if re.search(pattern, path)]
        if len(found) > 1:
            raise UserError(f"expected one label for {path}, found {' and '.join(found)}: change their expressions")
        rows += [(path, label) for label in found]
    if missing := set(labels) - {label for _, label in rows}:
        raise UserError(f"expected pictures of each label in {pictures}, found none of {', '.join(sorted(missing))}")
    with writing(table):
        table.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(table) as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label"), *rows])
