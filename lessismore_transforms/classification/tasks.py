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
        classes: how many the paper has; None for a task that is not the paper's.
        folds: whether its runs are the folds of a cross-validation; else they differ in their seeds.
    """

    name: str
    bundle: str
    phantom: str
    classes: int | None = None
    folds: bool = False


_ROWS = (
    Task("COVID-19", "covid19_ct_classification", phantom="covid19", classes=2),
    Task("OrgMNIST", "organsmnist_ct_classification", phantom="organsmnist", classes=11),
    Task("Brain", "brain_hemorrhage_ct_classification", phantom="brain", classes=2, folds=True),
)
TASKS = {row.name: row for row in _ROWS}
