"""The end of a run: the parts of all volumes become manifest, default selection and index of the store."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lessismore_transforms import __version__
from lessismore_transforms.atomic import writing
from lessismore_transforms.pipeline.finished_part import kept_indices, read_part
from lessismore_transforms.pipeline.output_folder import PARTS, RUNNING, sweep
from lessismore_transforms.pipeline.task import Task
from lessismore_transforms.reduced.grey_statistics import store_statistics
from lessismore_transforms.reduced.manifest import write_manifest
from lessismore_transforms.reduced.selection import write_selection
from lessismore_transforms.reduced.store import STORE, THUMBNAILS, read_filled, with_filled, write_filled, write_index
from lessismore_transforms.reduced.table_files import open_array
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.volumes import Found
from lessismore_transforms.wording import bounded, counted


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

    filled_before, filled = read_filled(output_dir), {}
    records, stored, kept, left = [], [], 0, 0
    for part in parts():
        records.append(part["record"])
        volume, chosen = part["record"]["volume"], kept_indices(part)
        kept += len(chosen)
        indices = with_filled(filled_before.get(volume), chosen)
        if len(indices) > len(chosen) and len(open_array(output_dir / STORE / f"{volume}.npy")) == len(indices):
            filled[volume] = filled_before[volume]
        elif volume in filled_before:
            left += len({*filled_before[volume]["indices"]} - {*chosen})
        stored.append((volume, indices if volume in filled else chosen))  # reduced again: only what is chosen is there
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
    if left:
        lacks = f"the store lacks {counted(left, 'slice')} that `select --fill_store` had added"
        tqdm.write(f"{lacks}, as volumes were reduced again: give that command again", file=sys.stderr)
    return kept


def list_failures(tasks: Sequence[Task], failures: Mapping[str, str]) -> list[dict[str, str]]:
    """Path and reason of the volumes that failed, in the order of the tasks."""
    return [
        {"volume": task.volume.volume, "path": task.volume.path, "reason": failures[task.volume.volume]}
        for task in tasks
        if task.volume.volume in failures
    ]


def _delete_thumbnails(output_dir: Path, *, shown: set[str]) -> None:
    """Delete the thumbnails of volumes that are no longer among those shown."""
    for path in (output_dir / THUMBNAILS).glob("*.npy"):
        if path.stem not in shown:
            path.unlink()
