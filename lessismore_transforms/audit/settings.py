"""The options of an audit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import argument, option
from lessismore_transforms.wording import listed

ALIGNED = ("hash", "ssim")  # measures of pictures at one place
LEAST_SIZE = 16  # pixels: SSIM wants windows of 11, and networks a little more


@dataclass(frozen=True)
class AuditSettings:
    """Options of an audit, in the order in which `--help` tells them."""

    dataset_dir: Path = argument(metavar="OUT", help="output folder of reduce, whose store holds all slices")
    views: tuple[Path, ...] = option(
        help="configuration of a pre-training, such as bundles/ct_simclr_pretraining/configs/train.json, or RUN/"
        "config.json; given again, an overlay",
        role="path",
        metavar="JSON",
    )
    output_dir: Path = option(help="folder for the results", role="path", metavar="DIR")
    models: tuple[str, ...] = option(
        ("random=resnet18",),
        help="encoders, each NAME=RUN, NAME=FILE, NAME=NETWORK:FILE, NAME=NETWORK:imagenet or NAME=NETWORK (random "
        "weights)",
        role="path",
        metavar="NAME=WHAT",
    )
    image_size: int | None = option(
        None, help="pixels per side of the views (default: those of the configuration)", metavar="PIXELS"
    )
    batch_size: int | None = option(
        None,
        help="pictures of a batch, of which all others are negatives; for a queue of K, K + 1 (default: that of the "
        "configuration)",
        metavar="N",
        least=2,
    )
    balance: bool | None = option(
        None, help="volumes take turns in the batches, as `balance` of a pre-training makes them (default: as there)"
    )
    volumes_per_batch: int | None = option(
        None,
        help="with balance: volumes that share a batch (default: those of the configuration)",
        metavar="N",
        least=1,
    )
    distances_mm: tuple[float, ...] = option(
        (1.0, 2.0, 5.0, 10.0), help="distances of the neighbours that are looked at", metavar="MM"
    )
    bits: int = option(12, help="largest distance in bits of the difference hash at which slices are near copies")
    slices: int = option(
        2000, help="slices after which no further volume is taken; volumes are drawn at random", metavar="N", least=2
    )
    seed: int = option(0, help="of views, of drawn neighbours and of drawn volumes", least=0)
    backbone: str = option("resnet50", help="network of a file that does not tell")
    workers: int = option(
        0, help="processes that make views; the numbers are the same for any", role="speed", metavar="N", least=0
    )
    device: str | None = option(None, help="torch device (default: the GPU if there is one)", role="speed")

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= 64:
            raise UserError(f"expected bits of 0 to 64, found {self.bits}: 12 is the paper's largest threshold")
        if wrong := [mm for mm in self.distances_mm if not (math.isfinite(mm) and mm > 0)]:
            raise UserError(f"expected distances above 0 mm, found {wrong[0]:g}: 1 2 5 10 are usual")
        if len({*self.distances_mm}) < len(self.distances_mm):
            raise UserError(f"expected each of distances_mm once, found {list(self.distances_mm)}: drop one")
        if reserved := {each.partition("=")[0] for each in self.models} & {*ALIGNED}:
            raise UserError(
                f"expected names of models other than {listed(ALIGNED, 'and')}, which are measures themselves, found "
                f"{reserved.pop()}: name it otherwise"
            )
        if self.image_size is not None and self.image_size < LEAST_SIZE:
            raise UserError(
                f"expected an image_size of {LEAST_SIZE} pixels or more, found {self.image_size}: 64 is small and fast"
            )

    def told(self) -> dict[str, Any]:
        """The settings that decide the numbers, but for paths and networks."""
        names = ("image_size", "bits", "slices", "seed")
        return {name: getattr(self, name) for name in names} | {"distances_mm": list(self.distances_mm)}
