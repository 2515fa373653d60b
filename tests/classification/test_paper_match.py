"""The paper's numbers beside ours: which one belongs to an evaluation, and what is noted where there is none."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import HASH6, noisy, rows_of, write_evaluation
from sklearn.metrics import f1_score

from lessismore_transforms.classification.comparison import make_table
from lessismore_transforms.classification.tables import as_text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": ("LIDC", "SwAV", None)}, "the paper's number is not known without --reduction, given in training."),
        (
            {"labels": ("PET-CT", "SwAV", "HASH-7")},
            "of PET-CT SwAV the paper has only ALL, EveryN-20%, .*HASH-12.",
        ),
        ({"labels": ("PET-CT", "DINO", "ALL")}, "the paper has no PET-CT DINO."),
        (
            {"labels": HASH6, "mode": "linear"},
            "the paper fine-tunes the whole network and has no number for a frozen one.",
        ),
        (
            {"labels": HASH6, "task": "OrgMNIST", "classes": ["a", "b"]},
            "the paper's OrgMNIST has 11 classes, this one 2.",
        ),
        ({"labels": HASH6, "task": "Colon"}, "the paper has no task Colon."),
    ],
)
def test_the_paper_has_no_number(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    table = make_table([write_evaluation(tmp_path / "a", noisy(1, 2, seed=0), **options)], samples=5, paper=True)
    assert all(math.isnan(row.paper_mean) for row in rows_of(table).values())
    assert re.fullmatch(f"a: {words}", table.tasks[0].notes[0])
    assert not any("Wolf" in line for line in table.footer)


def test_f1_of_another_class_has_no_number_in_the_paper(tmp_path: Path) -> None:
    runs = noisy(1, 2, seed=0)
    table = make_table([write_evaluation(tmp_path / "a", runs, positive=0)], samples=5, paper=True)
    rows = rows_of(table)
    expected = [f1_score(run.labels, run.probabilities.argmax(axis=1), pos_label=0) for run in runs]
    assert rows["a", "f1"].mean == pytest.approx(statistics.mean(expected), abs=1e-12)
    assert math.isnan(rows["a", "f1"].paper_mean)
    assert rows["a", "auc"].paper_mean == 0.737
    assert table.tasks[0].notes == ("the paper's F1 is of label 1, this one of 0.",)


def test_settings_that_are_not_the_papers_and_data_that_are_not_stand_below_the_table(tmp_path: Path) -> None:
    other = {"settings": {"backbone": "resnet18", "image_size": 224, "max_epochs": 3}}
    covid = write_evaluation(tmp_path / "covid", noisy(1.0, 2, seed=3), **other)
    brain = write_evaluation(tmp_path / "brain", noisy(1.0, 2, seed=3), task="Brain")
    text = " ".join(as_text(make_table([covid, brain], metrics=["auc"], samples=20, paper=True)).split())
    assert "covid: unlike the paper in backbone resnet18 instead of resnet50, max epochs 3 instead of 70." in text
    assert "the paper's pictures of Brain are not public: its numbers are of other data." in text
    assert "brain: unlike" not in text
