"""All that is known of a trained network, before anything is written of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lessismore_transforms.options import is_plain, names

NOT_STATED = "not stated"
PLACE_OF_DATA = "/workspace/data"  # in the configurations of every bundle
Row = tuple[str, str]  # what a fact is called, and what it is


@dataclass(frozen=True, eq=False)
class Facts:
    """A trained network with its record, checked against each other.

    Args:
        weights: the safetensors file of the run.
        header: of that file.
        network: on the CPU, in eval mode, filled with these weights; maps pictures (N, C, H, W) to (N, F).
        bundle: of ours that trained it, whose files are shared.
        overlay: configuration of that bundle which makes it this method, empty for none.
        title: for people.
        task: one line, for metadata.
        description: a sentence or two of facts, for metadata and the card.
        classes: names, in the order of the network's outputs; empty for an encoder.
        channels: of a picture before it goes in: 1 for grey, 3 for colour.
        modality_known: whether it was trained on what its bundle is for; a folder of own pictures may hold anything.
        settings: that decided the training, by their names in the configuration; no paths.
        data: rows on what it was trained on.
        training: rows on how.
        performance: the part of the card on what it is worth, in Markdown.
        limits: what the card says that it must not be used for, a sentence each, beside what holds for all.
        scores: plain numbers, for `eval_metrics` of the metadata.
        left_out: names in the header of the weights that are not handed on, because they tell of single pictures.
        pictures: what writes a picture into the file of that name in the card's folder.
        prepare: network input float32 (1, C, S, S) of a picture uint8 (C, H, W), as inference prepares it.
        private: texts that no shared file may hold: paths of the run and its data.
    """

    weights: Path
    header: Mapping[str, Any]
    network: nn.Module
    bundle: str
    overlay: str
    title: str
    task: str
    description: str
    classes: tuple[str, ...]
    channels: int
    modality_known: bool
    settings: Mapping[str, Any]
    data: Sequence[Row]
    training: Sequence[Row]
    performance: str
    limits: Sequence[str]
    scores: Mapping[str, float]
    pictures: Mapping[str, Callable[[Path], None]]
    prepare: Callable[[torch.Tensor], torch.Tensor]
    left_out: Sequence[str] = field(default_factory=tuple)
    private: Sequence[str] = field(default_factory=tuple)

    @property
    def size(self) -> int:
        """Pixels per side of what the network sees."""
        size: int = self.header["image_size"]
        return size

    @property
    def backbone(self) -> str:
        """Name of the encoder's architecture."""
        name: str = self.header["backbone"]
        return name


def numbers(values: Any) -> list[float]:
    """One number or several, as a list."""
    return [float(value) for value in (values if isinstance(values, (list, tuple)) else [values])]


def sha256(path: Path) -> str:
    """Of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def deciding(given: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The settings of a run that decide its result: no paths, and not what only changes speed, reports or names.

    Args:
        given: all settings by name; those that are none of `kind` are a bundle's own, and decide.
        kind: the dataclass of options that all runs of this family share.
    """
    others = {*names(kind)} - {*names(kind, "identity", "setting", "run")}
    return {name: value for name, value in given.items() if name not in others and is_plain(value)}


def recorded_paths(given: Mapping[str, Any], kind: type, run: Path) -> list[str]:
    """The paths that the record of a run names, absolute, for what no shared file may hold.

    Args:
        given: all settings by name.
        kind: the dataclass of options that all runs of this family share.
        run: folder of the run; relative paths may be relative to where it was started, here or in a folder around it.
    """
    found: set[str] = set()
    for name, value in given.items():
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(text, str) or not text:
                continue
            bases = (Path(), *run.resolve().parents[:2]) if name in names(kind, "path") else ()
            found |= {str(Path(text)), *(str((base / text).resolve()) for base in bases)}
    return sorted(text for text in found if Path(text).is_absolute())


def lacking(content: Any, wanted: Mapping[str, Any]) -> str:
    """The first entry that a record lacks, or that is of another kind; empty where all are there.

    Args:
        content: what was read.
        wanted: kind of each entry (int, or (int, float), ...) by its name, `plan.steps` for one within another.
    """
    for name, kind in wanted.items():
        value = content
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return name
    return ""


def network_title(name: str) -> str:
    """`ResNet18` of `resnet18`; other names stay."""
    plain = name.removeprefix("timm:")
    return plain.replace("resnet", "ResNet", 1) if plain.startswith("resnet") else plain


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, cells as they are but for bars and line ends."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(str(cell).replace('|', '/').split()) for cell in line)} |" for line in lines
    )
