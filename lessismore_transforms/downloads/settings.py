"""The options of `download`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.options import argument, option


@dataclass(frozen=True)
class DownloadSettings:
    """Options of `download`, in the order in which `--help` tells them."""

    name: str = argument(
        metavar="NAME",
        help="lidc, fdg-pet-ct, covid-ct, pneumonia-cxr, colorectal, breakhis, head-ct, or a MedMNIST set",
    )
    output_dir: Path = option(help="folder for the data; the same one goes on where it was left", metavar="DIR")
    patients: int | None = option(None, help="only the first N patients, by id; CT archives", metavar="N", least=1)
    ids: tuple[str, ...] = option((), help="only this patient; may be repeated; CT archives", metavar="PATIENT")
    size: int | None = option(None, help="pixels per side of a MedMNIST set: 28, 64, 128 or 224 (default: 28)")
    yes: bool = option(False, help="do not ask: size and licence are known and fine")
