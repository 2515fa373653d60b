"""Comparisons of evaluations: numbers by hand and by scikit-learn, tests against the baseline, and notes."""

from __future__ import annotations

import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_folders import ALL, HASH6, SCRATCH, noisy, predictions, rows_of, write_evaluation
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from lessismore_transforms.classification.arms import Arm
from lessismore_transforms.classification.comparison import Table, compare, make_table
from lessismore_transforms.classification.crossed import arm_difference, arm_interval
from lessismore_transforms.classification.finished_runs import read_finished_runs
from lessismore_transforms.classification.metrics import METRICS
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import bootstrap_interval, holm
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
    patients = [f"p{place // 2}" for place in range(40)]
    scratch, all_slices, few = (noisy(gain, 3, seed=n, patients=patients) for n, gain in enumerate((0.8, 1.6, 1.2)))
    of = {"scratch": (scratch, SCRATCH), "all": (all_slices, ALL), "few": (few, HASH6)}
    folders = [write_evaluation(tmp_path / name, runs, labels=labels) for name, (runs, labels) in of.items()]
    table = make_table(folders, samples=60)
    rows = rows_of(table)
    assert list(rows) == [(name, metric) for name in of for metric in ("auc", "f1", "accuracy")]
    truth = scratch[0].labels
    oracles = {
        "auc": lambda p: roc_auc_score(truth, p[:, 1]),
        "f1": lambda p: f1_score(truth, p.argmax(axis=1)),
        "accuracy": lambda p: accuracy_score(truth, p.argmax(axis=1)),
    }
    for name, (runs, _) in of.items():
        for metric, oracle in oracles.items():
            values = [oracle(run.probabilities) for run in runs]
            row = rows[name, metric]
            assert row.mean == pytest.approx(statistics.mean(values), abs=1e-12)
            assert row.std == pytest.approx(statistics.stdev(values), abs=1e-12)
            networks = [[run] for run in runs] if name == "scratch" else [runs]
            assert (row.low, row.high) == arm_interval(networks, METRICS[metric], samples=60)
            assert row.about == ("any networks" if name == "scratch" else "these networks only")
            assert (row.unit, row.units, row.runs, row.pretrainings) == ("patient", 20, 3, int(name != "scratch"))
    for metric in oracles:
        row = rows["few", metric]
        found = arm_difference([few], [all_slices], METRICS[metric], samples=60)
        assert (row.baseline, row.difference_about) == ("all", "these networks only")
        assert (row.difference, row.difference_low, row.difference_high) == found[:3]
        assert (row.detectable, row.too_small) == (found.detectable, found.detectable > abs(found.value))
        assert row.difference == pytest.approx(row.mean - rows["all", metric].mean, abs=1e-12)
        assert all(math.isnan(each.p) and math.isnan(each.p_holm) for each in rows.values())
        assert [rows[name, metric].baseline for name in ("scratch", "all")] == ["", ""]
    assert table.tasks[0].title == "COVID-19: 40 test images of 20 patients; F1 is of class 'NonCOVID'"
    text = " ".join(as_text(table).split())
    assert "There is no p where an arm has fewer than 3 networks" in text
    assert "p (Holm)" not in text
    assert as_text(make_table(folders, samples=60)) == as_text(table)


