"""A finished volume of a run in progress: its record and its rows in manifest and selection, `parts/<volume>.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import write_json
from lessismore_transforms.errors import ManifestError
from lessismore_transforms.pipeline.output_folder import PARTS
from lessismore_transforms.pipeline.slice_stream import Streamed
from lessismore_transforms.pipeline.task import Task
from lessismore_transforms.reduced.manifest import content_crc32
from lessismore_transforms.reduced.table_files import format_number, read_record, slice_id
from lessismore_transforms.reduction.hashing import format_hash
from lessismore_transforms.reduction.selection import Ranking
from lessismore_transforms.reduction.target import Kept
from lessismore_transforms.wording import percent, plural


def part_path(output_dir: Path, volume: str) -> Path:
    """Where the part of a volume stands."""
    return output_dir / PARTS / f"{volume}.json"


def part_of(task: Task) -> Path:
    """Where the part of a task stands."""
    return part_path(task.output_dir, task.volume.volume)


def write_part(
    output_dir: Path, record: dict[str, Any], rows: Sequence[Sequence[str]], selection: Sequence[Sequence[str]]
) -> None:
    """Write the part of a volume, which proves that it is done.

    Args:
        output_dir: output folder of the run.
        record: the volume's, as manifest.json holds it.
        rows: its rows in manifest.csv.
        selection: its rows in the run's own selection.
    """
    content = {"record": record, "rows": rows, "selection": selection}
    path = part_path(output_dir, record["volume"])
    write_json(path, {**content, "crc32": content_crc32(content)}, indent=None, durable=False)


def read_part(task: Task) -> dict[str, Any]:
    """The part of a task that is done: `record`, `rows` and `selection`."""
    return read_record(part_of(task))


def part_record(path: Path) -> dict[str, Any]:
    """The record of the volume in a part.

    Raises:
        ManifestError: the part was damaged.
    """
    part = read_record(path)
    crc32 = part.pop("crc32", None)
    if crc32 != content_crc32(part) or part["record"]["volume"] != path.stem:
        raise ManifestError(f"{path} was changed since it was written: reduce again")
    record: dict[str, Any] = part["record"]
    return record


def kept_indices(part: dict[str, Any]) -> list[int]:
    """The slices that a part's selection keeps."""
    return [index for index, row in enumerate(part["selection"]) if row[1] == "1"]


def make_record(streamed: Streamed) -> dict[str, Any]:
    """What manifest.json says of a volume, apart from its ranking."""
    task, volume = streamed.task, streamed.task.volume
    count, height, width = volume.shape
    record: dict[str, Any] = {
        "volume": volume.volume,
        "patient": task.patient,
        "series": volume.series,
        "format": volume.format,
        "path": volume.path,
        "slices": count,
        "height": height,
        "width": width,
        "spacing_mm": [round(value, 6) for value in volume.spacing_mm],
        "plane": volume.orientation.plane,
        "crc32": str(streamed.crc),
        "notes": [*volume.notes, *_notes(streamed)],
    }
    if task.settings.as_released and volume.format != "images":
        record["first_number"] = task.first_number
    return record


def _notes(streamed: Streamed) -> list[str]:
    """What the pass through the volume found odd."""
    notes = []
    replaced, bodiless = streamed.replaced, streamed.bodiless
    if replaced:
        odd = plural(replaced, "voxel was", "voxels were")
        slices = plural(replaced, "its slice", "their slice")
        notes.append(f"{replaced} {odd} NaN or infinite: set to the lowest value of {slices}")
    settings = streamed.task.settings
    if streamed.padding and not settings.as_released:
        share = percent(streamed.padding / math.prod(streamed.task.volume.shape))
        where = " where slices are compared, and stay in the pictures" if settings.pixels == "released" else ""
        notes.append(f"{share} of the voxels are padding below -1024 HU: they count as -1024 HU{where}")
    if broken := len(streamed.candidate) - int(streamed.candidate.sum()) - bodiless:
        tell = plural(broken, "slice cannot be read; its row tells", "slices cannot be read; their rows tell")
        notes.append(f"{broken} {tell} why")
    if bodiless:
        empty = plural(bodiless, "slice shows no body and is", "slices show no body and are")
        notes.append(f"{bodiless} {empty} left out")
    return notes


def manifest_rows(streamed: Streamed, ranking: Ranking) -> list[tuple[str, ...]]:
    """The rows of a volume in manifest.csv."""
    task, volume, candidate = streamed.task, streamed.task.volume, streamed.candidate
    count, height, width = volume.shape
    names = _names(volume.volume, count)
    return [
        (
            names[index], volume.volume, task.patient, volume.series, volume.slice_path(index), str(index),
            f"{position + 0.0:.3f}", str(height), str(width),
            format_hash(streamed.hashes[index]) if candidate[index] else "",
            format_number(ranking.removed_at[index]),
            _name_at(names, ranking.removed_by, index),
            str(ranking.rank[index]) if ranking.rank[index] else "",
            streamed.reasons[index],
        )
        for index, position in enumerate(volume.positions_mm)
    ]  # fmt: skip


def selection_rows(volume: str, kept: Kept) -> list[tuple[str, ...]]:
    """The rows of a volume in the run's own selection."""
    names = _names(volume, len(kept.kept))
    return [
        (
            names[index],
            str(int(kept.kept[index])),
            _name_at(names, kept.kept_by, index),
            format_number(kept.distance[index]),
        )
        for index in range(len(names))
    ]


def _names(volume: str, count: int) -> list[str]:
    return [slice_id(volume, index) for index in range(count)]


def _name_at(names: list[str], others: NDArray[np.int64], index: int) -> str:
    """The name of the slice that stands in the place of another; nothing for -1."""
    return names[others[index]] if others[index] >= 0 else ""
