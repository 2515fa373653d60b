"""The end of a run: the parts of all volumes become manifest, default selection and index of the store."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lessismore_transforms import __version__
from lessismore_transforms.atomic import writing
from lessismore_transforms.errors import ManifestError
from lessismore_transforms.pipeline.finished_part import kept_indices, read_part
from lessismore_transforms.pipeline.output_folder import PARTS, RUNNING, sweep
from lessismore_transforms.pipeline.task import Task
from lessismore_transforms.reduced.grey_statistics import store_statistics
from lessismore_transforms.reduced.manifest import write_manifest
from lessismore_transforms.reduced.selection import write_selection
from lessismore_transforms.reduced.store import STORE, THUMBNAILS, read_filled, read_index, write_filled, write_index
from lessismore_transforms.reduced.table_files import open_array, parse_slice_id
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.volumes import Found
from lessismore_transforms.wording import bounded


def assemble(
    tasks: Sequence[Task], found: Found, failures: dict[str, str], described: dict[str, Any], output_dir: Path
) -> int:
    """Turn the parts into manifest, default selection and store index; returns the number of kept slices.

    Args:
        tasks: of all volumes.
        found: the volumes of the data set, and the files that are none.
        failures: why volumes failed, by volume.
        described: settings and target as the manifest holds them.
        output_dir: of the run.

    Raises:
        OutputError: the folder cannot be written.
    """
    finished = [task for task in tasks if task.volume.volume not in failures]

    def parts() -> Iterator[dict[str, Any]]:
        yield from map(read_part, finished)

    rows_before = _rows_before(output_dir)
    filled_before, filled = read_filled(output_dir), {}
    records, stored, kept = [], [], 0
    for part in parts():
        records.append(part["record"])
        volume, chosen = part["record"]["volume"], kept_indices(part)
        kept += len(chosen)
        rows = _stored_rows(output_dir, volume, rows_before.get(volume, []), chosen)
        stored.append((volume, rows))
        if len(rows) > len(chosen) and volume in filled_before:
            filled[volume] = filled_before[volume]
    _delete_thumbnails(output_dir, shown={task.volume.volume for task in tasks if task.thumbnails})
    info = {
        "version": __version__,
        "settings": {name: value for name, value in described.items() if name != "target"},
        "store": store_statistics(records),
        "volumes": records,
        "failures": list_failures(tasks, failures),
        "skipped": [{"path": item.path, "reason": bounded(item.reason)} for item in found.skipped],
    }
    count = sum(record["slices"] for record in records)
    with writing(output_dir):
        sweep(output_dir)
        write_index(output_dir, stored)
        write_filled(output_dir, filled)
        selected = (row for part in parts() for row in part["selection"])
        write_selection(output_dir, "default", selected, Target(**described["target"]), kept, count)
        write_manifest(output_dir, (row for part in parts() for row in part["rows"]), info)
        (output_dir / RUNNING).unlink()  # first: from here on the manifest counts, not the parts
        shutil.rmtree(output_dir / PARTS)
    return kept


def list_failures(tasks: Sequence[Task], failures: Mapping[str, str]) -> list[dict[str, str]]:
    """Path and reason of the volumes that failed, in the order of the tasks."""
    return [
        {"volume": task.volume.volume, "path": task.volume.path, "reason": failures[task.volume.volume]}
        for task in tasks
        if task.volume.volume in failures
    ]


def _rows_before(output_dir: Path) -> dict[str, list[int]]:
    """The slices of each volume in the store as the index names them, in the order of their rows.

    A damaged index names none: it is written again, and what `fill_store` added is forgotten.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    named: dict[str, int] = {}
    with suppress(ManifestError):
        named = read_index(output_dir)
    for name, _ in sorted(named.items(), key=lambda item: item[1]):
        volume, index = parse_slice_id(name)
        rows[volume].append(index)
    return rows


def _stored_rows(output_dir: Path, volume: str, before: list[int], chosen: list[int]) -> list[int]:
    """The slices in a volume's store: its default selection, and behind it what `fill_store` added, if that is there.

    A volume that was reduced again has a file of its default selection alone, whatever the index said before.
    """
    if len(before) <= len(chosen) or before[: len(chosen)] != chosen:
        return chosen
    return before if len(open_array(output_dir / STORE / f"{volume}.npy")) == len(before) else chosen


def _delete_thumbnails(output_dir: Path, *, shown: set[str]) -> None:
    """Delete the thumbnails of volumes that are no longer among those shown."""
    for path in (output_dir / THUMBNAILS).glob("*.npy"):
        if path.stem not in shown:
            path.unlink()
