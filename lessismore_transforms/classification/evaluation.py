"""What a classifier is worth on the validation and test split: predicted, scored, written down."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.nn import functional as F

from lessismore_transforms import __version__
from lessismore_transforms.atomic import finite, write_json, writing
from lessismore_transforms.classification.best_epoch import KeepBest
from lessismore_transforms.classification.calibration import calibrated, check_target, operating_point
from lessismore_transforms.classification.examples import DIGITS, SPLITS, Examples, Split
from lessismore_transforms.classification.finished_runs import METRICS_FILE
from lessismore_transforms.classification.metrics import METRICS, confusion, score
from lessismore_transforms.classification.network import Classifier, save_classifier
from lessismore_transforms.classification.paper import Setting, paper_settings
from lessismore_transforms.classification.plots import draw_evaluation
from lessismore_transforms.classification.predictions import PREDICTIONS, Predictions
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.classification.statistics import bootstrap_interval
from lessismore_transforms.classification.units import plural_unit, unit_of
from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import TITLES
from lessismore_transforms.options import names, plain_values
from lessismore_transforms.training.checkpoint import LAST
from lessismore_transforms.training.processes import all_gather_objects, process_rank, share_buffers
from lessismore_transforms.weights.layouts import MODEL
from lessismore_transforms.wording import counted

FIGURE = "evaluation.png"
LEVEL = 0.95
_LOGGER = logging.getLogger("lessismore_transforms")
_INTERVALS = ("auc", "accuracy", "f1_macro")
# What an evaluation does not choose again: how the network was trained, and how pictures are prepared for it.
SETTLED = (*names(ClassificationSettings, phase="training"), "schedule")
TRAINED_ON = "trained_on_sha256"  # in the header of a network's file; left out of shared ones
EARLIER_TRAINED_ON = "trained_on"  # the same by an earlier version, too short to tell pictures apart
_ALSO_SETTLED = ("seed", "batch_size", "processes")  # in the record; an evaluation may have its own, which tell nothing


class Predict:
    """Gather what an evaluator predicts for a split: `engine.state.predictions`, its scores in `engine.state.metrics`.

    Args:
        split: what the evaluator's loader reads, each process its share.
        network: without wrappers; several processes take the statistics of the first one's batch norms.
        positive: the class whose F1, sensitivity and so on are reported.
    """

    def __init__(self, split: Split, network: Classifier, *, positive: int = 1) -> None:
        check_positive(positive, split.classes)
        self.split, self.network, self.positive = split, network, positive
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._take)
        engine.add_event_handler(Events.COMPLETED, self._score)

    def _start(self, _: Engine) -> None:
        self._parts = []
        share_buffers(self.network)

    def _take(self, engine: Any) -> None:
        probabilities = F.softmax(engine.state.output["pred"].float(), dim=1).double()  # (B, C), float32 as in the file
        self._parts.append((engine.state.batch["index"].cpu(), probabilities.cpu()))

    def _score(self, engine: Any) -> None:
        parts = [part for parts in all_gather_objects(self._parts) for part in parts]
        index = torch.cat([index for index, _ in parts])  # (N,)
        probabilities = torch.cat([value for _, value in parts])[index.argsort()].numpy()  # (N, C)
        split = self.split
        engine.state.predictions = Predictions(
            split.image_ids, split.patients, [split.name] * len(split), split.labels, probabilities, split.sources
        )
        scores = score(split.labels, probabilities, positive=self.positive)
        numbers = {name: value for name, value in scores.items() if not isinstance(value, (list, dict))}
        engine.state.metrics = {**numbers, "loss": scores["nll"]}  # what MONAI's handlers log: no lists


def check_positive(positive: object, classes: Sequence[str]) -> None:
    """Refuse a positive class that there is not.

    Raises:
        UserError: it is the number of no class.
    """
    if not isinstance(positive, int) or not 0 <= positive < len(classes):
        raise UserError(
            f"expected positive to be the number of a class, 0 to {len(classes) - 1} ({', '.join(classes)}), found "
            f"{positive!r}"
        )


class FinalEvaluation:
    """Score a trained classifier on the validation and the test split and write all that is known of it.

    Args:
        folder: of the run.
        network: without wrappers.
        evaluators: of the splits, by their names, each with a `Predict` attached.
        best: whose weights are restored first; None takes the network as it is.
        header: how pictures are prepared, for model.safetensors; None leaves that file out.
        about: plain values for metrics.json.
        record: of the training: mode, experiment, epochs, settings; for metrics.json and the header.
        bootstrap: resamples for the intervals.
        target_sensitivity: by which a threshold is chosen on the validation split, see `calibration`; None for none.
    """

    def __init__(
        self,
        folder: str | Path,
        network: Classifier,
        evaluators: Mapping[str, Any],
        *,
        best: KeepBest | None,
        header: Mapping[str, Any] | None,
        about: Mapping[str, Any],
        record: Mapping[str, Any],
        bootstrap: int = 1000,
        target_sensitivity: float | None = None,
    ) -> None:
        if not isinstance(bootstrap, int) or bootstrap < 1:
            raise UserError(f"expected bootstrap to be 1 resample or more, found {bootstrap!r}; 1000 is usual")
        if header is None and (there := [name for name in (LAST, METRICS_FILE) if (Path(folder) / name).exists()]):
            raise UserError(
                f"expected a folder of its own for the evaluation, found a run in {folder} ({there[0]}), whose results "
                "would be lost: name another output_dir"
            )
        self.folder, self.network, self.evaluators = Path(folder), network, dict(evaluators)
        self.best, self.header, self.about, self.record = best, header, dict(about), dict(record)
        self.bootstrap, self.target = bootstrap, target_sensitivity
        check_target(target_sensitivity, len(self.about.get("classes", [])))

    def run(self) -> None:
        """Predict, score and write; the last thing written is metrics.json, by which a run is known to be complete.

        Raises:
            OutputError: the folder cannot be written.
        """
        if self.best is not None:
            self.best.restore()
        for evaluator in self.evaluators.values():
            evaluator.run()
        if process_rank() != 0:
            return
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        told = self.best.told if self.best is not None else {}
        best_epoch = self.best.epoch if self.best is not None and not told else None
        record = {**self.record, **told}
        if self.header is not None:
            save_classifier(self.folder / MODEL, self.network, {**self.header, "epoch": best_epoch, "record": record})
        found = {name: evaluator.state.predictions for name, evaluator in self.evaluators.items()}
        joined(list(found.values())).write(self.folder / PREDICTIONS)
        classes, positive = self.about["classes"], self.about["positive"]
        title = f"{self.about['task']}, test split, run {self.about['run']}"
        draw_evaluation(found["test"], classes, positive, self.folder / FIGURE, title=title)
        intervals = intervals_of(found["test"], samples=self.bootstrap)
        scores = {name: score(each.labels, each.probabilities, positive=positive) for name, each in found.items()}
        adjusted = self._adjusted(found)
        content = {"format": 1, "version": __version__, **self.about, **record, "best_epoch": best_epoch}
        counted = {name: confusion(each.labels, each.probabilities).tolist() for name, each in found.items()}
        content |= {**scores, "test": {**scores["test"], **adjusted}, "intervals": intervals, "confusion": counted}
        write_json(self.folder / METRICS_FILE, finite(content))
        low, high = intervals["auc"]
        print(
            f"test: AUC {scores['test']['auc']:.3f} ({100 * LEVEL:.0f} % of resampled {plural_unit(intervals['unit'])} "
            f"{low:.3f} to {high:.3f}), accuracy {scores['test']['accuracy']:.3f}, "
            f"macro F1 {scores['test']['f1_macro']:.3f}; {self.folder / METRICS_FILE}"
        )

    def _adjusted(self, found: Mapping[str, Predictions]) -> dict[str, Any]:
        """What temperature and threshold, chosen on the validation split, give on the test split."""
        val, test = found["val"], found["test"]
        adjusted: dict[str, Any] = {"calibrated": calibrated(val, test)}
        if self.target is not None:
            adjusted["operating_point"] = operating_point(
                val, test, positive=self.about["positive"], target=self.target, samples=self.bootstrap, level=LEVEL
            )
        return adjusted


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several splits as one table."""
    return Predictions(
        [name for part in parts for name in part.image_ids],
        [name for part in parts for name in part.patients],
        [name for part in parts for name in part.splits],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        [name for part in parts for name in part.sources],
    )


