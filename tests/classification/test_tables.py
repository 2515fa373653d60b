"""Tables: numbers by hand and by scikit-learn, the paper's beside them, files, and what is told below them."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from lessismore_transforms.classification.metrics import METRICS, score
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import bootstrap_interval, delong_test, holm, permutation_test
from lessismore_transforms.classification.tables import Row, Table, as_text, make_table, write_table
from lessismore_transforms.cli.main import main

CLASSES = {"COVID-19": ["COVID", "NonCOVID"], "Brain": ["without", "with"], "OrgMNIST": [f"c{n}" for n in range(11)]}
SCRATCH = ("none", "none", "none")
HASH6 = ("LIDC", "SwAV", "HASH-6")


def write_evaluation(
    folder: Path,
    runs: list[Predictions],
    *,
    task: str = "COVID-19",
    labels: tuple[str | None, ...] = SCRATCH,
    mode: str = "finetune",
    **changes: Any,
) -> Path:
    """A folder of runs; `folds=True` makes them folds, `numbers` are those of the runs."""
    folds, numbers = changes.pop("folds", False), changes.pop("numbers", range(len(runs)))
    for number, run in zip(numbers, runs, strict=True):
        path = folder / f"run_{number:02d}"
        path.mkdir(parents=True)
        run.write(path / "predictions.csv")
        record = {
            "task": task,
            "classes": CLASSES.get(task, ["no", "yes"]),
            "positive": 1,
            "run": number,
            "mode": "scratch" if labels == SCRATCH else mode,
            "experiment": dict(zip(("pretrain_dataset", "ssl_method", "reduction"), labels, strict=True)),
            "weights": {"method": None, "id": None, "epoch": None},
            "leakage": {"policy": "warn", "checked": True, "patients": None, "near": 0},
            "settings": {"fold": number} if folds else {},
        } | changes
        record["test"] = score(run.labels, run.probabilities, positive=record["positive"])
        (path / "metrics.json").write_text(json.dumps(record))
    return folder


def predictions(labels: Any, scores: NDArray[np.float64], prefix: str = "i", patients: Any = None) -> Predictions:
    """Of softmax(scores), scores (N,) or (N, C), as a file would hold them."""
    scores = np.stack([0 * scores, scores], axis=1) if scores.ndim == 1 else scores
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    p = np.vectorize(lambda value: float(f"{value:.9g}"))(p)
    count = len(p)
    names = [f"{prefix}{place:03d}" for place in range(count)]
    return Predictions(names, list(patients or [""] * count), ["test"] * count, np.asarray(labels, np.int64), p)


def noisy(gain: float, count: int, *, seed: int, size: int = 40, **options: Any) -> list[Predictions]:
    """Runs of one network: half of the images of each class, scores that differ by a gain."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 2
    return [predictions(labels, gain * labels + rng.normal(size=size) - gain / 2, **options) for _ in range(count)]


def rows_of(table: Table) -> dict[tuple[str, str], Row]:
    return {(row.evaluation, row.metric): row for task in table.tasks for row in task.rows}


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
    assert text.startswith("COVID-19: 4 test images (patients not known); F1 is of class 'NonCOVID'\n")
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
    assert "Brain: 100 test images (patients not known) in 5 folds\n" in text
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


