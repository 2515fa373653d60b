"""What a classifier is worth on the validation and test split: predicted, scored, written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.nn import functional as F

from lessismore_transforms import __version__
from lessismore_transforms.atomic import finite, write_json, writing
from lessismore_transforms.classification.best import KeepBest
from lessismore_transforms.classification.examples import SPLITS, Examples, Split
from lessismore_transforms.classification.figures import draw_evaluation
from lessismore_transforms.classification.metrics import METRICS, score
from lessismore_transforms.classification.network import Classifier, save_classifier
from lessismore_transforms.classification.predictions import PREDICTIONS, Predictions
from lessismore_transforms.classification.results import METRICS_FILE
from lessismore_transforms.classification.statistics import bootstrap_interval, unit_of
from lessismore_transforms.training.checkpoint import LAST
from lessismore_transforms.training.gather import gather_all, rank, share_buffers

MODEL, FIGURE = "model.safetensors", "evaluation.png"
LEVEL = 0.95
_INTERVALS = ("auc", "accuracy", "f1_macro")
# Settings that say where and how a run was made, not what it is.
_NOT_TOLD = ("dataset_dir", "output_dir", "pretrained", "pretraining", "labels", "weights", "resume", "header")
# Settings of a training that an evaluation of what was trained does not choose again.
_OF_TRAINING = {
    *(
        "seed",
        "processes",
        "batch_size",
        "max_epochs",
        "frozen_epochs",
        "frozen_batch_norm",
        "best_by",
        "method",
        "schedule",
    ),
    *("learning_rate", "weight_decay", "flip", "mean", "std", "log_interval", "checkpoint_minutes"),
}


class Predict:
    """Gather what an evaluator predicts for a split: `engine.state.predictions`, its scores in `engine.state.metrics`.

    Args:
        split: what the evaluator's loader reads, each process its share.
        network: without wrappers; several processes take the statistics of the first one's batch norms.
        positive: the class whose F1, sensitivity and so on are told.
    """

    def __init__(self, split: Split, network: Classifier, *, positive: int = 1) -> None:
        if not isinstance(positive, int) or not 0 <= positive < len(split.classes):
            raise ValueError(
                f"expected positive to be the number of a class, 0 to {len(split.classes) - 1} "
                f"({', '.join(split.classes)}), found {positive!r}"
            )
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
        parts = [part for parts in gather_all(self._parts) for part in parts]
        index = torch.cat([index for index, _ in parts])  # (N,)
        probabilities = torch.cat([value for _, value in parts])[index.argsort()].numpy()  # (N, C)
        split = self.split
        engine.state.predictions = Predictions(
            split.image_ids, split.patients, [split.name] * len(split), split.labels, probabilities
        )
        scores = score(split.labels, probabilities, positive=self.positive)
        engine.state.metrics = {**scores, "loss": scores["nll"]}


class Evaluation:
    """Score a trained classifier on the validation and the test split and write all that is known of it.

    Args:
        folder: of the run.
        network: without wrappers.
        evaluators: of the splits, by their names, each with a `Predict` attached.
        best: whose weights are restored first; None takes the network as it is.
        header: how pictures are prepared, for model.safetensors; None leaves that file out.
        facts: plain values for metrics.json.
        record: of the training: experiment, epochs, settings; for metrics.json and the header.
        bootstrap: resamples for the intervals.
    """

    def __init__(
        self,
        folder: str | Path,
        network: Classifier,
        evaluators: Mapping[str, Any],
        *,
        best: KeepBest | None,
        header: Mapping[str, Any] | None,
        facts: Mapping[str, Any],
        record: Mapping[str, Any],
        bootstrap: int = 1000,
    ) -> None:
        if not isinstance(bootstrap, int) or bootstrap < 1:
            raise ValueError(f"expected bootstrap to be 1 resample or more, found {bootstrap!r}; 1000 is usual")
        if header is None and (Path(folder) / LAST).exists():
            raise ValueError(
                f"expected a folder of its own for the evaluation, found a training in {folder}, whose results would "
                "be lost: name another output_dir"
            )
        self.folder, self.network, self.evaluators = Path(folder), network, dict(evaluators)
        self.best, self.header, self.facts, self.record = best, header, dict(facts), dict(record)
        self.bootstrap = bootstrap

    def run(self) -> None:
        """Predict, score and write; the last thing written is metrics.json, by which a run is known to be complete.

        Raises:
            OutputError: the folder cannot be written.
        """
        if self.best is not None:
            self.best.restore()
        for evaluator in self.evaluators.values():
            evaluator.run()
        if rank() != 0:
            return
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        best_epoch = self.best.epoch if self.best is not None else None
        if self.header is not None:
            save_classifier(
                self.folder / MODEL, self.network, {**self.header, "epoch": best_epoch, "record": self.record}
            )
        found = {name: evaluator.state.predictions for name, evaluator in self.evaluators.items()}
        joined(list(found.values())).write(self.folder / PREDICTIONS)
        classes, positive = self.facts["classes"], self.facts["positive"]
        title = f"{self.facts['task']}, test split, run {self.facts['run']}"
        draw_evaluation(found["test"], classes, positive, self.folder / FIGURE, title=title)
        intervals = intervals_of(found["test"], samples=self.bootstrap)
        scores = {name: score(each.labels, each.probabilities, positive=positive) for name, each in found.items()}
        told = {**self.facts, **self.record, "best_epoch": best_epoch}
        content = {"format": 1, "version": __version__, **told, **scores}
        write_json(self.folder / METRICS_FILE, finite({**content, "intervals": intervals}))
        low, high = intervals["auc"]
        print(
            f"test: AUC {scores['test']['auc']:.3f} ({100 * LEVEL:.0f} % of resampled {intervals['unit']}s "
            f"{low:.3f} to {high:.3f}), accuracy {scores['test']['accuracy']:.3f}, "
            f"macro F1 {scores['test']['f1_macro']:.3f}; {self.folder / METRICS_FILE}"
        )


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Return predictions of several splits as one table."""
    return Predictions(
        [name for part in parts for name in part.image_ids],
        [name for part in parts for name in part.patients],
        [name for part in parts for name in part.splits],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
    )