def intervals_of(predictions: Predictions, *, samples: int) -> dict[str, Any]:
    """Bootstrap intervals of the scores of one test set, and the unit that was resampled."""
    intervals: dict[str, Any] = {"level": LEVEL, "unit": unit_of([predictions])}
    for name in _INTERVALS:
        intervals[name] = list(bootstrap_interval([predictions], METRICS[name], samples=samples, level=LEVEL))
    return intervals


def check_trained(header: Mapping[str, Any], examples: Examples, weights: str | Path) -> None:
    """Refuse to score a network on classes that it does not know, or on pictures that it was trained on.

    Args:
        header: of its file.
        examples: with which it is to be scored; in splits of the names that it was trained with, copies that train has
            of a test picture are the leakage gate's business.
        weights: the file, for an error.

    Raises:
        UserError: the classes differ, a picture of val or test was trained on, or the file is of an earlier version.
    """
    if list(header["classes"]) != list(examples.classes):
        raise UserError(
            f"expected a network for the classes {', '.join(examples.classes)}, found one for "
            f"{', '.join(header['classes'])} in {weights}: give other weights, or the data that they are for"
        )
    digests, placed = header.get(TRAINED_ON), header.get("splits") == examples.splits()
    if not isinstance(digests, str):
        _unchecked(header, weights, placed=placed)
        return
    seen = {digests[place : place + DIGITS] for place in range(0, len(digests), DIGITS)}
    advice = "split them as for that training"
    if placed:  # names are equal, and pixels may have been exchanged since
        seen -= set(examples.pixels("train"))
        advice = "put back the files of that training"
    for split in ("val", "test"):
        found = [digest in seen for digest in examples.pixels(split)]
        if any(found):
            raise UserError(
                f"{sum(found)} of {counted(len(found), f'{split} picture')} are among those that {weights} was "
                f"trained on: {advice}, or give other pictures"
            )


