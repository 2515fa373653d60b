"""The facts of a finished classification run: its record, predictions and weights, which have to fit each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lessismore_transforms.classification.evaluation import EARLIER_TRAINED_ON, FIGURE, TRAINED_ON
from lessismore_transforms.classification.finished_runs import METRICS_FILE, read_chosen_runs
from lessismore_transforms.classification.network import load_classifier
from lessismore_transforms.classification.predict import preparation
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.classification.units import plural_unit
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.methods import TITLES
from lessismore_transforms.sharing.facts import Facts, deciding, lacking, markdown_table, network_title, recorded_paths
from lessismore_transforms.sharing.leaks import leak_rows
from lessismore_transforms.sharing.settings import ShareSettings
from lessismore_transforms.training.curves import CURVES
from lessismore_transforms.training.run_log import CONFIG
from lessismore_transforms.weights.layouts import MODEL
from lessismore_transforms.wording import count, counted, listed

_OWN = "Own"  # the task of labels of one's own, which users give other names
_SCORES = ("auc", "accuracy", "f1_macro", "sensitivity", "specificity", "average_precision", "brier", "ece")
_LEFT_OUT = (
    "left out of the weights: whoever has a picture could tell by them whether it was trained on; so an evaluation of "
    "these weights cannot check that it scores none of these pictures"
)
_WORDS = {"auc": "AUC", "f1_macro": "macro F1", "brier": "Brier score", "ece": "calibration error"}


_RECORD = {  # of metrics.json, what is read of it here
    **dict.fromkeys(("task", "mode"), str),
    **dict.fromkeys(("classes", "confusion.test"), list),
    **dict.fromkeys(("settings", "val", "test", "weights", "experiment"), dict),
    **dict.fromkeys(("positive", "counts.train", "counts.val", "counts.test"), int),
}
_HEADER = {
    **dict.fromkeys(("task", "backbone", "resize"), str),
    **dict.fromkeys(("image_size", "channels"), int),
    **dict.fromkeys(("mean", "std"), (int, float, list)),
    "transpose": bool,
    "classes": list,
    "record": dict,
}


def is_classification(run: Path) -> bool:
    """Whether a folder is that of a classification run, finished or not, or of an evaluation, by what it holds."""
    if (run / METRICS_FILE).is_file() or (run / MODEL).is_file():
        return True
    if not (run / CONFIG).is_file():
        return any(run.glob("run_*/")) or run.resolve().name.startswith("run_")
    return "run_index" in _given(run)


def read_classifier(settings: ShareSettings) -> Facts:
    """All that is known of the network of a finished classification run.

    Raises:
        UserError: the run did not finish, or weights, predictions and record do not fit each other.
    """
    run = settings.run
    _refuse(settings)
    record = _read_record(run)
    weights = run / MODEL
    network, header = load_classifier(weights)
    _check_header(header, record, weights)
    read_chosen_runs([run])  # predictions.csv gives the scores of metrics.json
    classes = tuple(record["classes"])
    told, origin = network_title(header["backbone"]), record["weights"]
    first = TITLES.get(origin.get("method") or "", origin.get("method"))
    start = "from random weights" if record["mode"] == "scratch" else f"from weights by {first or 'an unknown method'}"
    known = [name for name in (record["experiment"].get(name) for name in ("pretrain_dataset", "reduction")) if name]
    left_out = [name for name in (TRAINED_ON, EARLIER_TRAINED_ON) if name in header]
    test, counts = record["test"], record["counts"]
    task = TASKS.get(record["task"], TASKS[_OWN])
    return Facts(
        weights=weights,
        header=header,
        network=network,
        bundle=task.bundle,
        overlay="",
        title=settings.title or f"{told} for {record['task']}",
        task=f"Classification of 2-D pictures: {record['task']}",
        description=f"A {told} with a {header.get('head', 'linear')} head that tells {listed(classes)} apart.",
        classes=classes,
        channels=int(header["channels"]),
        modality_known=task.name != _OWN,
        settings=deciding(record["settings"], ClassificationSettings),
        data=[
            ("task", record["task"]),
            (
                "pictures to train, to choose the epoch, to test",
                ", ".join(count(counts[s]) for s in ("train", "val", "test")),
            ),
            ("classes", ", ".join(f"{number} {name}" for number, name in enumerate(classes))),
            *([("checksums of the training pictures", _LEFT_OUT)] if left_out else []),
        ],
        training=[
            ("network", f"{told}, {count(sum(p.numel() for p in network.parameters()))} parameters"),
            ("mode", f"{record['mode']}, {start}"),
            ("pre-trained on", ", ".join(known) or "not stated in the run"),
            ("id of the encoder's first weights", f"`{origin['id']}`" if origin.get("id") else "none"),
            ("length", _length(record)),
            ("software", _software(run, record)),
        ],
        performance=_performance(record),
        limits=("The test split is the only place where it was measured.",),
        scores={name: test[name] for name in ("auc", "accuracy", "f1_macro") if test.get(name) is not None},
        left_out=left_out,
        pictures={FIGURE: _copied(run / FIGURE), CURVES: _copied(run / CURVES)},
        prepare=lambda picture: preparation(
            header["image_size"], header["mean"], header["std"], header["resize"], transpose=bool(header["transpose"])
        )({"image": picture})["image"][None],
        private=[str(run.resolve()), *recorded_paths(_given(run), ClassificationSettings, run)],
    )


def _refuse(settings: ShareSettings) -> None:
    """Refuse options that are of pre-trainings, and an evaluation in place of a run."""
    run = settings.run
    for name in ("evaluation", "dataset_dir"):
        if getattr(settings, name):
            raise UserError(f"expected --{name} for a pre-training, found the run of a classification: leave it out")
    if not (run / METRICS_FILE).is_file():
        if runs := sorted(path.name for path in run.glob("run_*") if path.is_dir()):
            raise UserError(f"expected one run, found the evaluation {run}, which holds {', '.join(runs)}: name one")
        raise UserError(
            f"expected a finished classification run in {run}, found no {METRICS_FILE}, which is written last: let it "
            "end, or go on with it by --resume True"
        )
    if not (run / MODEL).is_file():
        raise UserError(
            f"expected a run that trained a network, found no {MODEL} in {run}: share the run that trained it"
        )


def _read_record(run: Path) -> dict[str, Any]:
    path = run / METRICS_FILE
    try:
        with reading(path):
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"expected JSON in {path}, found a damaged file ({error}): evaluate again") from error
    name = lacking(record, _RECORD)
    if not name and record.get("epochs") is not None:
        name = lacking(record, {"epochs": int, "best_epoch": int})
    if name:
        raise UserError(f"expected the record of a run in {path}, found one without {name}: evaluate again")
    return record


def _check_header(header: Mapping[str, Any], record: Mapping[str, Any], weights: Path) -> None:
    """Refuse a network whose header tells another run than the record.

    Raises:
        UserError: it does.
    """
    if name := lacking(header, _HEADER):
        raise UserError(
            f"expected the network of this run in {weights}, found a header without {name}: put the file that the run "
            "wrote there"
        )
    own = header["record"]
    pairs = {
        "task": (record["task"], header.get("task")),
        "classes": (list(record["classes"]), list(header["classes"])),
        "best epoch": (record["best_epoch"], header.get("epoch")),
        "mode": (record["mode"], own.get("mode")),
        "backbone": (record["settings"].get("backbone"), header["backbone"]),
        "settings": (record["settings"], own.get("settings")),
    }
    for name, (expected, found) in pairs.items():
        if expected != found:
            said = "" if name == "settings" else f" {expected}, found {found}"
            raise UserError(
                f"expected the network of this run in {weights}, with the {name} of {METRICS_FILE}{said}: put the "
                "file that the run wrote there"
            )


def _length(record: Mapping[str, Any]) -> str:
    if record["epochs"] is None:
        return f"a logistic regression on features of the frozen encoder, penalty {record.get('penalty', 'not known')}"
    return f"{counted(record['epochs'], 'epoch')}, the best one is {record['best_epoch']}"


def _config(run: Path) -> dict[str, Any]:
    """The record of how a run was computed, which is no condition; empty where it is not there or damaged."""
    try:
        content = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _given(run: Path) -> dict[str, Any]:
    """The settings of a run with their paths, which its other record leaves out."""
    given = _config(run).get("settings")
    return given if isinstance(given, dict) else {}


def _software(run: Path, record: Mapping[str, Any]) -> str:
    said, config = f"lessismore_transforms {record.get('version', 'of an unknown version')}", _config(run)
    if lacking(config, dict.fromkeys(("torch", "monai", "device"), str)):
        return said
    return f"{said}, torch {config['torch']}, MONAI {config['monai']}; {config['device']}"


def _performance(record: Mapping[str, Any]) -> str:
    """Scores of both splits with intervals, confusion, calibration, leaks."""
    intervals = record.get("intervals", {})
    rows = []
    for name in _SCORES:
        low, high = intervals.get(name, (None, None))
        between = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else ""
        values = [record[split].get(name) for split in ("val", "test")]
        rows.append([_WORDS.get(name, name.replace("_", " ")), *map(_number, values), between])
    unit = plural_unit(intervals["unit"]) if intervals else "pictures"
    classes = record["classes"]
    confused = [
        [classes[label], *(count(int(n)) for n in line)] for label, line in enumerate(record["confusion"]["test"])
    ]
    adjusted = record["test"].get("calibrated") or {}
    temperature = (
        f"\n\nThe temperature that fits the validation split best is {adjusted['temperature']:.3g}: the "
        + (f"calibration error of the test split is then {_number(adjusted.get('ece'))}.")
        if adjusted.get("temperature") is not None
        else ""
    )
    chosen = "penalty" if record["epochs"] is None else "epoch"
    return "\n\n".join(
        [
            markdown_table(("score", "validation", "test", "95 % interval, test"), rows),
            f"The {chosen} was chosen by the validation split, whose scores are therefore too good. Intervals resample "
            f"{unit}. Sensitivity and specificity are those of {classes[record['positive']]}.{temperature}",
            f"![ROC, precision and recall, confusion, calibration on the test split]({FIGURE})",
            markdown_table(("test pictures of", *(f"taken for {name}" for name in classes)), confused),
            f"![Loss and scores of the validation split over the steps of the training]({CURVES})",
            "#### **Leaks**",
            markdown_table(("leak", "found"), leak_rows(record.get("leakage") or {})),
        ]
    )


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _copied(source: Path) -> Any:
    def copy(path: Path) -> None:
        with reading(source):
            shutil.copyfile(source, path)

    return copy
