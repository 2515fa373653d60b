"""Made-up output folders without images, and selections in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lessismore_transforms.reduced.manifest import Manifest, write_manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.table_files import slice_id
from lessismore_transforms.reduction.hashing import format_hash
from lessismore_transforms.reduction.target import Target

NAMES = ("aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc")


def make_out(
    out: Path,
    volumes: list[list[int]],
    *,
    unreadable: tuple[str, ...] = (),
    names: tuple[str, ...] = NAMES,
    crc: str = "0x00000000",
    as_released: bool = False,
    first_number: int | None = None,
    thumbnails: bool = False,
) -> Path:
    """An output folder without images: volumes of slices with these hashes."""
    rows, records = [], []
    (out / "store" / "thumbnails" if thumbnails else out).mkdir(parents=True)
    for volume, hashes in zip(names, volumes, strict=False):
        rank = 0
        for index, value in enumerate(hashes):
            name = slice_id(volume, index)
            readable = name not in unreadable
            rank += readable
            rows.append(
                (
                    name, volume, "patient-0815", "1.2.840", f"Doe^John/{volume}.nii", str(index), str(index), "8", "9",
                    format_hash(value) if readable else "", "", "", str(rank) if readable else "",
                    "" if readable else "broken",
                )
            )  # fmt: skip
        record = {
            "volume": volume, "patient": "patient-0815", "series": "1.2.840", "format": "nifti",
            "path": f"Doe^John/{volume}.nii", "slices": len(hashes), "height": 8, "width": 9,
            "spacing_mm": [1.0, 1.0, 1.0], "plane": "axial", "crc32": crc, "notes": [],
            "store": {"slices": 0, "crc32": "0x00000000", "sum": 0, "squares": 0},
        }  # fmt: skip
        records.append(record if first_number is None else {**record, "first_number": first_number})
        if thumbnails:
            grey = np.tile(np.arange(len(hashes), dtype=np.uint8)[:, None, None], (1, 96, 96))
            np.save(out / "store" / "thumbnails" / f"{volume}.npy", grey)
    info = {"version": "9.9", "settings": {"method": "hash", "as_released": as_released}}
    write_manifest(out, rows, {**info, "failures": [], "skipped": [], "volumes": records})
    return out


def keep(out: Path, name: str, kept: list[int], target: Target | None = None) -> tuple[Path, str]:
    """Write a selection that keeps the slices of these rows."""
    ids = Manifest.read(out).slices["slice_id"]
    table = {"slice_id": ids, "kept": ids.index.isin(kept), "kept_by": "", "distance": np.nan}
    Selection(pd.DataFrame(table), target or Target.of()).write(out, name)
    return out, name


def make_pair(folder: Path) -> list[tuple[Path, str]]:
    """Two selections of an output folder with thumbnails, 6 and 4 of 30 slices, 2 of them in both."""
    out = make_out(folder, [[0] * 10, [0] * 20], thumbnails=True)
    return [keep(out, "one", [0, 1, 2, 3, 10, 11]), keep(out, "other", [3, 4, 11, 12])]
