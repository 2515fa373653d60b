"""Folders of evaluations with invented predictions, for tests of comparisons and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.classification.comparison import Row, Table
from lessismore_transforms.classification.metrics import score
from lessismore_transforms.classification.predictions import Predictions

CLASSES = {"COVID-19": ["COVID", "NonCOVID"], "Brain": ["without", "with"], "OrgMNIST": [f"c{n}" for n in range(11)]}
SCRATCH = ("none", "none", "none")
ALL = ("LIDC", "SwAV", "ALL")
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
    """A folder of runs; `folds=True` makes them folds, `repeats=3` those of three repeats, `numbers` are the runs' own.

    `weights` is the id of the pre-trained weights; `epoch` and `iteration` are those of the pre-training.
    """
    folds, numbers = changes.pop("folds", False), changes.pop("numbers", range(len(runs)))
    repeats = changes.pop("repeats", 1)
    weights = {"method": None, "id": changes.pop("weights", None)}
    weights |= {name: changes.pop(name, None) for name in ("epoch", "iteration")}
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
            "weights": weights,
            "leakage": {"policy": "warn", "checked": True, "patients": None, "near": 0},
            "settings": _fold(number, repeats, len(runs) // repeats) if folds or repeats > 1 else {},
        } | changes
        record["test"] = score(run.labels, run.probabilities, positive=record["positive"])
        (path / "metrics.json").write_text(json.dumps(record))
    return folder


def _fold(number: int, repeats: int, folds: int) -> dict[str, int]:
    """The settings of a fold; those of earlier versions tell no repeat."""
    return {"fold": number} if repeats == 1 else {"fold": number % folds, "repeat": number // folds}


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
    """By arm and metric; of several comparisons the last."""
    return {(row.evaluation, row.metric): row for task in table.tasks for row in task.rows}
