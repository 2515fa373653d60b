"""Pneumonia in chest X-rays of children (Kermany et al. 2018, doi 10.1016/j.cell.2018.02.010), with the released test.

Folders `train`, `val` and `test`, in each of them NORMAL and PNEUMONIA. The released val has 16 pictures, so it counts
as training, as in SmallDataSSL, and a larger one is cut out again, here by patients.

A name such as `person1_bacteria_1.jpeg` tells a person, and `IM-0115-0001.jpeg` or `NORMAL2-IM-0343-0001.jpeg` a
healthy one. Numbers of persons start again in test and for bacteria and viruses, so a patient is a part of the data
(test or not), a person, and a kind.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from lessismore_transforms.classification.examples import Listing
from lessismore_transforms.classification.label_table import Labelled
from lessismore_transforms.classification.labels import listing_of, split_folders
from lessismore_transforms.classification.protocol import with_official
from lessismore_transforms.errors import UserError
from lessismore_transforms.volumes.pictures import list_pictures

CLASSES = ("NORMAL", "PNEUMONIA")

_NAMES = (  # by label
    re.compile(r"(?P<person>(NORMAL\d*-)?IM-\d+)(-\d+)*(?P<kind>)\.\w+"),
    re.compile(r"(?P<person>person\d+)_(?P<kind>bacteria|virus)_\d+\.\w+"),
)


def listing(dataset_dir: str | Path, validation: float = 0.1, split_seed: int = 0, grouped: bool = True) -> Listing:
    """The pictures in order of their paths; test is the released one, train and val are made of the rest.

    Args:
        dataset_dir: the folder that holds train, val (if there is one) and test, or holds the folder that does.
        validation: the share of val in the pictures that are not test.
        split_seed: seed of val.
        grouped: whether pictures of a patient stay together.

    Raises:
        UserError: a folder is missing, or a name tells no patient.
    """
    root = Path(dataset_dir)
    paths = list_pictures(root)
    rows = [
        _row(path, "test" if split == "test" else "train")
        for path, (split, _) in zip(paths, split_folders(paths), strict=True)
        if split and PurePosixPath(path).parent.name in CLASSES
    ]
    found = {(row.split, row.label) for row in rows}
    wanted = {(split, label): name for split in ("train", "test") for label, name in enumerate(CLASSES)}
    if lacking := [f"{place[0]}/{name}" for place, name in wanted.items() if place not in found]:
        raise UserError(
            f"expected pictures in train and test, each with {' and '.join(CLASSES)}, below {root}, found none in "
            f"{', '.join(lacking)}: unpack the archive there"
        )
    own = listing_of(root, rows, CLASSES, task="Pneumonia", window=None)
    return with_official(own, validation=validation, seed=split_seed, grouped=grouped)


def _row(path: str, split: str) -> Labelled:
    place = PurePosixPath(path)
    label = CLASSES.index(place.parent.name)
    found = _NAMES[label].fullmatch(place.name)
    if found is None:
        raise UserError(
            "expected names such as IM-0115-0001.jpeg in NORMAL and person1_bacteria_1.jpeg in PNEUMONIA, found "
            f"{path}: rename it as it was published, or take it away"
        )
    return Labelled(path, label, f"{split} {found['person']} {found['kind']}", split=split, shown=found["person"])