def _unchecked(header: Mapping[str, Any], weights: str | Path, *, placed: bool) -> None:
    """Say of a network that does not tell its training pictures what could not be checked; nothing by equal splits."""
    if placed:
        return
    if EARLIER_TRAINED_ON in header:
        raise UserError(
            f"expected a network that tells which pictures it was trained on, found that of an earlier version in "
            f"{weights}: train it again with this version, or score the splits of its training with the other one"
        )
    if process_rank() == 0:
        _LOGGER.warning(
            "it could not be checked whether %s was trained on pictures that it is now scored on: shared weights "
            "do not tell what they were trained on",
            weights,
        )


def reported(settings: ClassificationSettings, **resolved: Any) -> dict[str, Any]:
    """Settings that metrics.json reports: plain values, without paths, and what the run made of others."""
    left_out = {*names(settings, "path"), "resume", *settings.unused}
    plain = {name: value for name, value in plain_values(settings).items() if name not in left_out}
    return {**plain, **resolved}


def rescored(header: Mapping[str, Any], labels: Sequence[str | None], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an evaluation of a trained network: the training's, but for the data.

    Args:
        header: of the network's file.
        labels: as for `experiment`, that are given now, each None where the training's holds.
        settings: of the evaluation, as `reported` returns them.

    Raises:
        UserError: a label is given that is not the training's.
    """
    record = header["record"]
    experiment = dict(record["experiment"])
    for name, label in zip(Setting._fields, labels, strict=True):
        if label is not None and label != (experiment[name] or label):
            raise UserError(f"the network was trained as {name} {experiment[name]}, found {label}: leave out --{name}")
        experiment[name] = experiment[name] or label
    own = {name: value for name, value in settings.items() if name not in (*SETTLED, *_ALSO_SETTLED)}
    return {**record, "experiment": experiment, "settings": {**record["settings"], **own}, "rescored": True}


def counts(examples: Examples) -> dict[str, int]:
    """The number of pictures of each split."""
    return {split: sum(example.split == split for example in examples.examples) for split in SPLITS}


def experiment(mode: str, method: str | None, labels: Sequence[str | None]) -> dict[str, str | None]:
    """By which labels of the paper's tables a run is known.

    Args:
        mode: scratch stands in the tables as `none`.
        method: of the weights, for the table's name of it where none is given.
        labels: pretrain_dataset, ssl_method and reduction, such as LIDC, SwAV and HASH-6.

    Raises:
        UserError: the labels belie mode or method, or are spelt unlike the tables in upper and lower case only.
    """
    names = Setting._fields
    if mode == "scratch":
        if given := [name for name, label in zip(names, labels, strict=True) if label is not None]:
            raise UserError(f"expected no label of a pre-training for mode scratch, found one: leave out --{given[0]}")
        return dict.fromkeys(names, "none")
    for name, label, printed in zip(names, labels, zip(*paper_settings(), strict=True), strict=True):
        spelt = {known.lower(): known for known in printed}
        if label is not None and (known := spelt.get(label.lower(), label)) != label:
            raise UserError(f"expected {name} as the paper spells it, {known}, found {label}: fix it")
    pretrain_dataset, ssl_method, reduction = labels
    ours = TITLES.get(method or "")
    if ours and ssl_method in TITLES.values() and ssl_method != ours:
        raise UserError(f"expected ssl_method {ours}, by which the weights were trained, found {ssl_method}: drop it")
    return dict(zip(names, (pretrain_dataset, ssl_method or ours, reduction), strict=True))
