"""Evaluation folders: read as they are, refused where their runs should not be averaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lessismore_transforms.classification.finished_runs import (
    comparable_settings,
    evaluations_in,
    read_finished_runs,
)
from lessismore_transforms.classification.metrics import score
from lessismore_transforms.classification.predictions import Predictions


def write_run(
    folder: Path,
    run: int = 0,
    labels: Any = (0, 0, 1, 1),
    p: Any = (0.1, 0.6, 0.4, 0.9),
    ids: str = "dcba",
    **changes: Any,
) -> Path:
    """A run as a bundle leaves it: four test images, two of each class, and one for validation."""
    path = folder / f"run_{run:02d}"
    path.mkdir(parents=True)
    probabilities = np.stack([1 - np.array(p), np.array(p)], axis=1)
    labels = np.array(labels, dtype=np.int64)
    Predictions(
        [*ids, "v"],
        [""] * 5,
        ["test"] * 4 + ["val"],
        np.append(labels, 0),
        np.concatenate([probabilities, [[0.5, 0.5]]]),
    ).write(path / "predictions.csv")
    record = {
        "format": 1,
        "task": "COVID-19",
        "classes": ["COVID", "NonCOVID"],
        "positive": 1,
        "run": run,
        "mode": "finetune",
        "experiment": {"pretrain_dataset": "LIDC", "ssl_method": "SwAV", "reduction": "HASH-6"},
        "weights": {"method": "swav", "id": "0123456789abcdef", "epoch": 800},
        "test": score(labels, probabilities),
        "settings": {"seed": run, "run_index": run, "output_dir": str(folder), "learning_rate": 1e-4, "workers": run},
    }
    record |= changes
    (path / "metrics.json").write_text(json.dumps(record))
    return path


def change(path: Path, key: str, value: Any, *keys: str) -> None:
    """Put another value into a metrics.json."""
    file = path / "metrics.json"
    record = part = json.loads(file.read_text())
    for name in keys:
        part = part[name]
    part[key] = value
    file.write_text(json.dumps(record))


def test_runs_are_read_by_number_with_images_in_alphabetical_order(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 2)
    write_run(tmp_path / "a", 0, p=(0.2, 0.3, 0.7, 0.8))
    (tmp_path / "a" / "run_01").mkdir()
    found = read_finished_runs(tmp_path / "a")
    assert (found.task, found.classes, found.positive, found.mode) == ("COVID-19", ("COVID", "NonCOVID"), 1, "finetune")
    assert found.labels == ("LIDC", "SwAV", "HASH-6")
    assert found.unfinished == ("run_01",)
    assert list(found.runs) == [0, 2]
    assert found.runs[2].image_ids == ["a", "b", "c", "d"]
    assert found.runs[2].labels.tolist() == [1, 1, 0, 0]
    assert found.runs[2].probabilities[:, 1].tolist() == [0.9, 0.4, 0.6, 0.1]
    assert found.folds == {}
    change(tmp_path / "a" / "run_00", "calibrated", {"temperature": 1.2}, "test")  # of a newer version
    assert list(read_finished_runs(tmp_path / "a").runs) == [0, 2]


def test_folds_have_test_sets_of_their_own(tmp_path: Path) -> None:
    for fold, ids in enumerate(("abcd", "efgh", "abcd")):
        write_run(tmp_path / "a", fold, ids=ids, settings={"fold": fold % 2})
    assert read_finished_runs(tmp_path / "a").folds == {0: (0, 0), 1: (0, 1), 2: (0, 0)}
    write_run(tmp_path / "a", 3, ids="efgi", settings={"fold": 1})
    with pytest.raises(
        ValueError, match=r"same test set in all runs of .*a, found other test images in run 3 than in run 1"
    ):
        read_finished_runs(tmp_path / "a")


def test_each_repeat_deals_the_pictures_into_folds_anew(tmp_path: Path) -> None:
    for run, ids in enumerate(("abcd", "efgh", "abef", "cdgh")):
        write_run(tmp_path / "a", run, ids=ids, settings={"fold": run % 2, "folds": 2, "repeat": run // 2})
    assert read_finished_runs(tmp_path / "a").folds == {0: (0, 0), 1: (0, 1), 2: (1, 0), 3: (1, 1)}
    write_run(tmp_path / "a", 4, ids="cdgi", settings={"fold": 1, "folds": 2, "repeat": 1})
    with pytest.raises(ValueError, match="found other test images in run 4 than in run 3"):
        read_finished_runs(tmp_path / "a")


def test_a_folder_stands_for_the_evaluations_below_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("c", "a", "deep/b"):
        write_run(tmp_path / name)
    (tmp_path / "begun" / "run_00").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in evaluations_in(tmp_path)]
    assert found == ["a", "c", "deep/b"]
    assert caplog.messages == [f"{tmp_path / 'begun'} has no finished run and is left out"]
    for alone in ("a", "begun", "other", "missing", "a/run_00"):
        assert evaluations_in(tmp_path / alone) == [tmp_path / alone]


@pytest.mark.parametrize(
    ("key", "value", "keys", "words"),
    [
        ("task", "Brain", (), "task 'COVID-19' in run_00 and 'Brain' in run_01"),
        ("classes", ["COVID", "other"], (), r"classes \['COVID', 'NonCOVID'\] in run_00 and \['COVID', 'other'\]"),
        ("positive", 0, (), "positive 1 in run_00 and 0 in run_01"),
        ("mode", "linear", (), "mode 'finetune' in run_00 and 'linear' in run_01"),
        ("learning_rate", 2e-5, ("settings",), "learning_rate 0.0001 in run_00 and 2e-05 in run_01"),
        ("flip", 0.0, ("settings",), "flip None in run_00 and 0.0 in run_01"),
        ("id", "fedcba9876543210", ("weights",), "weights id '0123456789abcdef' in run_00 and 'fedcba9876543210'"),
        ("reduction", "ALL", ("experiment",), "reduction 'HASH-6' in run_00 and 'ALL' in run_01"),
    ],
)
def test_runs_of_two_settings(tmp_path: Path, key: str, value: Any, keys: tuple[str, ...], words: str) -> None:
    for run in range(2):
        write_run(tmp_path / "a", run)
    read_finished_runs(tmp_path / "a")
    change(tmp_path / "a" / "run_01", key, value, *keys)
    with pytest.raises(ValueError, match=f"expected runs of one setting in .*a, found {words}.*; keep each") as caught:
        read_finished_runs(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_runs_of_versions_without_a_setting_had_it_off(tmp_path: Path) -> None:
    for run, settings in enumerate(({}, {"crop": 1.0, "learning_rate_schedule": "constant", "step_epochs": None})):
        write_run(tmp_path / "a", run, settings=settings)
    assert comparable_settings(read_finished_runs(tmp_path / "a"))["crop"] == 1.0
    change(tmp_path / "a" / "run_01", "crop", 0.5, "settings")
    with pytest.raises(ValueError, match=r"found crop 1\.0 in run_00 and 0\.5 in run_01"):
        read_finished_runs(tmp_path / "a")


def test_networks_scored_again_have_weights_of_their_own(tmp_path: Path) -> None:
    for run, key in enumerate(("0123456789abcdef", "fedcba9876543210")):
        weights = {"method": None, "id": key, "epoch": 31 + run}
        write_run(tmp_path / "a", run, rescored=True, weights=weights, settings={"weights": f"run_0{run}/model"})
    assert list(read_finished_runs(tmp_path / "a").runs) == [0, 1]
    change(tmp_path / "a" / "run_01", "id", "0123456789abcdef", "weights")
    with pytest.raises(
        ValueError, match=r"another network in each run of .*a, found the same one in run_00 and run_01"
    ):
        read_finished_runs(tmp_path / "a")
    for run in range(2):
        change(tmp_path / "a" / f"run_0{run}", "rescored", False)
    with pytest.raises(ValueError, match="found weights epoch 31 in run_00 and 32 in run_01"):
        read_finished_runs(tmp_path / "a")


def test_what_is_no_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    for folder, found in (
        (tmp_path / "none", f"nothing at {tmp_path / 'none'}; fix the path"),
        (tmp_path, f"{tmp_path}; fix the path"),
        (run, f"{run}; name its parent {tmp_path / 'a'}"),
    ):
        with pytest.raises(ValueError, match=f"folder that holds run_00 and so on, found {found}"):
            read_finished_runs(folder)
    (tmp_path / "b" / "run_00").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"finished run in .*b, found run_00 without metrics.json; let one finish"):
        read_finished_runs(tmp_path / "b")


def test_damaged_runs(tmp_path: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(ValueError, match=words):
            read_finished_runs(tmp_path / "a")

    run = write_run(tmp_path / "a")
    change(run, "classes", ["a", "b", "c"])
    refused("expected 3 classes in .*predictions.csv, found 2")
    change(run, "classes", ["COVID", "NonCOVID"])
    change(run, "auc", 0.7506, "test")
    refused(r"same run in .*run_00, found test auc 0.7506 and 0.7500")
    change(run, "auc", None, "test")
    refused("found test auc None and 0.7500")
    change(run, "auc", 0.7504, "test")  # the same on the page
    assert len(read_finished_runs(tmp_path / "a").runs) == 1
    shutil.copytree(run, run.with_name("run_01"))
    refused("expected each run once in .*a, found run 0 in two folders")
    shutil.rmtree(run.with_name("run_01"))
    write_run(tmp_path / "a", 1, labels=(1, 0, 1, 0), p=(0.6, 0.1, 0.7, 0.2))
    refused("found other labels of the test images in run 1 than in run 0")
    change(run, "weights", None)
    refused("found one without weights")
    (run / "metrics.json").write_text("{")
    refused("expected JSON in .*metrics.json, found a damaged file")
