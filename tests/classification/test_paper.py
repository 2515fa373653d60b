"""The paper's numbers: those that its text and tables print, and that the package holds all of them."""

from __future__ import annotations

from collections import Counter

import pytest

from lessismore_transforms.classification.paper import (
    PRINTED,
    TASK_CLASSES,
    Setting,
    paper_rows,
    paper_settings,
    paper_value,
)

TABLES = {3: 6, 4: 36, 5: 60, 6: 36, 7: 36, 12: 3, 13: 18, 14: 30, 15: 18, 16: 18}


@pytest.mark.parametrize(
    ("task", "metric", "setting", "expected"),
    [
        ("COVID-19", "AUC", ("none", "none", "none"), (0.737, 0.033)),  # Table 3
        ("COVID-19", "auc", ("none", "none", "none"), (0.737, 0.033)),
        ("Brain", "F1", ("none", "none", "none"), (0.447, 0.157)),
        ("OrgMNIST", "AUC", ("PET-CT", "SwAV", "ALL"), (0.968, 0.003)),  # Table 4
        ("Brain", "auc", ("LIDC", "SwAV", "HASH-6"), (0.840, 0.016)),  # Tables 6 and 7
        ("Brain", "AUC", ("LIDC", "MoCoV2", "HASH-6"), (0.897, 0.015)),  # Table 7
        ("Brain", "accuracy", ("LIDC", "SparK", "ALL"), (0.845, 0.003)),  # Table 16
    ],
)
def test_values(task: str, metric: str, setting: tuple[str, str, str], expected: tuple[float, float]) -> None:
    assert paper_value(task, metric, *setting) == expected


@pytest.mark.parametrize(
    ("task", "metric", "setting"),
    [
        ("COVID-19", "AUC", ("LIDC", "SwAV", "HASH-7")),
        ("COVID-19", "AUC", ("PET-CT", "MoCoV2", "ALL")),
        ("COVID-19", "Precision", ("LIDC", "SwAV", "ALL")),
        ("Colon", "AUC", ("LIDC", "SwAV", "ALL")),
    ],
)
def test_what_the_paper_does_not_print_is_none(task: str, metric: str, setting: tuple[str, str, str]) -> None:
    assert paper_value(task, metric, *setting) is None


def test_all_tables_are_there_and_repeated_numbers_agree() -> None:
    assert {table: len(paper_rows(table)) for table in TABLES} == TABLES
    printed: dict[tuple[Setting, str, str], set[tuple[float, float]]] = {}
    for table in TABLES:
        for row in paper_rows(table):
            printed.setdefault((row.setting, row.task, row.metric), set()).add((row.mean, row.std))
    assert len(printed) == 225
    assert all(len(values) == 1 for values in printed.values())
    assert {task for _, task, _ in printed} == set(TASK_CLASSES)
    assert Counter(metric for *_, metric in printed) == dict.fromkeys(PRINTED.values(), 75)


def test_settings_of_a_table() -> None:
    assert paper_settings(3) == [Setting("none", "none", "none")]
    assert paper_settings(7) == [
        Setting("LIDC", method, reduction) for method in ("SwAV", "MoCoV2", "SparK") for reduction in ("ALL", "HASH-6")
    ]
    assert len(paper_settings()) == 25
    with pytest.raises(ValueError, match=r"expected one of the paper's tables of results, 3, 4, 5, .*, found 8"):
        paper_settings(8)


def test_f1_of_orgmnist_differs_from_accuracy_in_16_of_25_settings() -> None:
    different = [
        setting
        for setting in paper_settings()
        if paper_value("OrgMNIST", "F1", *setting)[0] != paper_value("OrgMNIST", "Accuracy", *setting)[0]
    ]
    assert len(different) == 16
