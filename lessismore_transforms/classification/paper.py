"""The numbers that Wolf et al. printed, and the names of our metrics and methods for theirs.

Less is More: Selective reduction of CT data for self-supervised pre-training of deep learning models with contrastive
learning improves downstream classification performance, Comput Biol Med 183 (2024) 109242: Tables 3 to 7 (AUC and F1)
and 12 to 16 (accuracy), each mean and standard deviation over five fine-tuning runs (Brain: five folds).
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.errors import UserError

TASK_CLASSES = {name: task.classes for name, task in TASKS.items() if task.paper}  # of each of the paper's tasks
PRINTED = {"auc": "AUC", "f1": "F1", "accuracy": "Accuracy"}  # our name of a metric: the paper's
# Section 2.3; the number of epochs is that of the released code.
SETTINGS = {"backbone": "resnet50", "image_size": 224, "batch_size": 64, "learning_rate": 1e-4, "max_epochs": 70}
BRAIN_DATA = "the paper's pictures of Brain are not public: its numbers are of other data"
POSITIVE = 1  # the label whose F1 the paper prints where there are two classes; of COVID-19 that is NonCOVID
F1_OF_ORGMNIST = (
    "The released code computes the F1 of OrgMNIST as micro F1, which equals accuracy, yet in 16 of the paper's 25 "
    "settings the printed F1 and accuracy differ."
)


class Setting(NamedTuple):
    """A pre-training as the paper names it: data set, method, reduction; all three are `none` without one.

    Attributes:
        pretrain_dataset: `LIDC`, `PET-CT` or `none`.
        ssl_method: `SwAV`, `MoCoV2`, `SparK` or `none`.
        reduction: `ALL`, `EveryN-10%`, `HASH-6` and so on, or `none`.
    """

    pretrain_dataset: str
    ssl_method: str
    reduction: str


class PaperRow(NamedTuple):
    """A number of the paper: table, setting, task, metric as printed, mean and standard deviation."""

    table: int
    setting: Setting
    task: str
    metric: str
    mean: float
    std: float


def paper_value(
    task: str, metric: str, pretrain_dataset: str, ssl_method: str, reduction: str
) -> tuple[float, float] | None:
    """Mean and standard deviation that the paper prints for a setting, or None.

    Args:
        task: `COVID-19`, `OrgMNIST` or `Brain`.
        metric: `AUC`, `F1` or `Accuracy`, or our name of it (see `PRINTED`).
        pretrain_dataset: see `Setting`, as the other two.
        ssl_method: see `Setting`.
        reduction: see `Setting`.
    """
    setting = Setting(pretrain_dataset, ssl_method, reduction)
    for row in _rows():  # settings that stand in several tables have the same numbers there
        if (row.task, row.metric, row.setting) == (task, PRINTED.get(metric, metric), setting):
            return row.mean, row.std
    return None


def paper_rows(table: int) -> list[PaperRow]:
    """The numbers of one table of the paper, in its order.

    Raises:
        UserError: the paper has no such table of results.
    """
    found = [row for row in _rows() if row.table == table]
    if not found:
        known = ", ".join(map(str, sorted({row.table for row in _rows()})))
        raise UserError(f"expected one of the paper's tables of results, {known}, found {table}; name one of them")
    return found


def paper_settings(table: int | None = None) -> list[Setting]:
    """The settings of one table of the paper, or of all, each once, in their order.

    Raises:
        UserError: the paper has no such table of results.
    """
    return list(dict.fromkeys(row.setting for row in (_rows() if table is None else paper_rows(table))))


@cache
def _rows() -> tuple[PaperRow, ...]:
    text = files("lessismore_transforms.classification").joinpath("paper_results.csv").read_text(encoding="utf-8")
    return tuple(
        PaperRow(
            int(line["table"]),
            Setting(line["pretrain_dataset"], line["ssl_method"], line["reduction"]),
            line["task"],
            line["metric"],
            float(line["mean"]),
            float(line["std"]),
        )
        for line in csv.DictReader(text.splitlines())
    )
