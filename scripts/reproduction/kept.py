"""What the probes of an experiment found, in a form that is small enough to be kept for good.

NAME.jsonl             a line for each network and set of pictures, appended seed by seed: AUC of each fold, and the
                       probability of each picture in the fold that it was tested in; a line for each pre-training
NAME_pictures.json     for each set of pictures label, unit (patient, source or group) and fold, as numbers in one order

Nothing else is needed for tables, intervals and figures. Weights, pictures, and names of pictures are not there.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lessismore_transforms import __version__
from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.classification.finished_runs import FinishedRuns, read_finished_runs
from lessismore_transforms.classification.metrics import auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.units import unit_of, units
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.options import names
from lessismore_transforms.pretraining.settings import PretrainingSettings
from lessismore_transforms.training.curves import read_log
from reproduction.places import ROOT

_DIGITS = 5  # of a probability


@dataclass(frozen=True)
class Kept:
    """What was kept of an experiment.

    Args:
        path: NAME.jsonl.
    """

    path: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines.

        Raises:
            UserError: the file is damaged.
        """
        if not self.path.is_file():
            return []
        with reading(self.path):
            texts = self.path.read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(text) for text in texts]
        except ValueError as error:
            raise UserError(f"expected a JSON object in each line of {self.path}, found another: {error}") from error

    @property
    def pictures(self) -> dict[str, dict[str, Any]]:
        """Labels, units and folds of each set of pictures."""
        path = self._table
        if not path.is_file():
            return {}
        with reading(path):
            found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return found

    @property
    def _table(self) -> Path:
        return self.path.with_name(f"{self.path.stem}_pictures.json")

    def identities(self) -> dict[str, str]:
        """The identity of each step whose results are here, by name."""
        return {line["step"]: line["identity"] for line in self.lines}

    def add_probe(self, step: str, identity: str, seconds: float, output: Path) -> None:
        """Append what a probe found: a line for each of its networks.

        Args:
            step: name of the step, which ends with the seed of a pre-training.
            identity: of its settings and all that it was made from.
            seconds: that the probe took.
            output: its folder.
        """
        _, name, networks = step.split("/")
        seed = int(networks.rpartition("_seed")[2]) if "_seed" in networks else None
        found = {folder.name: read_finished_runs(folder) for folder in sorted((output / "logistic").iterdir())}
        for runs in found.values():
            leaked = {kind: n for kind, n in (runs.leaks or {}).items() if kind.startswith("pretraining") and n}
            if leaked:
                raise UserError(
                    f"expected no picture of {name} that was pre-trained on, found {leaked} in {output}: take these "
                    "pictures or volumes away"
                )
        table, order = _pictures(next(iter(found.values())))
        self._add_pictures(name, table)
        lines = [
            {
                "step": step,
                "identity": identity,
                "pictures": name,
                "network": network,
                "seed": seed,
                **_code(),
                "seconds": round(seconds, 1),
                "leaks": runs.leaks,
                "auc": [round(float(auc(run.labels, run.probabilities)), 6) for run in runs.runs.values()],
                "p": _scores(runs, order),
            }
            for network, runs in found.items()
        ]
        self._append(lines)

    def add_pretraining(self, step: str, identity: str, seconds: float, output: Path) -> None:
        """Append what became of a pre-training."""
        losses = [round(float(line["loss"]), 4) for line in read_log(output) if "loss" in line]
        config = json.loads((output / "config.json").read_text(encoding="utf-8"))
        line = {"step": step, "identity": identity, **_code(), "seconds": round(seconds, 1), "loss": losses}
        told = names(PretrainingSettings, "identity", "setting")  # no path: it may hold a name
        self._append(
            [line | {"settings": {name: config["settings"][name] for name in told if name in config["settings"]}}]
        )

    def runs(self, line: Mapping[str, Any]) -> list[Predictions]:
        """The test predictions of a network, fold by fold."""
        table = self.pictures[line["pictures"]]
        found = []
        for folds, p in zip(table["folds"], line["p"], strict=True):
            values = np.asarray(p, float)
            probabilities = values if values.ndim == 2 else np.stack([1 - values, values], axis=1)
            for fold in sorted(set(folds)):
                rows = [row for row, each in enumerate(folds) if each == fold]
                names = [f"{row}" for row in rows]
                sources = [f"{table['units'][row]}" for row in rows]
                labels = np.array([table["labels"][row] for row in rows])
                found.append(
                    Predictions(names, [""] * len(rows), ["test"] * len(rows), labels, probabilities[rows], sources)
                )
        return found

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            old = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        new = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines)
        with atomic_write(self.path) as file:
            file.write(old + new)

    def _add_pictures(self, name: str, table: Mapping[str, Any]) -> None:
        tables = self.pictures
        if tables.get(name, table) != table:
            raise UserError(
                f"expected the same pictures, folds and units of {name} as in {self._table}, found others: keep the "
                "results of this experiment under another name"
            )
        if name not in tables:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._table) as file:
                file.write(json.dumps({**tables, name: table}, separators=(",", ":")) + "\n")


def _pictures(found: FinishedRuns) -> tuple[dict[str, Any], dict[str, int]]:
    """Labels, units and folds of pictures as numbers, and the place of each picture in them."""
    runs = list(found.runs.values())
    numbers, _ = units(runs)
    unit: dict[str, int] = {}
    label: dict[str, int] = {}
    repeats: dict[int, dict[str, int]] = {}
    for (number, run), of in zip(found.runs.items(), numbers, strict=True):
        where = found.folds.get(number)
        unit |= dict(zip(run.image_ids, of.tolist(), strict=True))
        label |= dict(zip(run.image_ids, run.labels.tolist(), strict=True))
        repeat, fold = (0, 0) if where is None else where
        repeats.setdefault(repeat, {}).update(dict.fromkeys(run.image_ids, fold))
    names = sorted(label)
    table = {
        "classes": list(found.classes),
        "unit": unit_of(runs),
        "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "labels": [label[name] for name in names],
        "units": [unit[name] for name in names],
        "folds": [[repeats[repeat][name] for name in names] for repeat in sorted(repeats)],
    }
    return table, {name: place for place, name in enumerate(names)}


def _scores(found: FinishedRuns, order: Mapping[str, int]) -> list[Any]:
    """For each repeat the probability of each picture: of the second class, or of each of several."""
    repeats: dict[int, list[Any]] = {}
    for number, run in found.runs.items():
        where = found.folds.get(number)
        scores = repeats.setdefault(0 if where is None else where.repeat, [None] * len(order))
        two = run.probabilities.shape[1] == 2
        values = run.probabilities[:, 1] if two else run.probabilities
        for name, value in zip(run.image_ids, np.round(values, _DIGITS).tolist(), strict=True):
            scores[order[name]] = value
    return [repeats[repeat] for repeat in sorted(repeats)]


def _code() -> dict[str, str]:
    """The version of the code, and its commit where it is a checkout."""
    ask: Sequence[str] = ("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    try:
        commit = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {"version": __version__}
    return {"version": __version__, "commit": commit}