def test_pretrainings_of_equal_labels_and_settings_are_one_arm(tmp_path: Path) -> None:
    arms: dict[str, list[list[Predictions]]] = {"all": [], "few": []}
    folders = []
    for name, gain, labels in (("all", 0.8, ALL), ("few", 2.4, HASH6)):
        for seed in range(3):
            runs = noisy(gain + 0.2 * seed, 2, seed=seed + 9, size=80)
            arms[name].append(runs)
            folders.append(write_evaluation(tmp_path / f"{name}{seed}", runs, labels=labels, weights=f"{name}{seed}"))
    table = make_table(folders, samples=80)
    rows = rows_of(table)
    names = ["all0 + 2 more", "few0 + 2 more"]
    assert list(dict.fromkeys(name for name, _ in rows)) == names
    few = rows[names[1], "auc"]
    means = [statistics.mean(METRICS["auc"](r.labels, r.probabilities) for r in runs) for runs in arms["few"]]
    assert few.mean == pytest.approx(statistics.mean(means), abs=1e-12)
    assert few.std == pytest.approx(statistics.stdev(means), abs=1e-12)
    assert (few.pretrainings, few.runs, few.about) == (3, 6, "any networks")
    assert (few.low, few.high) == arm_interval(arms["few"], METRICS["auc"], samples=80)
    found = {m: arm_difference(arms["few"], arms["all"], METRICS[m], samples=80) for m in ("auc", "f1", "accuracy")}
    assert (few.difference, few.difference_low, few.difference_high, few.p) == found["auc"][:4]
    assert (few.baseline, few.difference_about) == (names[0], "any networks")
    assert few.p < 0.05
    expected = holm([each.p for each in found.values()])
    assert [rows[names[1], m].p_holm for m in found] == pytest.approx(expected, abs=1e-12)
    text = as_text(table)
    assert "few0 + 2 more: one arm of 3 pre-trainings (few0, few1, few2)." in text
    assert few.mean_of == "3 pre-trainings of 2 runs"
    assert few.mean_of in text
    assert "There is no p" not in text
    fewer = make_table([folders[n] for n in (0, 1, 3, 4, 5)], samples=80, metrics=["auc"])
    assert math.isnan(rows_of(fewer)[names[1], "auc"].p)  # two pre-trainings of ALL
    assert rows_of(fewer)[names[1], "auc"].difference_about == "any networks"
    assert "few0 + 2 more: it has 3 pre-trainings, all0 + 1 more 2." in as_text(fewer)
    named = make_table(folders, baseline=folders[4], samples=20, metrics=["auc"])
    assert rows_of(named)[names[0], "auc"].baseline == names[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "a"},
        {"weights": None},
        {"epoch": 50},
        {"epoch": 1, "iteration": 8},  # checkpoints of one pre-training may be of one epoch
        {"labels": ("LIDC", "SwAV", None)},
        {"mode": "linear"},
        {"settings": {"learning_rate": 1}},
        {"rescored": True},
    ],
)
def test_what_may_not_be_repetitions_are_arms_of_their_own(tmp_path: Path, changes: dict[str, Any]) -> None:
    known = {"labels": ALL, "epoch": 1, "iteration": 4}
    folders = [
        write_evaluation(tmp_path / name, noisy(1, 1, seed=n), **(known | {"weights": name} | change))
        for n, (name, change) in enumerate((("a", {}), ("b", changes)))
    ]
    table = make_table(folders, samples=5, metrics=["auc"])
    assert len(table.tasks[0].rows) == len(folders)


def test_other_settings_and_lengths_of_what_is_compared_are_named(tmp_path: Path) -> None:
    def table(name: str, *arms: dict[str, Any]) -> Table:
        folders = [
            write_evaluation(tmp_path / name / f"arm{n}", noisy(1, 1, seed=n), weights=str(n), **arm)
            for n, arm in enumerate(arms)
        ]
        return make_table(folders, samples=5, metrics=["auc"])

    usual = {"labels": ALL, "epoch": 800, "iteration": 8000, "settings": {"learning_rate": 1e-4, "image_size": 224}}
    few = usual | {"labels": HASH6}
    assert table("equal", usual, few | {"iteration": 900}).tasks[0].notes == ()  # equal epochs
    assert table("steps", usual, few | {"epoch": 7000}).tasks[0].notes == ()  # equal steps
    found = table("other", usual, few | {"settings": {"learning_rate": 0.01, "image_size": 224, "flip": 0.5}})
    words = "arm1: compared with arm0, which differs in more: "
    assert found.tasks[0].notes == (f"{words}learning_rate 0.01, there 0.0001; flip 0.5, there None.",)
    length = "epochs of pre-training 50, there 800; iterations of pre-training 90, there 8000."
    assert table("shorter", usual, few | {"epoch": 50, "iteration": 90}).tasks[0].notes == (f"{words}{length}",)
    begun = usual | {"epoch": 1}, few | {"epoch": 1, "iteration": 90}
    assert table("begun", *begun).tasks[0].notes == (f"{words}iterations of pre-training 90, there 8000.",)
    again = usual | {"settings": {"learning_rate": 3e-4, "image_size": 224}}
    two = table("two", usual, again, few)
    assert [row.baseline for row in two.tasks[0].rows] == ["", "", ""]
    assert two.tasks[0].notes == (
        "arm2: not compared with ALL, of which there are 2 arms of the same data set, method and mode (arm0, arm1): "
        "name one by --baseline EVAL, or leave the others out.",
    )


