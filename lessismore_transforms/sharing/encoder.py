"""The facts of a finished pre-training: its record and its weights, which have to fit each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import torch

from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.methods import METHODS
from lessismore_transforms.pretraining.embed import prepare
from lessismore_transforms.pretraining.settings import PretrainingSettings
from lessismore_transforms.sharing.facts import Facts, deciding, lacking, network_title, numbers, recorded_paths
from lessismore_transforms.sharing.judged import judged
from lessismore_transforms.sharing.settings import ShareSettings
from lessismore_transforms.sharing.training_data import data_rows
from lessismore_transforms.training.checkpoint import LAST, read_checkpoint
from lessismore_transforms.training.curves import CURVES, draw_curves, read_log
from lessismore_transforms.training.run_log import CONFIG
from lessismore_transforms.weights.backbones import build_backbone, feature_size, read_metadata, weights_id
from lessismore_transforms.weights.layouts import BACKBONE, read_backbone
from lessismore_transforms.wording import count, counted, plural

_HEALTH = {
    "loss": "loss", "spread": "spread of the normalised embedding", "rank_me": "effective rank (RankMe)",
    "probe_accuracy": "probe, accuracy", "probe_balanced_accuracy": "probe, balanced accuracy",
    "probe_majority": "probe, accuracy of the most frequent class",
}  # fmt: skip


_NUMBERS = (int, float, list)
_RECORD = {  # of config.json, what is read of it
    **dict.fromkeys(("version", "torch", "monai", "device"), str),
    **dict.fromkeys(("processes", "plan.steps", "settings.batch_size", "settings.accumulation"), int),
    **dict.fromkeys(("settings.backbone", "settings.precision", "settings.selection", "settings.sampling"), str),
    "settings.dataset_dir": (str, list),
    "trainer": dict,
}
_OF_PICTURES = {"trainer.pictures.pictures": int, "trainer.pictures.channels": int, "trainer.pictures.identity": str}
_HEADER = {
    **dict.fromkeys(("backbone", "method"), str),
    **dict.fromkeys(("image_size", "iteration", "epoch"), int),
    **dict.fromkeys(("mean", "std"), _NUMBERS),
}


def read_encoder(settings: ShareSettings) -> Facts:
    """All that is known of the encoder of a finished pre-training.

    Raises:
        UserError: the run did not finish, or weights, record, data or evaluations do not fit each other.
    """
    run = settings.run
    config, log = _read_config(run), read_log(run)
    end = _end_of(log, run)
    weights = run / BACKBONE
    header = read_metadata(weights)
    _check_header(header, config, end, weights)
    method = METHODS[header["method"]]
    network = build_backbone(header["backbone"], weights=weights, method=method.name)
    compared, identity = _compare_with_checkpoint(run, weights, header)
    data, folders = data_rows(config, run, settings.dataset_dir, identity)
    ct = "pictures" not in config.get("trainer", {})
    features, channels = feature_size(network), int(header.get("channels", 1))
    told = network_title(header["backbone"])
    plan, given, processes = config["plan"], config["settings"], int(config["processes"])
    training = [
        ("method", method.title),
        ("network", f"{told}, {count(sum(p.numel() for p in network.parameters()))} parameters, {features} features"),
        (
            "length",
            f"{counted(plan['steps'], 'step')}, {counted(int(header['epoch']), 'epoch')}, "
            f"batches of {given['batch_size']}",
        ),
        ("began and ended", _times(log)),
        ("software", f"lessismore_transforms {config['version']}, torch {config['torch']}, MONAI {config['monai']}"),
        (
            "device",
            f"{config['device']}, {processes} {plural(processes, 'process', 'processes')}, {given['precision']}",
        ),
        ("weights compared with the last checkpoint", compared),
    ]
    performance, scores = judged(settings.evaluation, weights_id(network))
    last = _last(log)
    return Facts(
        weights=weights,
        header=header,
        network=network,
        bundle=method.bundle,
        overlay=method.overlay,
        title=settings.title or f"{told} pre-trained by {method.title}",
        task=f"Features of {'CT slices' if ct else 'pictures'} by a {told} that was pre-trained without labels",
        description=(
            f"A {told} that {method.title} pre-trained without labels. It gives {features} numbers for a picture."
        ),
        classes=(),
        channels=channels,
        modality_known=ct,
        settings=deciding(given, PretrainingSettings) | _chosen(given),
        data=data,
        training=training,
        performance="\n\n".join([_health(last, log), performance]),
        limits=() if settings.evaluation else ("Nothing was measured with it: see Performance.",),
        scores=scores or {name: last[name] for name in last if name.startswith("probe_")},
        pictures={CURVES: lambda path: _draw(run, path)},
        prepare=partial(_prepared, header=header),
        private=[
            *(str(path.resolve()) for path in (run, *folders, *settings.evaluation)),
            *recorded_paths(given, PretrainingSettings, run),
        ],
    )


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which of the data were taken, where that is said by a name; a list of pictures without the folder it lies in."""
    split = given.get("split")
    return {"selection": given["selection"], "split": None if split is None else PurePath(str(split)).name}


