"""The configuration files of a shared bundle: those of the bundle that trained it, filled with what the run tells."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lessismore_transforms import __version__
from lessismore_transforms.options import is_plain
from lessismore_transforms.sharing.facts import NOT_STATED, PLACE_OF_DATA, Facts, numbers
from lessismore_transforms.sharing.settings import ShareSettings
from lessismore_transforms.wording import counted

_OF_HEADER = ("backbone", "image_size", "channels", "mean", "std")
_OURS = "lessismore-transforms"
_DECIMALS = 6


def fill_inference(config: Mapping[str, Any], facts: Facts, settings: ShareSettings) -> dict[str, Any]:
    """An inference.json whose settings are those of the shared network where the weights have no header to tell them.

    Args:
        config: of the bundle that trained it.
        facts: of the network.
        settings: of the share.
    """
    header = facts.header
    filled = {**config, "dataset_dir": f"{PLACE_OF_DATA}/{settings.name}"}
    if "defaults" in config:  # of a classifier
        known = {name: header[name] for name in config["defaults"] if name in header}
        more = {name: header[name] for name in ("head", "window") if header.get(name) is not None}
        return {**filled, "defaults": {**config["defaults"], **known, **more}}
    for name in _OF_HEADER:
        value = numbers(header[name]) if name in ("mean", "std") else header.get(name, 1)
        told = str(config.get(name, ""))
        asks = re.fullmatch(rf"\$@header\.get\('{name}', .*\)", told)
        filled[name] = f"$@header.get('{name}', {value!r})" if asks else value
    return filled


def fill_training(config: Mapping[str, Any], facts: Facts, settings: ShareSettings) -> dict[str, Any]:
    """A train.json, or an overlay of it, with the settings of the run in place of the defaults.

    Expressions stay: they follow the data and the machine of whoever trains.
    """
    plain = {name for name, value in config.items() if is_plain(value) and not str(value).startswith(("$", "@", "%"))}
    filled = {**config, **{name: value for name, value in facts.settings.items() if name in plain}}
    if "dataset_dir" in config:
        filled["dataset_dir"] = f"{PLACE_OF_DATA}/{settings.name}"
    return filled


def fill_metadata(config: Mapping[str, Any], facts: Facts, settings: ShareSettings) -> dict[str, Any]:
    """A metadata.json of facts: what goes in and comes out, versions that it was proven with, who shares it."""
    authors = ", ".join(settings.author)
    wide = facts.classes == () or facts.channels == 3
    channels = 3 if wide else 1
    mean, std = numbers(facts.header["mean"]), numbers(facts.header["std"])
    low = min(round((0 - m) / s, _DECIMALS) for m, s in zip(mean, std, strict=True))
    high = max(round((1 - m) / s, _DECIMALS) for m, s in zip(mean, std, strict=True))
    seen = "grey values" if facts.channels == 1 else "colours, or three windows,"
    image = {
        **config["network_data_format"]["inputs"]["image"],
        "modality": config["network_data_format"]["inputs"]["image"]["modality"]
        if facts.modality_known
        else NOT_STATED,
        "num_channels": channels,
        "spatial_shape": [facts.size, facts.size],
        "value_range": [low, high],
        "channel_def": {str(place): "image" for place in range(channels)},
    }
    outputs = len(facts.classes) or _features(facts)
    pred = {
        **config["network_data_format"]["outputs"]["pred"],
        "num_channels": outputs,
        "channel_def": {str(place): name for place, name in enumerate(facts.classes)},
    }
    filled = {
        **config,
        "version": settings.version,
        "changelog": {settings.version: settings.changes},
        "monai_version": _installed("monai"),
        "pytorch_version": _installed("torch"),
        "numpy_version": _installed("numpy"),
        "required_packages_version": {name: _installed(name) for name in config["required_packages_version"]},
        "name": facts.title,
        "task": facts.task,
        "description": facts.description,
        "authors": authors,
        "copyright": f"Copyright (c) {authors}",
        "data_source": f"{settings.data or NOT_STATED}; nothing of it is in the bundle",
        "image_classes": f"{seen} of a picture, resized and normalised, as {counted(channels, 'channel')}",
        "eval_metrics": {name: round(value, _DECIMALS) for name, value in facts.scores.items()},
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }
    if facts.classes:
        filled["pred_classes"] = ", ".join(f"{name} ({place})" for place, name in enumerate(facts.classes))
    else:
        filled["pred_classes"] = f"the {outputs} numbers of an embedding"
    if settings.cite:
        filled["references"] = [settings.cite, *config.get("references", [])]
    return filled


def write_configuration(path: Path, content: Mapping[str, Any]) -> None:
    """Write a configuration as the zoo has them: indented by four."""
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def read_configuration(path: Path) -> dict[str, Any]:
    """The content of a configuration file of ours."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _features(facts: Facts) -> int:
    from lessismore_transforms.weights.backbones import feature_size

    return feature_size(facts.network)


def _installed(package: str) -> str:
    """The version of a package that the bundle is proven with, as an index knows it: without what follows a +."""
    return (__version__ if package == _OURS else version(package)).partition("+")[0]
