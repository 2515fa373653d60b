"""Read the runs of an evaluation back, and refuse folders whose runs should not be averaged.

An evaluation is a folder with the runs (or folds) of one setting: run_00/metrics.json, run_00/predictions.csv, ...
Folds may be repeated: each repeat deals the same pictures anew, so that a picture is tested once in each of them.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lessismore_transforms.classification.metrics import METRICS
from lessismore_transforms.classification.paper import Setting
from lessismore_transforms.classification.predictions import PREDICTIONS, Predictions
from lessismore_transforms.classification.settings import OFF, ClassificationSettings
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.options import names

METRICS_FILE = "metrics.json"
FROZEN = ("linear", "probe")  # modes in which the encoder does not train
_LOGGER = logging.getLogger("lessismore_transforms")
_SAME_DIGITS = 5e-4  # between metrics.json and predictions.csv: half of the last digit that a table shows
# Settings in which the runs of one evaluation may differ: which run it is, where its files lie, how fast it went, and
# what is compared by itself (weights by their id, labels as experiment).
FREE = {
    *names(ClassificationSettings, "run", "path", "speed", "report", "label"),
    *("fold", "repeat", "labels", "download"),  # of single tasks
    *("weights", "processes"),
}
LEAKS = (  # what `leakage.Leakage.summary` counts, but for pictures that are too small to be compared
    *("patients", "sources", "exact", "two_labels", "near"),
    *("pretraining_patients", "pretraining_exact", "pretraining_near"),
)
OF_FOLDS = ("fold", "folds", "repeat")  # settings that an official split does not have
_PARTS = {
    "task": str,
    "classes": list,
    "positive": int,
    "run": int,
    "mode": str,
    "experiment": dict,
    "weights": dict,
    "test": dict,
    "settings": dict,
}


class Fold(NamedTuple):
    """Which test set of a cross-validation a run has.

    Attributes:
        repeat: number of the partition into folds, from 0; of folds that are not repeated it is 0.
        fold: number within it.
    """

    repeat: int
    fold: int


@dataclass(frozen=True, eq=False)
class FinishedRuns:
    """The finished runs of one setting.

    Args:
        folder: that holds run_00, run_01, ...
        task: as in the paper's tables.
        classes: names, by label.
        positive: the label of the class of F1 where there are two classes.
        mode: finetune, linear or scratch.
        rescored: whether trained networks were scored again.
        labels: of the setting in the paper's tables (see `paper.Setting`), each None where it was not given.
        runs: predictions of the test split by number of the run, images in alphabetical order.
        folds: the fold of each run, and of which repeat, where the task has folds.
        unfinished: names of runs without metrics.json.
        settings: of the first run, such as backbone and image_size.
        weights: ids of the pre-trained weights, each None where it is not known or there are none.
        epochs: of the pre-training, of those weights.
        iterations: of the pre-training; checkpoints within one epoch differ in them only.
        leaks: number of leaks of each kind that the leakage gate found, the largest of all runs; None where a run was
            not checked.
    """

    folder: Path
    task: str
    classes: tuple[str, ...]
    positive: int
    mode: str
    rescored: bool
    labels: tuple[str | None, ...]
    runs: dict[int, Predictions]
    folds: dict[int, Fold]
    unfinished: tuple[str, ...]
    settings: dict[str, Any]
    weights: frozenset[str | None]
    epochs: frozenset[int | None]
    iterations: frozenset[int | None]
    leaks: dict[str, int] | None


def evaluations_in(folder: Path) -> list[Path]:
    """The evaluations that a folder stands for: itself, or those below it, one level or two, in alphabetical order.

    One below it without a finished run is left out with a warning. A folder that holds none stands for itself, and is
    refused by whoever reads it.

    Raises:
        UserError: the folder cannot be read.
    """
    with reading(folder):
        if any(folder.glob("run_*/")) or not folder.is_dir():
            return [folder]
        runs = [path for depth in ("*", "*/*") for path in folder.glob(f"{depth}/run_*") if path.is_dir()]
        found = sorted({path.parent for path in runs})
        finished = {path.parent for path in runs if (path / METRICS_FILE).is_file()}
    for path in found:
        if path not in finished and finished:
            _LOGGER.warning("%s has no finished run and is left out", path)
    return [path for path in found if path in finished] or [folder]


def read_finished_runs(folder: Path | str) -> FinishedRuns:
    """Read the finished runs of an evaluation and check that they are of one setting.

    Raises:
        UserError: the folder holds no finished run, a damaged one, one twice, or runs of several settings.
    """
    folder = Path(folder)
    with reading(folder):
        paths = sorted(path for path in folder.glob("run_*") if path.is_dir())
        finished = [path for path in paths if (path / METRICS_FILE).is_file()]
        itself = (folder / METRICS_FILE).is_file()
    if not paths:
        hint = f"name its parent {folder.parent}" if itself else "fix the path"
        found = f"{folder}" if folder.exists() else f"nothing at {folder}"
        raise UserError(f"expected an evaluation, the folder that holds run_00 and so on, found {found}; {hint}")
    if not finished:
        raise UserError(
            f"expected a finished run in {folder}, found {', '.join(path.name for path in paths)} without "
            f"{METRICS_FILE}; let one finish"
        )
    return _read(folder, finished, tuple(path.name for path in paths if path not in finished))


def read_chosen_runs(paths: Sequence[Path]) -> FinishedRuns:
    """Read finished runs out of several folders, each with the checkpoint of one pre-training that was chosen for it.

    Args:
        paths: run_00 and so on of one setting; they may differ in their pre-trained weights.

    Raises:
        UserError: a run is damaged, is there twice, or is of another setting.
    """
    return _read(paths[0].parent, list(paths), (), chosen=True)


def comparable_settings(evaluation: FinishedRuns) -> dict[str, Any]:
    """The settings that decide what comes out of an evaluation, but for its weights and labels."""
    return _decisive(evaluation.settings)


def _read(folder: Path, finished: Sequence[Path], unfinished: tuple[str, ...], *, chosen: bool = False) -> FinishedRuns:
    """Finished runs of one setting; chosen ones may have other pre-trained weights each."""
    records = {path: _record(path / METRICS_FILE) for path in finished}
    _check_one_setting(records, chosen)
    _check_several_networks(records)
    numbers = [record["run"] for record in records.values()]
    if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise UserError(f"expected each run once in {folder}, found run {twice[0]} in two folders; remove one of them")
    runs = {record["run"]: _test_predictions(path, record) for path, record in records.items()}
    folds = {record["run"]: fold for record in records.values() if (fold := _fold(record["settings"])) is not None}
    _check_test_sets(folder, runs, folds)
    record = records[finished[0]]
    return FinishedRuns(
        folder=folder,
        task=record["task"],
        classes=tuple(record["classes"]),
        positive=record["positive"],
        mode=record["mode"],
        rescored=bool(record.get("rescored")),
        labels=tuple(record["experiment"].get(name) for name in Setting._fields),
        runs=dict(sorted(runs.items())),
        folds=folds,
        unfinished=unfinished,
        settings=record["settings"],
        weights=frozenset(each["weights"].get("id") for each in records.values()),
        epochs=frozenset(each["weights"].get("epoch") for each in records.values()),
        iterations=frozenset(each["weights"].get("iteration") for each in records.values()),
        leaks=_leaks([record.get("leakage") or {} for record in records.values()]),
    )


def difference(one: Predictions, other: Predictions) -> str:
    """The name of the first difference between two test sets with images in alphabetical order; "" if they are equal.

    Images are compared first, then their labels, patients and sources.
    """
    if one.image_ids != other.image_ids:
        return "test images"
    if not np.array_equal(one.labels, other.labels):
        return "labels of the test images"
    if one.patients != other.patients:
        return "patients of the test images"
    return "sources of the test images" if one.sources != other.sources else ""


def _record(path: Path) -> dict[str, Any]:
    """The content of a metrics.json, checked."""
    try:
        with reading(path):
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"expected JSON in {path}, found a damaged file ({error}); evaluate again") from error
    for key, expected_type in _PARTS.items():
        if not isinstance(record, dict) or not isinstance(record.get(key), expected_type):
            raise UserError(f"expected the {METRICS_FILE} of a run in {path}, found one without {key}; evaluate again")
    return record


def _leaks(summaries: Sequence[dict[str, Any]]) -> dict[str, int] | None:
    """The counts above 0 in the summaries (`leakage.Leakage.summary`) of all runs, each the largest of them."""
    if not all(summary.get("checked") for summary in summaries):
        return None
    found = {kind: max(summary.get(kind) or 0 for summary in summaries) for kind in LEAKS}
    return {kind: count for kind, count in found.items() if count}


def _check_one_setting(records: dict[Path, dict[str, Any]], chosen: bool) -> None:
    """Refuse runs that differ in task, classes, weights, labels or settings."""
    (first, record), *others = records.items()
    expected = _comparable(record, chosen)
    for path, other in others:
        found = _comparable(other, chosen)
        for key in expected | found:
            if expected.get(key) != found.get(key):
                raise UserError(
                    f"expected runs of one setting in {first.parent}, found {key} {expected.get(key)!r} in "
                    f"{first.name} and {found.get(key)!r} in {path.name}; keep each setting in a folder of its own"
                )


def _check_several_networks(records: dict[Path, dict[str, Any]]) -> None:
    """Refuse two runs in which the same trained network was scored again."""
    first: dict[str, Path] = {}
    for path, record in records.items():
        if record.get("rescored") and (before := first.setdefault(record["weights"].get("id"), path)) != path:
            raise UserError(
                f"expected another network in each run of {path.parent}, found the same one in {before.name} and "
                f"{path.name}; remove one of them"
            )


def _comparable(record: dict[str, Any], chosen: bool) -> dict[str, Any]:
    """The values that have to be equal in all runs of one evaluation, the best known first."""
    known = {key: record.get(key) for key in ("task", "classes", "positive", "mode", "rescored")}
    own = record.get("rescored")  # there each run has the weights that its training ended with
    left_out = record["weights"] if own else ("id", "epoch", "iteration") if chosen else ()
    weights = {f"weights {key}": value for key, value in record["weights"].items() if key not in left_out}
    settings = _decisive(record["settings"])
    return {**known, **record["experiment"], **weights, **settings}


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what comes out; those that earlier versions did not have are off."""
    return {**OFF, **{key: value for key, value in settings.items() if key not in FREE}}


