"""The settings that all pre-trainings share; a method adds its own, and other defaults, in its bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number, option, parse_bools
from lessismore_transforms.wording import listed

Paths = str | Path | Sequence[str | Path]
SAMPLINGS = ("random", "rotate", "spread")
SPREAD_MM = 10.0
NEAR_COPIES = ("keep", "mask")


@dataclass(frozen=True)
class PretrainingSettings:
    """Settings that all methods share, in the order in which they stand at the top of a configuration."""

    dataset_dir: Paths = option(
        help="output folder of the reduction, or a list of them; or a folder of pictures", role="path"
    )
    selection: str = option("default", help="which of its selections", role="path")
    split: str | Path | None = option(
        None, help="which of the pictures: `LIST.txt`, `TABLE.csv` or `TABLE.csv:SPLIT`; none for all", role="path"
    )
    channels: int | None = option(
        None, help="1 reads the pictures as grey, 3 in colour; none for as they all are stored"
    )
    output_dir: str | Path = option("run", help="folder for the results", role="path")
    resume: bool = option(False, help="go on with the run in `output_dir`", role="speed")
    max_epochs: int = option(800, help="how often each slice is seen")
    max_steps: int | None = option(
        None, help="updates of the weights instead; settings in epochs then count `max_epochs`-th parts of them"
    )
    batch_size: int = option(128, help="slices per iteration, of all processes together")
    accumulation: int = option(1, help="iterations whose gradients are added up for one update")
    seed: int = option(0, help="of weights, order of slices and views")
    sampling: str = option(
        "random",
        help="slices of an epoch: `random`, all; `rotate`, one of each cluster of near copies; `spread`, all, near "
        "ones in different batches",
    )
    balance: bool = option(False, help="draw from every volume equally often, whatever number of slices it keeps")
    volumes_per_batch: int | None = option(
        None, help="with `balance`: volumes that a batch takes slices of, equally many; all by default"
    )
    spread_mm: float | None = option(None, help="distance along the slice axis within which slices are near")
    spread_bits: int | None = option(None, help="distance of their difference hashes instead, bits of 64")
    device: Any = option(None, help="torch device, such as `cuda:1`", role="speed")
    precision: str = option(
        "auto", help="`fp32`, `bf16` or `fp16`; auto is bf16 on a GPU that has it, else fp32", role="setting"
    )
    channels_last: bool = option(True, help="memory format of the convolutions", role="setting")
    compile: bool = option(False, help="`torch.compile`", role="setting")
    workers: int = option(4, help="processes that read slices; 0 reads in the main one", role="speed")
    backbone: str = option(
        "resnet50", help="a CNN of torchvision that takes pictures of any size, or `timm:NAME`", role="identity"
    )
    clip_norm: float | None = option(None, help="largest length of all gradients together")
    mean: Sequence[float] | None = option(
        None, help="what is subtracted from grey values of 0..1; three values make three channels"
    )
    std: Sequence[float] | None = option(None, help="what they are divided by")
    log_interval: int = option(10, help="steps between lines of the log", role="speed")
    health_interval: int = option(20, help="iterations between looks at the health", role="report")
    checkpoint_minutes: float = option(
        5.0, help="time between two checkpoints; 0 writes one after every epoch", role="speed"
    )
    export_epochs: int = option(
        50, help="epochs between exports of the backbone; 0 for the last one only", role="speed"
    )
    probe: str | Path | None = option(
        None,
        help="labelled pictures, not those that are trained on: a folder of class folders, or a CSV file",
        role="report",
    )
    probe_label: str | None = option(None, help="column of the labels in that CSV file", role="report")
    probe_output: str | Path | None = option(
        None, help="output folder of the reduction whose slices the CSV file names by `slice_id`", role="report"
    )
    probe_epochs: int = option(10, help="epochs between looks at the probe", role="report")

    def __post_init__(self) -> None:
        parse_bools(self)
        _check_sampling(self.sampling, self.spread_mm, self.spread_bits)
        if self.balance and self.sampling == "spread":
            raise UserError("expected balance with the sampling random or rotate, found it with spread: drop one")
        if self.volumes_per_batch is not None and not self.balance:
            raise UserError("expected volumes_per_batch with balance, found it without: add --balance True, or drop it")
        if self.sampling == "spread" and self.spread_bits is None:
            object.__setattr__(self, "spread_mm", SPREAD_MM if self.spread_mm is None else float(self.spread_mm))


@dataclass(frozen=True)
class ContrastiveSettings(PretrainingSettings):
    """What methods with negatives share beside."""

    near_copies: str = option(
        "keep",
        help="`mask`: slices of one volume within `mask_bits` are no negatives of each other",
        choices=NEAR_COPIES,
    )
    mask_bits: int = option(6, help="bits of the difference hash, for `--near_copies mask`")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.near_copies not in NEAR_COPIES:
            raise UserError(f"expected near_copies to be {' or '.join(NEAR_COPIES)}, found {self.near_copies!r}")
        if not is_number(self.mask_bits, int) or not 0 <= self.mask_bits <= 64:
            raise UserError(f"expected mask_bits to be 0 to 64 whole bits, found {self.mask_bits!r}; 6 is usual")


def _check_sampling(sampling: str, spread_mm: Any, spread_bits: Any) -> None:
    if sampling not in SAMPLINGS:
        raise UserError(f"expected a sampling of {listed(SAMPLINGS, 'or')}, found {sampling!r}; random is usual")
    distances = {"spread_mm": spread_mm, "spread_bits": spread_bits}
    given = {name: value for name, value in distances.items() if value is not None}
    if given and sampling != "spread":
        name = next(iter(given))
        raise UserError(f"expected {name} with --sampling spread, found it with {sampling}: drop it, or take spread")
    if len(given) > 1:
        raise UserError(f"expected spread_mm or spread_bits, found both ({spread_mm} and {spread_bits}): drop one")
    if "spread_mm" in given and not (is_number(spread_mm, int, float) and 0 < spread_mm < math.inf):
        raise UserError(f"expected spread_mm to be a number of mm above 0, found {spread_mm!r}; {SPREAD_MM:g} is usual")
    if "spread_bits" in given and not (is_number(spread_bits, int) and 0 <= spread_bits <= 64):
        raise UserError(f"expected spread_bits to be 0 to 64 whole bits, found {spread_bits!r}; 6 is usual")