class _Cells(HTMLParser):
    """The text of the cells of all tables, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.lines.append([])
        self.inside = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.lines[-1].append(data)


def test_files_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_evaluation(tmp_path / "scratch", noisy(0.5, 2, seed=0))
    two = write_evaluation(tmp_path / "a|<b>", noisy(2, 2, seed=1), labels=HASH6)
    arguments = ["table", str(one), str(two), "--paper", "--samples", "99", "--metrics", "auc", "accuracy"]
    outputs = {}
    for suffix in ("csv", "md", "html"):
        outputs[suffix] = tmp_path / f"table.{suffix}"
        assert main([*arguments, "--output", str(outputs[suffix])]) == 0
        screen = capsys.readouterr().out
    assert screen.endswith(f"\ntable: {tmp_path / 'table.html'}\n")
    table = make_table([one, two], metrics=["auc", "accuracy"], paper=True, samples=99)
    assert screen.startswith(as_text(table))

    with outputs["csv"].open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = list(rows_of(table).values())
    assert [(line["evaluation"], line["metric"]) for line in lines] == [(row.evaluation, row.metric) for row in rows]
    assert [float(line["mean"]) for line in lines] == [row.mean for row in rows]  # all digits
    assert [line["p"] for line in lines[:2]] == ["", ""]
    assert [float(line["p_holm"]) for line in lines[2:]] == [row.p_holm for row in rows[2:]]
    assert [line["paper_mean"] for line in lines] == ["0.737", "0.673", "0.823", "0.755"]

    parser = _Cells()
    parser.feed(outputs["html"].read_text(encoding="utf-8"))
    first = rows[2]
    assert parser.lines[2][:4] == ["a|<b>", "LIDC SwAV HASH-6", "2", f"{first.mean:.3f} ± {first.std:.3f}"]
    markdown = outputs["md"].read_text(encoding="utf-8").splitlines()
    assert markdown[0] == "**COVID-19: 40 test images (patients not known)**"
    assert markdown[2] == "| evaluation | pre-training | runs | AUC | paper | accuracy | paper |"
    assert markdown[3] == "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    assert markdown[5].startswith("| a&#124;<b> | LIDC SwAV HASH-6 | 2 | ")
    assert all(line.count("|") == 8 for line in markdown[2:6])
    assert markdown[-1].startswith("- paper: Wolf et al. 2024")


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_evaluation(tmp_path / "a", noisy(1, 1, seed=0))
    swapped = write_evaluation(tmp_path / "b", noisy(1, 1, seed=0), classes=["NonCOVID", "COVID"])
    positive = write_evaluation(tmp_path / "c", noisy(1, 1, seed=0), positive=0)
    for arguments, words in (
        ([one, one], f"expected each evaluation once, found {one} twice; drop one of them"),
        ([one, swapped], "the same classes in all evaluations of COVID-19, found ('COVID', 'NonCOVID') in a and"),
        ([one, positive], "the same positive in all evaluations of COVID-19, found 1 in a and 0 in c"),
        ([one, "--metrics", "AUC"], "expected metrics of auc, accuracy, f1_macro, f1_micro, f1, found AUC"),
        ([one, "--samples", "0"], "1000 is usual"),
        ([one, "--output", "table.xlsx"], "expected a file that ends in .csv, .md, .html, found table.xlsx"),
        ([one, "--output", tmp_path / "no" / "t.md"], f"expected a folder for t.md, found none at {tmp_path / 'no'}"),
        ([tmp_path / "x"], f"found {tmp_path / 'x'}; fix the path"),
    ):
        assert main(["table", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: expected ")
        assert err.count("\n") == 1
        assert words in err
    with pytest.raises(ValueError, match="expected the folders of evaluations, found none"):
        make_table([])
    with pytest.raises(ValueError, match="ends in"):
        write_table(make_table([one], samples=2), tmp_path / "table.txt")


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


def test_settings_that_are_not_the_papers_and_data_that_are_not_stand_below_the_table(tmp_path: Path) -> None:
    other = {"settings": {"backbone": "resnet18", "image_size": 224, "max_epochs": 3}}
    covid = write_evaluation(tmp_path / "covid", noisy(1.0, 2, seed=3), **other)
    brain = write_evaluation(tmp_path / "brain", noisy(1.0, 2, seed=3), task="Brain")
    text = " ".join(as_text(make_table([covid, brain], metrics=["auc"], samples=20, paper=True)).split())
    assert "covid: unlike the paper in backbone resnet18 instead of resnet50, max epochs 3 instead of 70." in text
    assert "the paper's pictures of Brain are not public: its numbers are of other data." in text
    assert "brain: unlike" not in text
