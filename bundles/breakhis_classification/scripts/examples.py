"""BreaKHis (Spanhol et al. 2016, doi 10.1109/TBME.2015.2496264): breast histology, benign and malignant, in colour.

A name tells all: `SOB_M_DC-14-22549AB-400-014.png` is malignant (M), of the type DC, of the slide 22549 of 2014, which
stands for the patient, in its parts A and B, magnified 400 times, number 14. Folders train/ and test/, as of
BreaKHis400X, tell an official split; other folders tell nothing.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath

from lessismore_transforms.classification.examples import Listing
from lessismore_transforms.classification.label_table import Labelled
from lessismore_transforms.classification.labels import listing_of, split_folders
from lessismore_transforms.classification.protocol import divided
from lessismore_transforms.errors import UserError
from lessismore_transforms.volumes.pictures import list_pictures
from lessismore_transforms.wording import counted, plural

CLASSES = ("benign", "malignant")
MAGNIFICATIONS = ("40", "100", "200", "400", "all")

_NAME = re.compile(
    r"SOB_(?P<label>[BM])_[A-Z]+-(?P<patient>\d+-\d+)(?P<part>[A-Z]*)-(?P<magnification>40|100|200|400)-\d+\.\w+"
)
_LOGGER = logging.getLogger("lessismore_transforms")


def listing(
    dataset_dir: str | Path,
    magnification: int | str | None = None,
    protocol: str = "folds",
    fold: int = 0,
    folds: int = 5,
    repeat: int = 0,
    validation: float = 0.1,
    split_seed: int = 0,
    grouped: bool = True,
) -> Listing:
    """The pictures of a magnification in order of their paths, in splits.

    Args:
        dataset_dir: the folder that holds the pictures, at any depth.
        magnification: 40, 100, 200 or 400; None, or `all`, for all of them.
        protocol: `official` for folders train and test, `folds`, or `auto`, see `divided`.
        fold: number of the fold that is test, from 0.
        folds: number of folds.
        repeat: which partition into folds `split_seed` makes; an official split has none but 0.
        validation: the share of val in the pictures that are not test.
        split_seed: seed of folds and val.
        grouped: whether pictures of a patient stay together.

    Raises:
        UserError: there are no such pictures, a folder contradicts a name, or the protocol does not fit.
    """
    wanted = "all" if magnification is None else str(magnification)
    if wanted not in MAGNIFICATIONS:
        raise UserError(f"expected a magnification of {', '.join(MAGNIFICATIONS)}, found {magnification!r}")
    root = Path(dataset_dir)
    rows, others = [], 0
    paths = list_pictures(root, with_tiff=True)
    for path, (split, parts) in zip(paths, split_folders(paths), strict=True):
        found = _NAME.fullmatch(PurePosixPath(path).name)
        others += found is None
        if found and wanted in ("all", found["magnification"]):
            rows.append(_row(path, found, split, parts))
    if not rows:
        times = "" if wanted == "all" else f", magnified {wanted} times,"
        raise UserError(
            f"expected pictures such as SOB_M_DC-14-22549AB-400-014.png{times} below {root}, found none among "
            f"{counted(len(paths), 'picture')}: name another folder or --magnification"
        )
    if others:
        verb = plural(others, "is", "are")
        _LOGGER.warning("%s %s not named as in BreaKHis and %s left out", counted(others, "picture"), verb, verb)
    own = listing_of(root, rows, CLASSES, task="BreakHis", window=None)
    return divided(
        own,
        protocol=protocol,
        fold=fold,
        folds=folds,
        repeat=repeat,
        validation=validation,
        seed=split_seed,
        grouped=grouped,
    )


def _row(path: str, found: re.Match[str], split: str, parts: tuple[str, ...]) -> Labelled:
    label = "BM".index(found["label"])
    if CLASSES[1 - label] in [part.lower() for part in parts]:
        raise UserError(f"expected a picture of {CLASSES[label]}, as its name says, found {path}: move or rename it")
    return Labelled(path, label, found["patient"], split=split, shown=found["patient"])
