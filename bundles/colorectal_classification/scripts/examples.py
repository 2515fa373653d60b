"""Textures in colorectal histology (Kather et al. 2016, doi 10.1038/srep27988): 5,000 colour tiles of eight tissues.

A folder for each class, `01_TUMOR` to `08_EMPTY`. A name such as `10009_CRC-Prim-HE-03_009.tif_Row_301_Col_151.tif`
tells the slide, CRC-Prim-HE-03, of which there are ten and which stands for the patient, and the region of it, 009,
that neighbouring tiles were cut out of.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from lessismore_transforms.classification.examples import Listing
from lessismore_transforms.classification.label_table import Labelled
from lessismore_transforms.classification.labels import listing_of
from lessismore_transforms.classification.protocol import with_folds
from lessismore_transforms.errors import UserError
from lessismore_transforms.volumes.pictures import list_pictures

CLASSES = (
    "01_TUMOR", "02_STROMA", "03_COMPLEX", "04_LYMPHO", "05_DEBRIS", "06_MUCOSA", "07_ADIPOSE", "08_EMPTY",
)  # fmt: skip
UNITS = ("slide", "region")

_NAME = re.compile(r"[0-9A-F]+_(?P<region>(?P<slide>CRC-Prim-HE-\d+)\w*)\.\w+_Row_\d+_Col_\d+\.\w+")


def listing(
    dataset_dir: str | Path,
    unit: str = "slide",
    fold: int = 0,
    folds: int = 5,
    validation: float = 0.1,
    split_seed: int = 0,
    grouped: bool = True,
) -> Listing:
    """The tiles in order of their paths; one fold is test, the rest is split into train and val.

    Args:
        dataset_dir: the folder that holds the eight folders, at any depth.
        unit: what stays together: `slide` or `region`.
        fold: number of the fold that is test, from 0; of five folds one is the usual 20 %.
        folds: number of folds.
        validation: the share of val in the pictures that are not test.
        split_seed: seed of folds and val.
        grouped: whether tiles of a unit stay together.

    Raises:
        UserError: a folder is missing, a name tells no slide, or a class has fewer units than folds.
    """
    if unit not in UNITS:
        raise UserError(f"expected a unit out of {', '.join(UNITS)}, found {unit!r}; slide is usual")
    root = Path(dataset_dir)
    rows = [
        _row(path, unit) for path in list_pictures(root, with_tiff=True) if PurePosixPath(path).parent.name in CLASSES
    ]
    if lacking := [name for label, name in enumerate(CLASSES) if label not in {row.label for row in rows}]:
        raise UserError(
            f"expected pictures in a folder for each of {len(CLASSES)} classes below {root}, found none in "
            f"{', '.join(lacking)}: unpack Kather_texture_2016_image_tiles_5000.zip there"
        )
    own = listing_of(root, rows, CLASSES, task="Colorectal", window=None)
    return with_folds(own, fold=fold, folds=folds, validation=validation, seed=split_seed, grouped=grouped)


def _row(path: str, unit: str) -> Labelled:
    place = PurePosixPath(path)
    found = _NAME.fullmatch(place.name)
    if found is None:
        raise UserError(
            f"expected a name such as 10009_CRC-Prim-HE-03_009.tif_Row_301_Col_151.tif, found {path}: rename it as it "
            "was published, or take it away"
        )
    label = CLASSES.index(place.parent.name)
    if unit == "slide":
        return Labelled(path, label, patient=found["slide"], shown=found["slide"])
    return Labelled(path, label, source=found["region"])
