"""Own labelled slices in class folders or with a CSV file, in their official split or in folds made here.

What such folders and files look like, and how patients are told: `lessismore_transforms.classification.labels`.
"""

from __future__ import annotations

from pathlib import Path

from lessismore_transforms.classification.examples import Listing
from lessismore_transforms.classification.labels import labelled_pictures
from lessismore_transforms.classification.protocol import CORRELATION, divided, grouped_by_near_duplicates


def listing(
    dataset_dir: str | Path,
    task: str = "Own",
    labels: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    window: str | None = None,
    channels: int = 1,
    near_duplicates: float | None = CORRELATION,
    protocol: str = "auto",
    fold: int = 0,
    folds: int = 5,
    repeat: int = 0,
    validation: float = 0.1,
    split_seed: int = 0,
    grouped: bool = True,
) -> Listing:
    """The pictures in order of their paths, in splits.

    Args:
        dataset_dir: the folder that holds the pictures, at any depth.
        task: its name in tables.
        labels: a CSV file, in `dataset_dir` or anywhere; None for the only one in `dataset_dir`, else class folders.
        label_column: its column of labels; None for `label`, or the only column that can be meant.
        group_column: its column of what belongs together where no patient is known; None for `group` or `source`.
        window: window of DICOM in HU, see `labelled_pictures`.
        channels: in which pictures are read for near-duplicates; three windows need 3.
        near_duplicates: correlation from which on pictures without patient and group become one group; None for none.
        protocol: `official`, `folds` or `auto`, see `divided`.
        fold: number of the fold that is test, from 0.
        folds: number of folds.
        repeat: which partition into folds `split_seed` makes; an official split has none but 0.
        validation: the share of val in the pictures that are not test.
        split_seed: seed of folds and val.
        grouped: whether pictures of a patient or group stay together.

    Raises:
        UserError: there are no pictures, labels do not fit them, or the protocol does not.
    """
    own = labelled_pictures(
        dataset_dir, labels=labels, label_column=label_column, group_column=group_column, window=window, task=task
    )
    if near_duplicates is not None:
        own = grouped_by_near_duplicates(own, correlation=near_duplicates, channels=channels)
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
