"""The settings of the brain hemorrhage task beside those that all tasks share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.options import option


@dataclass(frozen=True)
class Settings(ClassificationSettings):
    """Settings of the brain hemorrhage task, by the names that stand at the top of train.json."""

    labels: str | Path | None = option(
        None,
        help="CSV file of labels, in `dataset_dir` or anywhere; none: the only one in `dataset_dir`, else class "
        "folders",
        role="path",
    )
    label_column: str | None = option(
        None, help="its column of labels; none: `label`, or the only column that can be meant", role="setting"
    )
    fold: int = option(0, help="which fold is the test split")
    folds: int = option(5, help="how many there are")
    repeat: int = option(
        0,
        help="which partition into folds it is a fold of: each is made anew, of all pictures, and is scored by itself",
    )
    validation: float = option(0.1, help="share of the rest that is the validation split")
    split_seed: int = option(
        0, help="of the folds and of the validation split; the same for all folds of an evaluation"
    )
    window: str | None = option(
        "brain",
        help="of DICOM in HU: a name (`brain` is 40/80) or level/width; `'$None'` for the range of each slice",
    )
