"""Head CT slices with and without hemorrhage, in class folders or with a CSV file, in patient-grouped folds made here.

What such folders and files look like, and how patients are told: `lessismore_transforms.classification.labels`.
"""

from __future__ import annotations

from pathlib import Path

from lessismore_transforms.classification.examples import Listing
from lessismore_transforms.classification.labels import labelled_pictures
from lessismore_transforms.classification.protocol import with_folds


def listing(
    dataset_dir: str | Path,
    labels: str | None = None,
    label_column: str | None = None,
    fold: int = 0,
    folds: int = 5,
    validation: float = 0.1,
    split_seed: int = 0,
    window: str | None = "brain",
) -> Listing:
    """The pictures in order of their paths; one fold is test, the rest is split into train and val.

    Args:
        dataset_dir: the folder that holds the pictures, at any depth.
        labels: a CSV file, in `dataset_dir` or anywhere; None for the only one in `dataset_dir`, else class folders.
        label_column: its column of labels; None for `label`, or the only column that can be meant.
        fold: number of the fold that is test, from 0.
        folds: number of folds.
        validation: the share of val in the pictures that are not test.
        split_seed: seed of folds and val.
        window: window of DICOM in HU: a name or level/width; None for min-max. PNG and JPEG stay as they are.

    Raises:
        UserError: there are no pictures, labels do not fit them, or a class has fewer patients than folds.
    """
    own = labelled_pictures(dataset_dir, labels=labels, label_column=label_column, task="Brain", window=window)
    return with_folds(own, fold=fold, folds=folds, validation=validation, seed=split_seed)