def test_several_runs_from_scratch_are_networks(tmp_path: Path) -> None:
    """Each run has random weights of its own, so that another way to train from scratch can be tested against it."""
    one, two = noisy(0.5, 4, seed=0), noisy(2.5, 4, seed=0)
    folders = [write_evaluation(tmp_path / "one", one), write_evaluation(tmp_path / "two", two)]
    row = rows_of(make_table(folders, baseline=folders[0], samples=60, metrics=["auc"]))["two", "auc"]
    assert row.p == arm_difference([[r] for r in two], [[r] for r in one], METRICS["auc"], samples=60).p < 0.05
    note = "nothing is compared: there is no evaluation with the reduction ALL of the same data set, method and mode; "
    assert make_table(folders, samples=5).tasks[0].notes == (f"{note}name what to compare with by --baseline EVAL.",)


def test_reductions_that_an_experiment_compares(tmp_path: Path) -> None:
    names = ("ALL", "EveryN-10%", "SSIM-10%", "HASH-10%")
    labelled = [("LIDC", "SwAV", name) for name in names] + [("PET-CT", "SwAV", "HASH-10%"), ("LIDC", "MoCoV2", "ALL")]
    arms = []
    for number, labels in enumerate(labelled):
        folder = write_evaluation(tmp_path / str(number), noisy(1, 1, seed=number), labels=labels)
        arms.append(Arm(" ".join(labels), (read_finished_runs(folder),)))
    pairs = [("SSIM-10%", "EveryN-10%"), ("HASH-10%", "EveryN-10%"), ("HASH-10%", "SSIM-10%")]

    def compared(table: Table) -> list[tuple[str, str]]:
        return [(row.evaluation, row.baseline) for row in table.tasks[0].rows if row.baseline]

    table = compare(arms, pairs=pairs, metrics=["auc"], samples=5)
    swav = {name: f"LIDC SwAV {name}" for name in names}
    assert compared(table) == [(swav[one], swav[other]) for one, other in pairs]
    assert (
        sum(line.startswith(f"{swav['HASH-10%']} ") for line in as_text(table).splitlines()) == 3
    )  # one in the scores
    expected = [(swav[name], swav["ALL"]) for name in names[1:]]
    assert compared(compare(arms, metrics=["auc"], samples=5)) == expected


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
    assert (rows["two", "f1_micro"].paper_mean, rows["two", "accuracy"].paper_mean) == (0.802, 0.804)
    assert math.isnan(rows["two", "f1_macro"].paper_mean)
    text = as_text(table)
    assert "in 16 of the paper's 25 settings" in " ".join(text.split())
    assert "in 16 of the" not in " ".join(as_text(make_table(folders, samples=9)).split())


def test_micro_f1_and_accuracy_are_one_comparison(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), np.arange(110) % 11
    folders = [
        write_evaluation(
            tmp_path / f"{name}",
            [predictions(labels, gain * np.eye(11)[labels] + rng.normal(size=(110, 11))) for _ in range(3)],
            task="OrgMNIST",
        )
        for name, gain in (("one", 1.0), ("two", 1.3))
    ]
    metrics = ["auc", "f1", "f1_macro", "accuracy"]
    rows = rows_of(make_table(folders, baseline=folders[0], metrics=metrics, samples=99))
    p = [rows["two", metric].p for metric in ("auc", "f1_macro", "accuracy")]
    corrected = dict(zip(("auc", "f1_macro", "accuracy"), holm(p), strict=True))
    assert [rows["two", metric].p_holm for metric in corrected] == pytest.approx(list(corrected.values()))
    assert rows["two", "f1_micro"].p_holm == rows["two", "accuracy"].p_holm


