"""The tasks that encoders are judged by, one row each: everything that the name of a task decides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A data set of labelled pictures.

    Args:
        name: in tables, as the paper spells it.
        bundle: that fine-tunes on it.
        phantom: the task of `demo-data` in its layout.
        classes: how many it has; of own pictures, those that the bundle's metadata show.
        folds: whether its runs are the folds of a cross-validation; else they differ in their seeds.
        paper: whether it is one of the paper's.
    """

    name: str
    bundle: str
    phantom: str
    classes: int
    folds: bool = False
    paper: bool = False


_ROWS = (
    Task("COVID-19", "covid19_ct_classification", phantom="covid19", classes=2, paper=True),
    Task("OrgMNIST", "organsmnist_ct_classification", phantom="organsmnist", classes=11, paper=True),
    Task("Brain", "brain_hemorrhage_ct_classification", phantom="brain", classes=2, folds=True, paper=True),
    Task("Own", "slice_classification", phantom="brain", classes=2, folds=True),
    Task("BreakHis", "breakhis_classification", phantom="breakhis", classes=2, folds=True),
    Task("Colorectal", "colorectal_classification", phantom="colorectal", classes=8, folds=True),
    Task("Pneumonia", "pneumonia_xray_classification", phantom="pneumonia", classes=2),
)
TASKS = {row.name: row for row in _ROWS}
