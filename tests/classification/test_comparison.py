"""Comparisons of evaluations: numbers by hand and by scikit-learn, tests against the baseline, and notes."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_folders import HASH6, SCRATCH, noisy, predictions, rows_of, write_evaluation
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from lessismore_transforms.classification.comparison import make_table
from lessismore_transforms.classification.metrics import METRICS
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import bootstrap_interval, delong_test, holm, permutation_test
from lessismore_transforms.classification.tables import as_text


def test_hand_made_numbers(tmp_path: Path) -> None:
    # Four images, labels 0 0 1 1. Run 0 ranks one of four pairs wrong, run 1 none; at 1/2 run 0 has one error of each
    # kind (F1 of class 1: 2/4), run 1 misses one positive (F1 2/3).
    runs = [
        predictions([0, 0, 1, 1], np.array([-2.0, 1.0, -1.0, 2.0])),
        predictions([0, 0, 1, 1], np.array([-3.0, -2.0, -1.0, 2.0])),
    ]
    table = make_table([write_evaluation(tmp_path / "a", runs)], samples=20, paper=True)
    rows = rows_of(table)
    for metric, values in (("auc", (0.75, 1.0)), ("f1", (0.5, 2 / 3)), ("accuracy", (0.5, 0.75))):
        assert rows["a", metric].mean == pytest.approx(sum(values) / 2, abs=1e-12)
        assert rows["a", metric].std == pytest.approx((values[1] - values[0]) / math.sqrt(2), abs=1e-12)
    text = as_text(table)
    assert text.startswith("COVID-19: 4 test images (patients and sources not known); F1 is of class 'NonCOVID'\n")
    line = next(line for line in text.splitlines() if line.startswith("a "))
    assert line.split()[:4] == ["a", "from", "scratch", "2"]
    values = "0.875 ± 0.177  0.737 ± 0.033  0.583 ± 0.118  0.679 ± 0.033  0.625 ± 0.177  0.673 ± 0.026"
    assert line.endswith(values)
    assert "difference" not in text  # nothing to compare with
    assert "p (Holm)" not in text


def test_two_classes_against_scikit_learn_and_the_statistics(tmp_path: Path) -> None:
    patients = [f"p{place}" for place in range(40)]
    one, two, three = (noisy(gain, 3, seed=seed, patients=patients) for seed, gain in enumerate((0.8, 1.6, 1.2)))
    folders = [write_evaluation(tmp_path / "scratch", one)]
    folders += [
        write_evaluation(tmp_path / name, runs, labels=HASH6) for name, runs in (("two", two), ("three", three))
    ]
    table = make_table(folders, samples=60)
    rows = rows_of(table)
    assert list(rows) == [(name, m) for name in ("scratch", "two", "three") for m in ("auc", "f1", "accuracy")]
    truth = one[0].labels
    oracles = {
        "auc": lambda p: roc_auc_score(truth, p[:, 1]),
        "f1": lambda p: f1_score(truth, p.argmax(axis=1)),
        "accuracy": lambda p: accuracy_score(truth, p.argmax(axis=1)),
    }
    means: dict[tuple[str, str], float] = {}
    for name, runs in (("scratch", one), ("two", two), ("three", three)):
        for metric, oracle in oracles.items():
            values = [oracle(run.probabilities) for run in runs]
            row = rows[name, metric]
            means[name, metric] = statistics.mean(values)
            assert row.mean == pytest.approx(means[name, metric], abs=1e-12)
            assert row.std == pytest.approx(statistics.stdev(values), abs=1e-12)
            assert (row.low, row.high) == bootstrap_interval(runs, METRICS[metric], samples=60)
    tested = [(name, metric) for name in ("two", "three") for metric in oracles]
    p = [permutation_test({"two": two, "three": three}[n], one, METRICS[m], samples=60) for n, m in tested]
    for key, raw, corrected in zip(tested, p, holm(p), strict=True):
        row = rows[key]
        assert (row.baseline, row.common_runs, row.p, row.p_holm) == ("scratch", 3, raw, corrected)
        assert row.difference == pytest.approx(means[key] - means["scratch", key[1]], abs=1e-12)
        assert math.isnan(row.p_delong) == (key[1] != "auc")
    average = {id(runs): sum(run.probabilities[:, 1] for run in runs) / 3 for runs in (one, two, three)}
    delong = [delong_test(truth, average[id(runs)], average[id(one)]).p for runs in (two, three)]
    assert [rows[name, "auc"].p_delong for name in ("two", "three")] == pytest.approx(delong, abs=1e-12)
    assert [rows[name, "auc"].p_delong_holm for name in ("two", "three")] == pytest.approx(holm(delong), abs=1e-12)
    assert all(math.isnan(rows["scratch", metric].p) for metric in oracles)
    assert table.tasks[0].title == "COVID-19: 40 test images of 40 patients; F1 is of class 'NonCOVID'"
    assert as_text(make_table(folders, samples=60)) == as_text(table)
    assert any(
        "6 comparisons and 60 exchanges no p (Holm) can fall below 0.05" in note for note in table.tasks[0].notes
    )


def test_several_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(110) % 11
    one, two = (
        [predictions(labels, gain * np.eye(11)[labels] + rng.normal(size=(110, 11))) for _ in range(2)]
        for gain in (1.0, 3.0)
    )
    folders = [
        write_evaluation(tmp_path / "one", one, task="OrgMNIST"),
        write_evaluation(tmp_path / "two", two, task="OrgMNIST", labels=HASH6),
    ]
    table = make_table(folders, metrics=["auc", "f1", "f1_macro", "accuracy"], paper=True, samples=99)
    rows = rows_of(table)
    macro = [roc_auc_score(labels, run.probabilities, multi_class="ovr") for run in two]
    assert rows["two", "auc"].mean == pytest.approx(statistics.mean(macro), abs=1e-12)
    for metric, average in (("f1_micro", "micro"), ("f1_macro", "macro")):
        values = [f1_score(labels, run.probabilities.argmax(axis=1), average=average) for run in two]
        assert rows["two", metric].mean == pytest.approx(statistics.mean(values), abs=1e-12)
    assert rows["two", "f1_micro"].mean == rows["two", "accuracy"].mean
    # AUC, macro F1 and accuracy are three comparisons: micro F1 is accuracy again.
    p = [rows["two", metric].p for metric in ("auc", "f1_macro", "accuracy")]
    assert p == [0.01] * 3
    assert [rows["two", m].p_holm for m in ("auc", "f1_micro", "f1_macro", "accuracy")] == pytest.approx([0.03] * 4)
    assert math.isnan(rows["two", "auc"].p_delong)
    assert (rows["two", "f1_micro"].paper_mean, rows["two", "accuracy"].paper_mean) == (0.802, 0.804)
    assert math.isnan(rows["two", "f1_macro"].paper_mean)
    text = as_text(table)
    assert "DeLong" not in text
    assert "in 16 of the paper's 25 settings" in " ".join(text.split())
    assert "in 16 of the" not in " ".join(as_text(make_table(folders, samples=9)).split())


def test_folds(tmp_path: Path) -> None:
    def folds(gain: float, count: int) -> list[Predictions]:
        return [noisy(gain, 1, seed=n, size=20, prefix=f"f{n}-")[0] for n in range(count)]

    folders = [
        write_evaluation(tmp_path / "one", folds(0.5, 5), task="Brain", folds=True),
        write_evaluation(tmp_path / "two", folds(2.0, 4), task="Brain", folds=True, labels=HASH6),
    ]
    (tmp_path / "two" / "run_04").mkdir()
    table = make_table(folders, metrics=["auc"], samples=50, paper=True)
    row = rows_of(table)["two", "auc"]
    values = [[roc_auc_score(f.labels, f.probabilities[:, 1]) for f in folds(gain, 4)] for gain in (0.5, 2.0)]
    assert row.difference == pytest.approx(statistics.mean(values[1]) - statistics.mean(values[0]), abs=1e-12)
    assert (row.common_runs, row.runs, row.paper_mean) == (4, 4, 0.840)
    assert math.isnan(row.p_delong)  # no image is in all runs
    text = as_text(table)
    assert "Brain: 100 test images (patients and sources not known) in 5 folds\n" in text
    assert "Brain, two: run_04 not finished (no metrics.json), left out.\n" in text
    assert "Brain, two: tested against one on the runs that both have, 0, 1, 2, 3.\n" in text


def test_baseline_and_tasks(tmp_path: Path) -> None:
    covid = [write_evaluation(tmp_path / name / "covid", noisy(1, 1, seed=n)) for n, name in enumerate("ab")]
    brain = [
        write_evaluation(tmp_path / name / "brain", noisy(1, 1, seed=n), task="Brain") for n, name in enumerate("ab")
    ]
    folders = [covid[0], brain[0], covid[1], brain[1]]
    options: dict[str, Any] = {"samples": 5, "metrics": ["auc"]}
    assert [task.baseline for task in make_table(folders, **options).tasks] == ["a/covid", "a/brain"]
    table = make_table(folders, baseline=brain[1], **options)
    assert [task.baseline for task in table.tasks] == ["a/covid", "b/brain"]
    rows = rows_of(table)
    assert rows["a/brain", "auc"].baseline == "b/brain"
    assert rows["b/brain", "auc"].baseline == ""
    one, other = rows_of(make_table(brain, **options))["b/brain", "auc"], rows["a/brain", "auc"]
    assert (one.difference, one.p) == (-other.difference, other.p)
    added = make_table([covid[1]], baseline=covid[0], **options)  # a line of its own
    assert list(rows_of(added)) == [("a/covid", "auc"), ("b/covid", "auc")]
    with pytest.raises(ValueError, match=r"compare with the baseline .*brain, found none of Brain; add one"):
        make_table(covid, baseline=brain[0], **options)


def test_other_test_images_are_not_tested(tmp_path: Path) -> None:
    folders = [
        write_evaluation(tmp_path / "a", noisy(1, 2, seed=0)),
        write_evaluation(tmp_path / "b", noisy(1, 2, seed=1, prefix="j")),
        write_evaluation(tmp_path / "c", noisy(1, 2, seed=1), numbers=[5, 6]),
    ]
    table = make_table(folders, samples=5)
    assert all(math.isnan(row.p) and math.isnan(row.difference) for row in rows_of(table).values())
    assert table.tasks[0].notes == (
        "b: not tested against a, which has other test images; their means are not comparable either.",
        "c: not tested against a, with which it has no number of a run in common.",
    )


@pytest.mark.parametrize(("images_of_a_patient", "tested"), [(1, True), (2, False)])
def test_delong_is_left_out_where_a_patient_has_several_images(
    tmp_path: Path, images_of_a_patient: int, tested: bool
) -> None:
    patients = [f"p{number // images_of_a_patient}" for number in range(40)]
    folders = [
        write_evaluation(tmp_path / name, noisy(gain, 2, seed=3, patients=patients), task="Brain", labels=labels)
        for name, gain, labels in (("one", 1.0, SCRATCH), ("two", 2.0, HASH6))
    ]
    table = make_table(folders, metrics=["auc"], samples=49)
    assert math.isfinite(rows_of(table)["two", "auc"].p_delong) == tested
    assert ("DeLong p" in as_text(table)) == tested


def test_leaks_that_were_found_or_not_looked_for_stand_below_the_table(tmp_path: Path) -> None:
    found = {"policy": "warn", "checked": True, "patients": None, "sources": 3, "near": 2, "too_small": 7}
    folders = [
        write_evaluation(tmp_path / "one", noisy(1.0, 2, seed=3), leakage=found),
        write_evaluation(tmp_path / "two", noisy(2.0, 2, seed=3), leakage={"policy": "ignore", "checked": False}),
        write_evaluation(tmp_path / "three", noisy(2.0, 2, seed=3)),
    ]
    text = " ".join(as_text(make_table(folders, metrics=["auc"], samples=49)).split())
    assert "one: leaks found before training: sources 3, near 2; see leakage.csv of the runs." in text
    assert "two: leaks between splits were not looked for." in text
    assert "three: " not in text


def test_what_is_true_of_several_evaluations_is_said_once(tmp_path: Path) -> None:
    found = {"policy": "warn", "checked": True, "near": 2}
    same = [write_evaluation(tmp_path / name, noisy(1.0, 2, seed=3), leakage=found) for name in ("one", "two")]
    words = "leaks found before training: near 2; see leakage.csv of the runs."
    assert make_table(same, metrics=["auc"], samples=49).tasks[0].notes == (f"all: {words}",)
    slices = {"policy": "warn", "checked": True, "near": 2, "pretraining_near": 4}
    other = write_evaluation(tmp_path / "three", noisy(1.0, 2, seed=3), leakage=slices)
    assert make_table([*same, other], metrics=["auc"], samples=49).tasks[0].notes == (
        f"all: {words}",
        "three: shared with the pre-training set: near 4; see leakage.csv of the runs.",
    )
    clean = write_evaluation(tmp_path / "four", noisy(1.0, 2, seed=3), leakage={"policy": "warn", "checked": True})
    assert make_table([*same, clean], metrics=["auc"], samples=49).tasks[0].notes == (f"one, two: {words}",)


def test_evaluations_are_named_within_their_task(tmp_path: Path) -> None:
    folders = [
        write_evaluation(tmp_path / "brain" / "scratch", noisy(1.0, 2, seed=3), task="Brain"),
        write_evaluation(tmp_path / "covid" / "scratch", noisy(1.0, 2, seed=3)),
        write_evaluation(tmp_path / "again" / "scratch", noisy(1.0, 2, seed=4)),
    ]
    table = make_table(folders, metrics=["auc"], samples=5)
    names = [[row.evaluation for row in task.rows] for task in table.tasks]
    assert names == [["scratch"], ["covid/scratch", "again/scratch"]]
