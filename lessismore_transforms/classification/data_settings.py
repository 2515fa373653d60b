"""Settings that bundles share beside those of all tasks: how own labels are read, and how a set is divided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.classification.network import HEADS
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import option, parse_bools
from lessismore_transforms.volumes.pictures import check_window


@dataclass(frozen=True)
class FoldSettings(ClassificationSettings):
    """Settings of a task that is divided in folds made here."""

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


@dataclass(frozen=True)
class LabelSettings(ClassificationSettings):
    """Settings of a task whose labels are read from class folders or a CSV file, see `labels`."""

    labels: str | Path | None = option(
        None,
        help="CSV file of labels, in `dataset_dir` or anywhere; none: the only one in `dataset_dir`, else class "
        "folders",
        role="path",
    )
    label_column: str | None = option(
        None, help="its column of labels; none: `label`, or the only column that can be meant", role="setting"
    )
    window: str | None = option(
        None,
        help="of DICOM in HU: a name (`lung`, `brain`, ...) or level/width; three with + between, as in "
        "`lung+chest+bone`, are the channels of `--channels 3`; none: the range of each slice",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.window, self.channels)


@dataclass(frozen=True)
class HeadSettings(ClassificationSettings):
    """Settings of a task that others evaluated with another head, and with pictures split one by one."""

    grouped: bool = option(
        True, help="keep all pictures of a patient, else of a source, in one split; false: split them one by one"
    )
    head: str = option("linear", help="`linear`: one layer; `mlp`: a hidden layer of 512 before it")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_bools(self)
        if self.head not in HEADS:
            raise UserError(f"expected a head out of {', '.join(HEADS)}, found {self.head!r}; linear is usual")
        if self.regression and self.head != "linear":
            raise UserError(
                f"expected the head linear for a logistic regression, found {self.head}: leave it out, or give "
                "--linear_recipe adam"
            )


@dataclass(frozen=True)
class ProtocolSettings(HeadSettings, FoldSettings):
    """Settings of a task that has an official split or is divided in folds, see `protocol.divided`."""

    protocol: str = option(
        "auto", help="`official`: the split that the data tell; `folds`; `auto`: official where train and test are told"
    )
