"""The options of a probe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import argument, option

NEIGHBOURS, TEMPERATURE, INNER_FOLDS = 20, 0.07, 5
PICTURE, NEAR_DUPLICATES, PATIENT = "picture", "near_duplicates", "patient"
_LEAST = {"folds": 2, "repeats": 1, "inner_folds": 2, "neighbours": 1, "batch_size": 1, "workers": 0, "seed": 0}


@dataclass(frozen=True)
class ProbeSettings:
    """Options of a probe, in the order in which `--help` tells them."""

    dataset_dir: Path = argument(metavar="PICTURES", help="folder of PNG, JPEG, TIFF or DICOM pictures")
    models: tuple[str, ...] = option(
        help="networks to compare, each NAME=RUN, NAME=FILE, NAME=NETWORK:FILE, NAME=NETWORK:imagenet or NAME=NETWORK "
        "(random weights)",
        role="path",
        metavar="NAME=WHAT",
    )
    output_dir: Path = option(help="folder for the results", role="path", metavar="DIR")
    labels: Path | None = option(
        None,
        help="CSV file with path and label, and perhaps patient, group and split (default: the only one in PICTURES, "
        "else class folders)",
        role="path",
        metavar="CSV",
    )
    label_column: str | None = option(
        None, help="its column of labels (default: label, or the only one)", metavar="NAME"
    )
    bundle: Path | None = option(
        None,
        help="bundle of a task, whose own listing tells labels, patients and splits, instead of a table or folders",
        role="path",
        metavar="DIR",
    )
    window: str | None = option(
        None,
        help="HU window of DICOM pictures, a name or level/width, or three with + between as three channels (default: "
        "that of the networks, else the range of each slice)",
    )
    protocol: str = option(
        "auto",
        help="the official split, or folds made here; auto takes the official one if there is",
        choices=("auto", "official", "folds"),
    )
    group: str | None = option(
        None,
        help="what is never divided: patient, near_duplicates, picture, or a column of the table (default: patient, "
        "else the group, else near-duplicates)",
    )
    correlation: float | None = option(None, help="from which on two pictures are near-duplicates (default: 0.65)")
    folds: int = option(5, help="number of folds", metavar="N")
    repeats: int = option(5, help="how often folds, or few labels, are drawn anew", metavar="N")
    fractions: tuple[float, ...] = option(
        (0.1, 0.25, 1.0),
        help="shares of the training patients (or groups) whose labels are known; 1 is always taken",
        metavar="SHARE",
    )
    inner_folds: int = option(
        INNER_FOLDS, help="folds within the training part, by which the penalty is chosen", metavar="N"
    )
    neighbours: int = option(NEIGHBOURS, help="nearest neighbours that vote", metavar="N")
    temperature: float = option(TEMPERATURE, help="of their votes")
    positive: int = option(1, help="number of the class of F1 where there are two")
    seed: int = option(0, help="of folds and draws")
    task: str | None = option(None, help="name of the task in tables (default: that of the folder)", role="label")
    baseline: str | None = option(
        None,
        help="network that the others are compared with (default: the first one of random weights, else the first)",
        role="report",
        metavar="NAME",
    )
    leakage: str = option("warn", help="what to do about leaks", role="report", choices=("warn", "fail", "ignore"))
    pretraining: tuple[str, ...] = option(
        (),
        help="what a network was pre-trained on, to look for leaks there too: an output of reduce, or FOLDER[:SPLIT]",
        role="path",
        metavar="OUT",
    )
    samples: int = option(1000, help="resamples of each interval", role="report", metavar="N", least=1)
    features_dir: Path | None = option(
        None, help="folder that keeps features, for several probes (default: DIR/features)", role="path", metavar="DIR"
    )
    backbone: str = option("resnet50", help="network of a file that does not tell")
    image_size: int | None = option(None, help="pixels per side, for all networks (default: each as in its training)")
    channels: int | None = option(None, help="1 for grey, 3 for colour, for all networks (default: as in its training)")
    batch_size: int = option(32, help="pictures that go through a network at once", role="speed", metavar="N")
    workers: int = option(
        0, help="processes that prepare pictures; the numbers are the same for any", role="speed", metavar="N"
    )
    device: str | None = option(None, help="torch device (default: the GPU if there is one)", role="speed")

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"expected {name} of {least} or more, found {getattr(self, name)}: give --{name} {least}"
                )
        if wrong := [share for share in self.fractions if not 0 < share <= 1]:
            raise UserError(f"expected fractions above 0 and up to 1, found {wrong[0]:g}: 0.1 is 10 % of the patients")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UserError(f"expected a temperature above 0, found {self.temperature:g}: {TEMPERATURE} is usual")
        if self.channels not in (None, 1, 3):
            raise UserError(f"expected channels of 1 (grey) or 3 (colour), found {self.channels}: give one of these")
        if self.image_size is not None and self.image_size < 1:
            raise UserError(f"expected an image_size of 1 pixel or more, found {self.image_size}: 224 is usual")

    @property
    def shares(self) -> tuple[float, ...]:
        """The fractions, the largest first; that is 1."""
        return tuple(sorted({*self.fractions, 1.0}, reverse=True))

    def told(self) -> dict[str, Any]:
        """The settings that decide the numbers, but for networks and pictures."""
        names = (
            "protocol", "group", "correlation", "folds", "repeats", "inner_folds", "neighbours", "temperature",
            "positive", "seed", "window",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"fractions": list(self.shares)}
