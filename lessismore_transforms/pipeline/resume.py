"""Where a run goes on: which volumes of an output folder are done, and whether they may be added to."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lessismore_transforms import __version__
from lessismore_transforms.atomic import write_json, writing
from lessismore_transforms.errors import ManifestError, RunError
from lessismore_transforms.pipeline.event_log import EventLog
from lessismore_transforms.pipeline.executors import map_all
from lessismore_transforms.pipeline.finished_part import part_of, part_record, read_part, write_part
from lessismore_transforms.pipeline.output_folder import PARTS, RUNNING, make_folders, sweep
from lessismore_transforms.pipeline.task import Task
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.reduced.manifest import DISTANCES, FORMAT, Manifest, changed_tables, content_crc32, read_info
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.store import STORE, THUMBNAILS, count_intact, read_filled
from lessismore_transforms.reduced.table_files import file_crc32, read_record
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.volumes import Found, checksum
from lessismore_transforms.wording import counted, listed, plural

_VERSION = f"{__version__}, format {FORMAT}"  # parts of another one may be hashed otherwise


def prepare(output_dir: Path, described: dict[str, Any], found: Found, png_dir: Path | None) -> None:
    """Make the output folder ready for a first run, for one that goes on, or for one with more volumes than before.

    Args:
        output_dir: of the run.
        described: its settings and target as the manifest holds them.
        found: the volumes of the data set.
        png_dir: folder of PNG files.

    Raises:
        RunError: the folder holds a run with other settings or with volumes that are gone.
        OutputError: it cannot be written.
    """
    record = output_dir / RUNNING
    manifest: Manifest | None = None
    before: dict[str, Any] | None = None
    if record.is_file():  # a run in progress: its parts are the truth, whatever it has assembled so far
        before = read_record(record)
        crc32 = before.pop("crc32", None)
        if before.get("version") == _VERSION and crc32 != content_crc32(before):
            raise ManifestError(f"{record} was changed since it was written: undo the edit, or name another folder")
        _check_found(output_dir, list(_records_before(output_dir).values()), found)
        if before.pop("version", None) != _VERSION:
            shutil.rmtree(output_dir / PARTS)
    elif (output_dir / "manifest.json").is_file():
        info = read_info(output_dir)
        if damaged := changed_tables(output_dir, info):
            names = listed(damaged) if len(damaged) > 1 else damaged[0]
            tqdm.write(f"damaged: {names} in {output_dir}: all volumes are reduced again", file=sys.stderr)
            before = {**info["settings"], "target": described["target"]}
        else:
            manifest = Manifest.read(output_dir)
            before = {**manifest.settings, "target": Selection.read(output_dir).target.as_dict()}
        _check_found(output_dir, info["volumes"], found)
    if before is not None and before != described:
        raise RunError(_difference(output_dir, before, described))
    with writing(output_dir):
        make_folders(output_dir, distances=bool(described.get("keep_distances")))
        sweep(output_dir)
    if manifest is not None:
        known = {item.get("volume") for item in (*manifest.volumes, *manifest.info["failures"])}
        grown = {volume.volume for volume in found.volumes} != known
        if grown and png_dir is not None and png_dir.is_dir() and any(png_dir.iterdir()):
            raise RunError(
                f"PNG names number the volumes, which changed since {png_dir} was written: name an empty folder"
            )
        _reopen(manifest, output_dir)
    settings = {"version": _VERSION, **described}
    # Last: from here on the parts count, not the manifest.
    write_json(record, {**settings, "crc32": content_crc32(settings)})


def _difference(output_dir: Path, before: dict[str, Any], described: dict[str, Any]) -> str:
    """The first setting that differs from those of the run before, and what to do."""
    name = next(name for name in (*described, *before) if before.get(name) != described.get(name))
    was, asked = before.get(name), described.get(name)
    if name == "target":
        was, asked = Target.of(**before["target"]), Target.of(**described["target"])
    return (
        f"{output_dir} holds a run with {name} {was}, now {asked} is asked for: name another folder, "
        "or use `select` for another threshold or fraction"
    )


def _records_before(output_dir: Path) -> dict[str, dict[str, Any]]:
    """The volumes that were finished before an interrupted run or by it, by their ids.

    Of a damaged part, which is made anew, the id is left; the manifest may know its path.
    """
    records: dict[str, dict[str, Any]] = {}
    with suppress(ManifestError):
        records = {record["volume"]: record for record in read_info(output_dir)["volumes"]}
    for path in sorted((output_dir / PARTS).glob("*.json")):
        if path != output_dir / RUNNING:
            records.setdefault(path.stem, {"volume": path.stem, "path": path.stem})
            with suppress(ManifestError):
                records[path.stem] = part_record(path)
    return records


def _check_found(output_dir: Path, records: Sequence[dict[str, Any]], found: Found) -> None:
    """Refuse to drop a finished volume: its folder may be a share that is not mounted.

    Raises:
        RunError: finished volumes are no longer in the data set.
    """
    there, known = {volume.volume for volume in found.volumes}, {record["volume"] for record in records}
    if gone := [record["path"] for record in records if record["volume"] not in there]:
        who = f"{counted(len(gone), 'volume')} of {output_dir} (the first: {gone[0]})"
        if {*gone} <= {volume.path for volume in found.volumes if volume.volume not in known}:
            raise RunError(
                f"{who} {plural(len(gone), 'has another id', 'have other ids')} than before, maybe because another "
                "volume of the same name or series UID was added to the data set: take that out again, or name another "
                "folder"
            )
        raise RunError(
            f"{who} {plural(len(gone), 'is', 'are')} no longer in the data set: bring "
            f"{plural(len(gone), 'it', 'them')} back or name another folder"
        )


def _reopen(manifest: Manifest, output_dir: Path) -> None:
    """Turn a finished manifest back into parts, so that volumes can be added to it."""
    manifest.read_selection()
    with (
        (output_dir / "manifest.csv").open(encoding="utf-8", newline="") as rows_file,
        (output_dir / "selections" / "default.csv").open(encoding="utf-8", newline="") as selection_file,
    ):
        rows, selection = csv.reader(rows_file), csv.reader(selection_file)
        next(rows), next(selection)
        for record in manifest.volumes:
            count = record["slices"]
            write_part(output_dir, record, list(islice(rows, count)), list(islice(selection, count)))


def find_open_tasks(tasks: Sequence[Task], workers: int, scheduler: str | None, log: EventLog) -> list[Task]:
    """The tasks that are still to be done: those without a part, and those with changed or damaged files."""
    filled = read_filled(tasks[0].output_dir) if tasks else {}
    for task in tasks:
        if damage := _damage(task, filled):
            log.write("damaged", volume=task.volume.volume)
            tqdm.write(f"damaged: {damage}: {task.volume.path} is reduced again", file=sys.stderr)
            _open_again(task)
    done = [task for task in tasks if part_of(task).is_file()]
    if done:
        sums = map_all(_checksum, done, workers, scheduler)
        for task, value in progress_bar(zip(done, sums, strict=True), total=len(done), desc="check", unit=" volumes"):
            record = read_part(task)["record"]
            renamed = record["path"] != task.volume.path
            renumbered = record.get("first_number", task.first_number) != task.first_number
            if record["crc32"] != value or renamed or renumbered:
                log.write("changed", volume=task.volume.volume)
                tqdm.write(f"changed since: {task.volume.path}: reduced again", file=sys.stderr)
                _open_again(task)
    return [task for task in tasks if not part_of(task).is_file()]


def _open_again(task: Task) -> None:
    (task.output_dir / "manifest.json").unlink(missing_ok=True)  # its table no longer fits the store
    part_of(task).unlink()


def _damage(task: Task, filled: Mapping[str, Any]) -> str:
    """The first file of a finished volume that is missing or not as it was written; nothing where all are whole.

    Args:
        task: of the volume.
        filled: what `fill_store` added to the volumes.
    """
    if not part_of(task).is_file():
        return ""
    try:
        record = part_record(part_of(task))
    except ManifestError:
        return str(part_of(task).relative_to(task.output_dir))
    name = f"{task.volume.volume}.npy"
    if count_intact(task.output_dir, record, filled) is None:
        return f"{STORE}/{name}"
    for folder, key, wanted in (
        (THUMBNAILS, "thumbnails_crc32", task.thumbnails),
        (DISTANCES, "distances_crc32", task.settings.keep_distances),
    ):
        if wanted and key in record and file_crc32(task.output_dir / folder / name) != record[key]:
            return f"{folder}/{name}"
    return ""


def _checksum(task: Task) -> str:
    return checksum(task.volume, task.dataset_dir)