def test_folds(tmp_path: Path) -> None:
    def folds(gain: float, count: int) -> list[Predictions]:
        return [noisy(gain, 1, seed=n, size=20, prefix=f"f{n}-")[0] for n in range(count)]

    folders = [
        write_evaluation(tmp_path / "one", folds(0.5, 5), task="Brain", folds=True),
        write_evaluation(tmp_path / "two", folds(2.0, 4), task="Brain", folds=True, labels=HASH6),
    ]
    (tmp_path / "two" / "run_04").mkdir()
    table = make_table(folders, metrics=["auc"], samples=50, paper=True, baseline=folders[0])
    row = rows_of(table)["two", "auc"]
    values = [[roc_auc_score(f.labels, f.probabilities[:, 1]) for f in folds(gain, 4)] for gain in (0.5, 2.0)]
    assert row.difference == pytest.approx(statistics.mean(values[1]) - statistics.mean(values[0]), abs=1e-12)
    assert (row.runs, row.paper_mean) == (4, 0.840)
    assert math.isnan(row.p)  # the folds from scratch are one network of each image
    assert rows_of(table)["one", "auc"].about == "these networks only"
    text = as_text(table)
    assert "Brain: 100 test images (patients and sources not known) in 5 folds\n" in text
    assert "Brain, two: run_04 not finished (no metrics.json), left out.\n" in text
    assert "Brain, two: compared with one on the folds that both have, 0, 1, 2, 3.\n" in text