def _test_predictions(path: Path, record: dict[str, Any]) -> Predictions:
    """The test predictions of a run in alphabetical order; their metrics have to equal those in metrics.json."""
    found = Predictions.read(path / PREDICTIONS).of("test")
    classes, expected = found.probabilities.shape[1], len(record["classes"])
    if classes != expected:
        raise UserError(f"expected {expected} classes in {path / PREDICTIONS}, found {classes}; evaluate again")
    for name in ("auc", "accuracy"):
        recorded, value = record["test"].get(name), METRICS[name](found.labels, found.probabilities)
        if (recorded is None) != math.isnan(value) or (recorded is not None and abs(recorded - value) > _SAME_DIGITS):
            raise UserError(
                f"expected {METRICS_FILE} and {PREDICTIONS} of the same run in {path}, found test {name} {recorded} "
                f"and {value:.4f}; evaluate again"
            )
    order = sorted(range(len(found.image_ids)), key=found.image_ids.__getitem__)
    return found.rows(order)


def _fold(settings: dict[str, Any]) -> Fold | None:
    """The fold that a run was, from its settings; None for a task without folds."""
    return None if settings.get("fold") is None else Fold(settings.get("repeat") or 0, settings["fold"])


def _check_test_sets(folder: Path, runs: dict[int, Predictions], folds: dict[int, Fold]) -> None:
    """Refuse runs without folds, or of the same fold of a repeat, that have different test sets."""
    first: dict[Fold | None, int] = {}
    for number, run in runs.items():
        before = first.setdefault(folds.get(number), number)
        if differing := difference(run, runs[before]):
            raise UserError(
                f"expected the same test set in all runs of {folder}, found other {differing} in run {number} than in "
                f"run {before}; evaluate them on the same data"
            )