def intervals_of(predictions: Predictions, *, samples: int) -> dict[str, Any]:
    """Return bootstrap intervals of the scores of one test set, and the unit that was resampled."""
    intervals: dict[str, Any] = {"level": LEVEL, "unit": unit_of(predictions)}
    for name in _INTERVALS:
        intervals[name] = list(bootstrap_interval([predictions], METRICS[name], samples=samples, level=LEVEL))
    return intervals


def check_trained(header: Mapping[str, Any], examples: Examples, weights: str | Path) -> None:
    """Refuse to score a network on classes that it does not know, or on pictures that it was trained on.

    Args:
        header: of its file.
        examples: with which it is to be scored; in the splits that it was trained with, copies that train has of a
            test picture are the leakage gate's business.
        weights: the file, for an error.

    Raises:
        ValueError: the classes differ, or a picture of val or test was trained on.
    """
    if list(header["classes"]) != list(examples.classes):
        raise ValueError(
            f"expected a network for the classes {', '.join(examples.classes)}, found one for "
            f"{', '.join(header['classes'])} in {weights}: give other weights, or the data that they are for"
        )
    if header.get("splits") == examples.splits():
        return
    digests = header.get("trained_on", "")
    seen = {digests[place : place + 8] for place in range(0, len(digests), 8)}
    for split in ("val", "test"):
        found = [digest in seen for digest in examples.pixels(split)]
        if any(found):
            raise ValueError(
                f"{sum(found)} of {len(found)} {split} pictures are among those that {weights} was trained on: split "
                "them as for that training, or give other pictures"
            )


def reported(settings: Mapping[str, Any], **resolved: Any) -> dict[str, Any]:
    """Return the settings that metrics.json tells: plain values, no paths, and what became of expressions."""
    plain = {
        name: value
        for name, value in settings.items()
        if name not in _NOT_TOLD and not (isinstance(value, str) and value[:1] in ("$", "@"))
    }
    return {**plain, **resolved}


def rescored(
    header: Mapping[str, Any], experiment: Mapping[str, str | None], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of an evaluation of what was trained: the training's, in what does not depend on the data.

    Args:
        header: of the network's file.
        experiment: labels that are given now, each None where the training's holds.
        settings: of the evaluation, as `reported` returns them.
    """
    trained = {"experiment": {}, "settings": {}, **header.get("record", {})}
    given = {name: label for name, label in experiment.items() if label is not None}
    chosen = {name: value for name, value in settings.items() if name not in _OF_TRAINING}
    labels = {**experiment, **trained["experiment"], **given}
    return {**trained, "experiment": labels, "settings": {**trained["settings"], **chosen}}


def counts(examples: Examples) -> dict[str, int]:
    """Return the number of pictures of each split."""
    return {split: sum(example.split == split for example in examples.examples) for split in SPLITS}


def experiment(
    mode: str, method: str | None, pretrain_dataset: str | None, ssl_method: str | None, reduction: str | None
) -> dict[str, str | None]:
    """Return by which labels of the paper's tables a run is known.

    Args:
        mode: scratch stands in the tables as `none`.
        method: of the weights, for the table's name of it where none is given.
        pretrain_dataset: such as LIDC.
        ssl_method: such as SwAV.
        reduction: such as HASH-6.
    """
    if mode == "scratch":
        return dict.fromkeys(("pretrain_dataset", "ssl_method", "reduction"), "none")
    named = {"swav": "SwAV", "moco": "MoCoV2", "byol": "BYOL", "spark": "SparK"}
    ssl_method = ssl_method or named.get(method or "")
    return {"pretrain_dataset": pretrain_dataset, "ssl_method": ssl_method, "reduction": reduction}