def repeated(gain: float, *, folds: int = 4, repeats: int = 3) -> list[Predictions]:
    """The same 40 pictures of 20 patients, dealt into folds by patient in each repeat, with networks of their own."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(20), 2)
    labels = patients % 2
    common = rng.normal(size=40)
    runs = []
    for repeat in range(repeats):
        scores = gain * (labels - 0.5) + common + 0.3 * np.random.default_rng(repeat).normal(size=40)
        whole = predictions(labels, scores, patients=[f"p{patient}" for patient in patients])
        fold = (rng.permutation(10) % folds).repeat(2)[patients]  # patients 2 n and 2 n + 1 are of two classes
        runs += [whole.rows(np.flatnonzero(fold == number).tolist()) for number in range(folds)]
    return runs


def test_repeated_folds(tmp_path: Path) -> None:
    one, two = repeated(0.5), repeated(1.5)
    folders = [
        write_evaluation(tmp_path / "one", one, repeats=3),
        write_evaluation(tmp_path / "two", two, repeats=3, mode="probe", labels=HASH6),
    ]
    shutil.rmtree(tmp_path / "two" / "run_05")
    table = make_table([tmp_path], metrics=["auc"], samples=50, baseline=folders[0])
    rows = rows_of(table)
    row = rows["two", "auc"]
    assert (rows["one", "auc"].mean_of, row.mean_of) == ("3 x 4 folds", "11 folds of 3 repeats")
    assert (row.runs, row.unit, row.units) == (11, "patient", 20)  # a patient is one unit, in however many repeats
    del two[5], one[5]
    areas = [[roc_auc_score(run.labels, run.probabilities[:, 1]) for run in runs] for runs in (one, two)]
    assert row.mean == pytest.approx(statistics.mean(areas[1]), abs=1e-12)
    assert row.std == pytest.approx(statistics.stdev(areas[1]), abs=1e-12)
    assert row.difference == pytest.approx(statistics.mean(areas[1]) - statistics.mean(areas[0]), abs=1e-12)
    assert (row.low, row.high) == bootstrap_interval(two, METRICS["auc"], samples=50)
    found = arm_difference([two], [one], METRICS["auc"], samples=50)
    assert (row.difference_low, row.difference_high, row.detectable) == (found.low, found.high, found.detectable)
    text = " ".join(as_text(table).split())
    assert "40 test images of 20 patients in 4 folds, repeated 3 times" in text
    assert "two: compared with one on the folds that both have, 0, 1, 2, 3 of repeat 0; 0, 2, 3 of repeat 1; 0," in text
    assert "LIDC SwAV HASH-6 (probe)" in text
    assert "Of repeated folds a unit is drawn once" in text


def test_baseline_and_tasks(tmp_path: Path) -> None:
    both = (("a", ALL), ("b", HASH6))
    covid, brain = (
        [
            write_evaluation(tmp_path / name / task, noisy(1, 1, seed=n), task=full, labels=labels)
            for n, (name, labels) in enumerate(both)
        ]
        for task, full in (("covid", "COVID-19"), ("brain", "Brain"))
    )
    folders = [covid[0], brain[0], covid[1], brain[1]]
    options: dict[str, Any] = {"samples": 5, "metrics": ["auc"]}

    def baselines(table: Table) -> dict[str, str]:
        return {row.evaluation: row.baseline for task in table.tasks for row in task.rows if row.baseline}

    assert baselines(make_table(folders, **options)) == {"b/covid": "a/covid", "b/brain": "a/brain"}
    table = make_table(folders, baseline=brain[1], **options)
    assert baselines(table) == {"b/covid": "a/covid", "a/brain": "b/brain"}
    one, other = rows_of(make_table(brain, **options))["b/brain", "auc"], rows_of(table)["a/brain", "auc"]
    assert one.difference == -other.difference
    assert one.difference_low == pytest.approx(-other.difference_high)
    added = make_table([covid[1]], baseline=covid[0], **options)  # a line of its own
    assert list(rows_of(added)) == [("a/covid", "auc"), ("b/covid", "auc")]
    with pytest.raises(ValueError, match=r"compare with the baseline .*brain, found none of Brain; add one"):
        make_table(covid, baseline=brain[0], **options)


def test_other_test_images_are_not_compared(tmp_path: Path) -> None:
    folders = [
        write_evaluation(tmp_path / "a", noisy(1, 2, seed=0)),
        write_evaluation(tmp_path / "b", noisy(1, 2, seed=1, prefix="j")),
        write_evaluation(tmp_path / "c", noisy(1, 2, seed=1), numbers=[5, 6]),
        write_evaluation(tmp_path / "d", noisy(1, 2, seed=1), folds=True),
    ]
    table = make_table(folders, samples=5, baseline=folders[0])
    rows = rows_of(table)
    assert [name for name in "abcd" if not math.isnan(rows[name, "auc"].difference)] == ["c"]  # whatever its numbers
    assert table.tasks[0].notes == (
        "b: not compared with a, which has other test images; their means are not comparable either.",
        "d: not compared with a, with which it has no fold in common.",
    )


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
    assert make_table(same, metrics=["auc"], samples=49).tasks[0].notes[:-1] == (f"all: {words}",)
    slices = {"policy": "warn", "checked": True, "near": 2, "pretraining_near": 4}
    other = write_evaluation(tmp_path / "three", noisy(1.0, 2, seed=3), leakage=slices)
    assert make_table([*same, other], metrics=["auc"], samples=49).tasks[0].notes[:-1] == (
        f"all: {words}",
        "three: shared with the pre-training set: near 4; see leakage.csv of the runs.",
    )
    clean = write_evaluation(tmp_path / "four", noisy(1.0, 2, seed=3), leakage={"policy": "warn", "checked": True})
    assert make_table([*same, clean], metrics=["auc"], samples=49).tasks[0].notes[:-1] == (f"one, two: {words}",)


def test_evaluations_are_named_within_their_task(tmp_path: Path) -> None:
    folders = [
        write_evaluation(tmp_path / "brain" / "scratch", noisy(1.0, 2, seed=3), task="Brain"),
        write_evaluation(tmp_path / "covid" / "scratch", noisy(1.0, 2, seed=3)),
        write_evaluation(tmp_path / "again" / "scratch", noisy(1.0, 2, seed=4)),
    ]
    table = make_table(folders, metrics=["auc"], samples=5)
    names = [[row.evaluation for row in task.rows] for task in table.tasks]
    assert names == [["scratch"], ["covid/scratch", "again/scratch"]]