def _prepared(picture: torch.Tensor, header: Mapping[str, Any]) -> torch.Tensor:
    return prepare(picture[None], size=header["image_size"], mean=numbers(header["mean"]), std=numbers(header["std"]))


def _draw(run: Path, path: Path) -> None:
    draw_curves([run], path, labels=["this training"])  # the name of its folder is nobody's business


def _read_config(run: Path) -> dict[str, Any]:
    path = run / CONFIG
    with reading(path):
        if not path.is_file():
            raise UserError(
                f"expected the folder of a finished pre-training, or run_00 of an evaluation, found no {CONFIG} in "
                f"{run}: fix the path"
            )
        text = path.read_text(encoding="utf-8")
    try:
        content: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"expected the record of a training in {path}, found a damaged file: restore it") from error
    of_pictures = "pictures" in (content.get("trainer") or {}) if isinstance(content, dict) else False
    if name := lacking(content, _RECORD | (_OF_PICTURES if of_pictures else {})):
        raise UserError(f"expected the record of a pre-training in {path}, found one without {name}: restore it")
    return content


def _end_of(log: Sequence[Mapping[str, Any]], run: Path) -> int:
    """The step with which a run ended.

    Raises:
        UserError: it did not.
    """
    events = [line for line in log if "event" in line]
    if not events or events[-1]["event"] != "end":
        reason = f" ({events[-1]['reason']})" if events and events[-1].get("reason") else ""
        last = max((line["step"] for line in log), default=0)
        raise UserError(
            f"expected a finished training in {run}, found one that is at step {last}{reason}: let it end, or go on "
            "with it by --resume True"
        )
    return int(events[-1]["step"])


def _check_header(header: Mapping[str, Any], config: Mapping[str, Any], end: int, weights: Path) -> None:
    """Refuse weights whose header tells another training than the record.

    Raises:
        UserError: it does.
    """
    if name := lacking(header, _HEADER):
        raise UserError(
            f"expected weights of a pre-training in {weights}, found a header without {name}: put the file that the "
            "run wrote there"
        )
    given = config["settings"]
    expected = {
        "backbone": given["backbone"],
        "iteration": end * int(given["accumulation"]),
        "mean": given.get("mean") and numbers(given["mean"]),
        "std": given.get("std") and numbers(given["std"]),
    }
    found = {**header, **{name: numbers(header[name]) for name in ("mean", "std") if name in header}}
    for name, value in expected.items():
        if value is not None and found.get(name) != value:
            raise UserError(
                f"expected weights of this run in {weights}, with {name} {value} as in {CONFIG} and the log, found "
                f"{name} {found.get(name)}: put the file that the run wrote there"
            )
    if header.get("method") not in METHODS:
        raise UserError(
            f"expected a method out of {', '.join(METHODS)} in the header of {weights}, found "
            f"{header.get('method')!r}: put the file that the run wrote there"
        )


def _compare_with_checkpoint(run: Path, weights: Path, header: Mapping[str, Any]) -> tuple[str, str | None]:
    """Words on whether the run's last checkpoint holds these weights, and the data's identity that it tells.

    Raises:
        UserError: the checkpoint is of the same step and holds other weights, or is of another method.
    """
    path = run / LAST
    if not path.is_file():
        return "no: there is no checkpoint any more", None
    content = read_checkpoint(path)
    identity = content["identity"]
    if identity.get("method") != header["method"]:
        raise UserError(
            f"expected weights of method {identity.get('method')} in {weights}, as {path} tells, found those of "
            f"{header['method']}: put the file that the run wrote there"
        )
    if content.get("iteration") != header["iteration"]:
        return "no: it is of another step", identity.get("slices")
    if weights_id(read_backbone(path)[0]) != weights_id(weights):
        raise UserError(
            f"expected the weights of {path} in {weights}, found others: put the file that the run wrote there"
        )
    return "yes: equal in every number", identity.get("slices")


def _last(log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last logged value of each number."""
    found: dict[str, float] = {}
    for line in log:
        found |= {name: value for name, value in line.items() if isinstance(value, float)}
    return found


def _times(log: Sequence[Mapping[str, Any]]) -> str:
    days = [str(line["time"])[:10] for line in log if "time" in line]
    return f"{days[0]} and {days[-1]}" if days else "not known"


def _health(last: Mapping[str, float], log: Sequence[Mapping[str, Any]]) -> str:
    """The end of the curves in words."""
    rows = [f"{words} {last[name]:.4g}" for name, words in _HEALTH.items() if name in last]
    constant = (
        f" Where the loss stays at {last['loss_constant']:.4g} nothing is learnt." if "loss_constant" in last else ""
    )
    said = list(dict.fromkeys(str(line["advice"]) for line in log if "advice" in line))
    warned = (
        "\n".join(["", "", "The training's own health check said:", "", *(f"- {each}" for each in said)])
        if said
        else ""
    )
    return (
        f"![Loss and health over the steps of the training]({CURVES})\n\nAt the end: {'; '.join(rows)}."
        f"{constant}{warned}"
    )
