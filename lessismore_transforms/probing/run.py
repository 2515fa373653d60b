"""A probe from start to end: features once, then every protocol on the same folds, written as evaluations.

OUTPUT/features/<network>.npz                    features by picture, kept for the next probe
OUTPUT/<protocol>/<model>/run_00/ ...            predictions.csv and metrics.json of each fold of each repeat
OUTPUT/probe.json  table.csv  probe.html         what was done; all comparisons; to look at
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from lessismore_transforms import __version__
from lessismore_transforms.analysis.models import Model, common, load_models
from lessismore_transforms.atomic import finite, write_json, writing
from lessismore_transforms.classification.comparison import LEVEL, Table, make_table
from lessismore_transforms.classification.evaluation import check_positive, experiment
from lessismore_transforms.classification.examples import digest
from lessismore_transforms.classification.finished_runs import LEAKS, METRICS_FILE
from lessismore_transforms.classification.leakage import check_leakage
from lessismore_transforms.classification.metrics import confusion, score
from lessismore_transforms.classification.predictions import PREDICTIONS, Predictions
from lessismore_transforms.classification.tables import write_table
from lessismore_transforms.classification.units import counted_units
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.probing.draws import Draw
from lessismore_transforms.probing.features import FEATURES, Floats, cache_key, frozen_features
from lessismore_transforms.probing.page import write_page
from lessismore_transforms.probing.pictures import Labelled, read_labelled_pictures
from lessismore_transforms.probing.protocols import KNN, LOGISTIC, Outcome, names_of, outcomes, shares_of
from lessismore_transforms.probing.settings import ProbeSettings
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.training.precision import pick_device
from lessismore_transforms.wording import aligned, counted

PROBE, TABLE, MODE = "probe.json", "table.csv", "probe"
METRICS = ("auc", "accuracy")
_LOGGER = logging.getLogger("lessismore_transforms")


def probe(settings: ProbeSettings) -> Path:
    """Compare networks; returns the page.

    Raises:
        UserError: a network, picture, label or setting makes no sense, or the folder holds another probe.
        OutputError: the folder cannot be written.
    """
    models = load_models(
        settings.models,
        backbone=settings.backbone,
        device=pick_device(settings.device),
        alike=("window",),
        image_size=settings.image_size,
        channels=settings.channels,
        window=settings.window,
    )
    baseline = _baseline(settings, models)
    window = settings.window or common(models, "window")
    _check_channels(models, window)
    pictures = read_labelled_pictures(settings, window=window)
    check_positive(settings.positive, pictures.listing.classes)
    print(pictures.described(), file=sys.stderr)
    work = _Work(settings, pictures)
    work.start()
    keys = {model.name: cache_key(model) for model in models}
    waiting = [model for model in models if not work.finished(model.name, keys[model.name])]
    leaks = check_leakage(
        pictures.divided(),
        policy=settings.leakage,
        pretraining=list(settings.pretraining) or None,
        folder=settings.output_dir,
    ).summary()
    folder = settings.features_dir or settings.output_dir / FEATURES
    for model in waiting:
        features = frozen_features(
            model, pictures.images, folder, batch_size=settings.batch_size, workers=settings.workers
        )
        work.learn(model, keys[model.name], features, leaks)
    work.tell_leaks([model.name for model in models if model not in waiting], leaks)
    about = work.about(models, keys)
    write_json(settings.output_dir / PROBE, finite(about))
    table = work.compare([model.name for model in models], baseline)
    print(summary(table, settings))
    write_table(table, settings.output_dir / TABLE)
    return write_page(settings.output_dir, table, shares_of(settings), about)


def summary(table: Table, settings: ProbeSettings) -> str:
    """The AUC of each network under each protocol as text, with its interval; what is compared stands in the table."""
    shares = shares_of(settings).values()
    titles = [f"{100 * share:g} % of labels" if share < 1 else "regression" for share in shares]
    lines: dict[str, list[str]] = {}
    for task in table.tasks:
        for row in {row.evaluation: row for row in task.rows if row.metric == "auc"}.values():
            lines.setdefault(row.evaluation, [row.evaluation]).append(
                f"{row.mean:.3f} ({row.low:.3f} to {row.high:.3f})"
            )
    (first, *_) = (task.rows[0] for task in table.tasks)
    grid = aligned([["AUC", *titles, f"{settings.neighbours} neighbours"], *lines.values()], left=1)
    under = (
        f"{100 * LEVEL:.0f} % intervals by {counted_units(first.units, first.unit)}, about these very networks; "
        f"differences, and what this set is too small to show: {settings.output_dir / TABLE}, or "
        f"`table {settings.output_dir}`."
    )
    return f"{table.tasks[0].title}\n\n{grid}\n\n{under}"


@dataclass(frozen=True, eq=False)
class _Work:
    """What a probe writes: the runs of each protocol and network."""

    settings: ProbeSettings
    pictures: Labelled

    def start(self) -> None:
        """Refuse a folder that holds the results of another probe.

        Raises:
            UserError: it does.
        """
        place = self.settings.output_dir
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        path = place / PROBE
        if not path.is_file():
            write_json(path, {"identity": self.identity})
            return
        try:
            with reading(path):
                before = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"expected the JSON of a probe in {path}, found a damaged file: delete {place}") from error
        if differing := [name for name, value in self.identity.items() if before.get(name) != value]:
            raise UserError(
                f"expected a folder of its own for this probe, found one with other {', '.join(differing)} in {place}: "
                f"name another --output_dir, and --features_dir {place / FEATURES} to keep what was computed"
            )

    @cached_property  # all pixels are looked at
    def identity(self) -> dict[str, Any]:
        """What all networks of a probe share: pictures, labels, folds, settings."""
        pictures = hashlib.sha256()
        for example, group, image in zip(
            self.pictures.listing.examples, self.pictures.groups, self.pictures.images, strict=True
        ):
            told = (example.image_id, example.label, example.split, group, digest(image))
            pictures.update(f"{told}\n".encode())
        return {
            "task": self.pictures.listing.task,
            "classes": list(self.pictures.listing.classes),
            "pictures": pictures.hexdigest(),
            **self.settings.told(),
        }

    def about(self, models: Sequence[Model], keys: Mapping[str, str]) -> dict[str, Any]:
        """What was done, for probe.json."""
        listing = self.pictures.listing
        counts = {name: int((self.pictures.labels == label).sum()) for label, name in enumerate(listing.classes)}
        return {
            "version": __version__,
            "identity": self.identity,
            "counts": counts,
            "folds": self.pictures.draws[0].fold is not None,
            "groups": len({*self.pictures.groups}),
            "protocols": names_of(self.settings),
            "models": [
                {"name": model.name, "id": keys[model.name], **model.origin, "preparation": dict(model.settings)}
                for model in models
            ],
        }

    def finished(self, name: str, key: str) -> bool:
        """Whether all runs of a network are there, of these weights."""
        return all(
            _weights_in(self._run(protocol, name, number)) == key
            for protocol in names_of(self.settings)
            for number in self._numbers(protocol)
        )

    def learn(self, model: Model, key: str, features: Floats, leaks: Mapping[str, Any]) -> None:
        """Learn from the features (N, F) of a network on each fold, and write what comes out."""
        pictures, ends = self.pictures, []
        classes = len(pictures.listing.classes)
        draws = progress_bar(pictures.draws, desc=f"probe {model.name}", unit=" folds")
        for number, draw in enumerate(draws):
            for outcome in outcomes(features, pictures.labels, pictures.groups, classes, draw, self.settings):
                self.write(model, key, number, draw, outcome, leaks)
                ends.append(outcome.about.get("converged", True))
        if not all(ends):
            _LOGGER.warning(
                "%s of %s had not converged when their steps were over: `chosen` in metrics.json tells which",
                counted(ends.count(False), "regression"),
                model.name,
            )

    def tell_leaks(self, names: Sequence[str], leaks: Mapping[str, Any]) -> None:
        """Tell in the runs that were there what leaks were found now, too; of each kind the larger number counts."""
        known = {kind: found for kind, found in leaks.items() if found is not None}
        if not leaks["checked"]:
            return
        for protocol, name in product(names_of(self.settings), names):
            for number in self._numbers(protocol):
                path = self._run(protocol, name, number) / METRICS_FILE
                record = json.loads(path.read_text(encoding="utf-8"))
                before = record["leakage"]
                counts = {kind: max(known[kind], before.get(kind) or 0) for kind in LEAKS if kind in known}
                told = {**before, **known, **counts}
                if told != before:
                    write_json(path, {**record, "leakage": told}, durable=False)

    def write(
        self, model: Model, key: str, number: int, draw: Draw, outcome: Outcome, leaks: Mapping[str, Any]
    ) -> None:
        """Write one run; of protocols that draw nothing, the first one of an official split alone."""
        if number not in self._numbers(outcome.protocol):
            return
        listing, settings = self.pictures.listing, self.settings
        tested = [listing.examples[row] for row in draw.test]
        labels = self.pictures.labels[draw.test]
        predictions = Predictions(
            [example.image_id for example in tested],
            [example.patient for example in tested],
            ["test"] * len(tested),
            labels,
            outcome.probabilities.astype("float32").astype("float64"),
            [example.source for example in tested],
        )
        fold = {} if draw.fold is None else {"fold": draw.fold, "folds": settings.folds, "repeat": draw.repeat}
        told = {name: value for name, value in settings.told().items() if name != "fractions"}
        record = {
            "format": 1,
            "version": __version__,
            "task": f"{listing.task}, {names_of(settings)[outcome.protocol]}",
            "classes": list(listing.classes),
            "positive": settings.positive,
            "run": number,
            "mode": MODE,
            "experiment": experiment("linear", None, (None, None, None)),
            "weights": {
                "method": model.origin.get("method"),
                "id": key,
                "epoch": model.origin.get("epoch"),
                "iteration": model.origin.get("iteration"),
            },
            "counts": {"train": outcome.trained_on, "val": 0, "test": len(tested)},
            "leakage": dict(leaks),
            "settings": {**told, **fold, **{name: model.settings[name] for name in ("image_size", "channels")}},
            "network": {"backbone": model.origin["backbone"], **model.settings},
            "chosen": outcome.about,
            "test": score(labels, predictions.probabilities, positive=settings.positive),
            "confusion": {"test": confusion(labels, predictions.probabilities).tolist()},
        }
        folder = self._run(outcome.protocol, model.name, number)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        predictions.write(folder / PREDICTIONS)
        write_json(folder / METRICS_FILE, finite(record), durable=False)

    def compare(self, models: Sequence[str], baseline: str) -> Table:
        """The networks beside each other, under each protocol."""
        root = self.settings.output_dir
        tables = [
            make_table(
                [root / protocol / name for name in models],
                baseline=root / protocol / baseline if len(models) > 1 else None,
                metrics=METRICS,
                samples=self.settings.samples,
            )
            for protocol in names_of(self.settings)
        ]
        footer = tuple(dict.fromkeys(line for table in tables for line in table.footer))
        return Table(tuple(task for table in tables for task in table.tasks), False, footer)

    def _numbers(self, protocol: str) -> range:
        """The numbers of the runs of a protocol."""
        draws = self.pictures.draws
        return range(1) if draws[0].fold is None and protocol in (KNN, LOGISTIC) else range(len(draws))

    def _run(self, protocol: str, name: str, number: int) -> Path:
        return self.settings.output_dir / protocol / name / f"run_{number:02d}"


def _check_channels(models: Sequence[Model], window: str | None) -> None:
    """Refuse a network that sees grey where three windows are three channels."""
    grey = [model.name for model in models if model.settings["channels"] == 1]
    if window is not None and "+" in window and grey:
        raise UserError(
            f"expected networks of 3 channels for the windows {window}, found {', '.join(grey)} of one: give "
            "--channels 3, or one window"
        )


def _baseline(settings: ProbeSettings, models: Sequence[Model]) -> str:
    """The name of the network that the others are compared with."""
    names = [model.name for model in models]
    for name in names:
        if not all(letter.isalnum() or letter in "-_.+" for letter in name) or name.startswith("."):
            raise UserError(f"expected names of letters, digits, - and _, found {name!r}: they are names of folders")
    if settings.baseline is None:
        return next((model.name for model in models if model.origin.get("untrained")), names[0])
    if settings.baseline not in names:
        raise UserError(f"expected the baseline to be one of {', '.join(names)}, found {settings.baseline}: name one")
    return settings.baseline


def _weights_in(run: Path) -> str | None:
    """The id of the weights of a finished run; None where there is none."""
    path = run / METRICS_FILE
    if not path.is_file() or not (run / PREDICTIONS).is_file():
        return None
    try:
        found: str = json.loads(path.read_text(encoding="utf-8"))["weights"]["id"]
        return found
    except (ValueError, KeyError, TypeError):
        return None
