"""What the probes of an experiment found, in a form that is small enough to be kept for good.

NAME.jsonl             a line for each network and set of pictures, appended when its step ends: AUC of each fold, and
                       the probability of each picture in the fold that it was tested in; a line for each pre-training
NAME_pictures.json     for each set of pictures label, unit (patient, source or group) and fold, as numbers in one
                       order; each line of a probe holds the digest of its set

Nothing else is needed for tables, intervals and figures. Weights, pictures, and names of pictures are not there.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lessismore_transforms import __version__
from lessismore_transforms.atomic import atomic_write, lock, writing
from lessismore_transforms.classification.finished_runs import FinishedRuns, read_finished_runs
from lessismore_transforms.classification.metrics import auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.units import unit_of, units
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.options import names
from lessismore_transforms.pretraining.settings import PretrainingSettings
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.training.curves import read_log
from reproduction.places import ROOT

_DIGITS = 5  # of a probability
_AGAIN = "take both files from where they are whole, or keep the results anew with --keep"


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
        found: list[dict[str, Any]] = []
        if not self.path.is_file():
            return found
        with reading(self.path):
            texts = self.path.read_text(encoding="utf-8").splitlines()
        for number, text in enumerate(texts, 1):
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict) or not {"step", "identity", "of"} <= line.keys():
                raise UserError(
                    f"expected what a step found in line {number} of {self.path}, found {text[:60]!r}: take the file "
                    "from where it is whole, or delete the line to find it again"
                )
            found.append(line)
        return found

    @property
    def pictures(self) -> dict[str, dict[str, Any]]:
        """Labels, units and folds of each set of pictures."""
        path = self._table
        if not path.is_file():
            return {}
        with reading(path):
            text = path.read_text(encoding="utf-8")
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError(f"expected labels, units and folds of pictures in {path}, found no JSON: {_AGAIN}")
        return found

    @property
    def _table(self) -> Path:
        return self.path.with_name(f"{self.path.stem}_pictures.json")

    def identities(self) -> dict[str, str]:
        """The identity of each step all of whose results are here, by name."""
        lines = self.lines
        there = Counter(line["step"] for line in lines)
        return {line["step"]: line["identity"] for line in lines if there[line["step"]] == line["of"]}

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
        lines = [
            {
                "step": step,
                "identity": identity,
                "pictures": name,
                "pictures_sha256": _digest(table),
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
        with self._alone():
            self._add_pictures(name, table)
            self._append(lines)

    def add_pretraining(self, step: str, identity: str, seconds: float, output: Path) -> None:
        """Append what became of a pre-training.

        Raises:
            UserError: it was trained on other slices than an earlier one of the same selection.
        """
        losses = [round(float(line["loss"]), 4) for line in read_log(output) if "loss" in line]
        config = json.loads((output / "config.json").read_text(encoding="utf-8"))
        settings = config["settings"]
        line = {
            "step": step,
            "identity": identity,
            **_code(),
            "seconds": round(seconds, 1),
            "loss": losses,
            "selection": settings["selection"],
            "slices_sha256": slices_digest(Path(settings["dataset_dir"]), settings["selection"]),
        }
        told = names(PretrainingSettings, "identity", "setting")  # no path: it may hold a name
        with self._alone():
            for old in self.lines:
                if old.get("selection") == line["selection"] and old["slices_sha256"] != line["slices_sha256"]:
                    raise UserError(
                        f"expected {step} on the slices of {line['selection']} that {old['step']} in {self.path} was "
                        "trained on, found others: name the same volumes with --data, or another file with --keep"
                    )
            self._append([line | {"settings": {name: settings[name] for name in told if name in settings}}])

    def runs(self, line: Mapping[str, Any]) -> list[Predictions]:
        """The test predictions of a network, fold by fold.

        Raises:
            UserError: the table of its pictures is not the one that it was kept with.
        """
        table = self.pictures.get(line["pictures"], {})
        if _digest(table) != line["pictures_sha256"]:
            raise UserError(
                f"expected labels, units and folds of {line['pictures']} in {self._table} as {line['step']} was kept "
                f"with, found others: {_AGAIN}"
            )
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

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process writes here, and keep the others out."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.with_name(f".{self.path.name}.lock").open("w")
        with file:
            lock(file, self.path.parent, wait=True)
            yield

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        steps = {line["step"] for line in lines}
        old = [line for line in self.lines if line["step"] not in steps]  # not what is left of a damaged file
        whole = [*old, *({**line, "of": len(lines)} for line in lines)]
        with atomic_write(self.path) as file:
            file.writelines(f"{json.dumps(line, separators=(',', ':'))}\n" for line in whole)

    def _add_pictures(self, name: str, table: Mapping[str, Any]) -> None:
        tables = self.pictures
        if tables.get(name, table) != table:
            raise UserError(
                f"expected the same pictures, folds and units of {name} as in {self._table}, found others: keep the "
                "results of this experiment under another name"
            )
        if name not in tables:
            with atomic_write(self._table) as file:
                file.write(json.dumps({**tables, name: table}, separators=(",", ":")) + "\n")


def slices_digest(reduced: Path, selection: str) -> str:
    """16 hex digits of the slices of a selection, with their pixels as the manifest has them."""
    return SliceSelectionDataset(reduced, selection).identity()[:16]


def _digest(table: Mapping[str, Any]) -> str:
    """16 hex digits of labels, units and folds of a set of pictures."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]


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
    ask: Sequence[str] = ("git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")
    try:
        commit = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {"version": __version__}
    return {"version": __version__, "commit": commit}
