"""Reduce a data set: volumes as tasks, results that do not depend on how many workers there were or who was killed.

Each finished volume leaves `store/<volume>.npy` and then `parts/<volume>.json`, both written whole or not at all.
A run that was killed goes on from its parts; when all volumes are done the parts become the manifest.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from lessismore_transforms import __version__
from lessismore_transforms.atomic import lock, remove_temporaries, write_json, writing
from lessismore_transforms.errors import OutputError, RunError, UserError, VolumeError
from lessismore_transforms.pipeline.executors import (
    ClusterExecutor,
    make_executor,
    map_all,
    start_context,
)
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pipeline.task import PARTS, THUMBNAILS, Task, reduce_volume, write_png
from lessismore_transforms.processors import available_cores
from lessismore_transforms.reduced.duplicates import select_across
from lessismore_transforms.reduced.manifest import (
    DISTANCES,
    Manifest,
    Selection,
    check_name,
    write_manifest,
    write_selection,
)
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.reduced.store import STORE, read_index, write_index
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.volumes import Found, checksum, find_volumes

VOLUMES_WITH_THUMBNAILS = 8
_DEATHS = 2  # how often the process of a volume may die, alone, before the volume counts as broken


@dataclass(frozen=True)
class Summary:
    """The outcome of a run: counts, and the volumes that failed as (path, reason)."""

    volumes: int
    slices: int
    kept: int
    failures: list[tuple[str, str]]
    skipped: int
    resumed: int


def reduce_dataset(
    dataset_dir: str | Path,
    output_dir: str | Path,
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    strict: bool = False,
    patient_key: str | Path | None = None,
    png_dir: str | Path | None = None,
    scheduler: str | None = None,
) -> Summary:
    """Rank the slices of every volume below `dataset_dir` and store those worth learning from in `output_dir`.

    Args:
        dataset_dir: folder of CT volumes, any depth.
        output_dir: made if missing. An interrupted run with the same settings goes on where it stopped.
        settings: what to keep and how.
        workers: number of processes; 0 works in this one, None takes one per processor. Processes import the
            script they are started from, which therefore needs `if __name__ == "__main__":`.
        strict: stop at the first volume that cannot be read instead of listing it and going on.
        patient_key: file with the secret that patients are hashed with; by default one in the user's configuration.
        png_dir: where to write the kept slices as PNG as well, under the names of the released scripts.
        scheduler: address of a dask scheduler, such as tcp://host:8786, whose workers read the volumes and write the
            results in place of processes of this machine; they have to see both folders under the same names.

    Raises:
        NotADirectoryError: `dataset_dir` is no folder.
        ConnectionError: there is no scheduler, or it has no workers.
        RunError: there are no volumes, or the output belongs to another run.
        OutputError: the output cannot be written, or another run is writing it; what is finished is kept.
        VolumeError: with `strict`, the first volume that cannot be read.
    """
    settings = settings or Settings()
    dataset_dir, output_dir = Path(dataset_dir).resolve(), Path(output_dir).resolve()
    key = load_key(None if patient_key is None else Path(patient_key))
    workers = available_cores() if workers is None else workers
    if settings.device is not None and scheduler is None:
        workers = min(workers, _processes_for(settings.device))
    if scheduler is not None:
        with ClusterExecutor(scheduler) as cluster:
            workers = cluster.slots
            tqdm.write(f"{workers} slots on the cluster; dashboard: {cluster.dashboard}", file=sys.stderr)
    elif workers:
        start_context()
    found = find(dataset_dir, settings, workers, scheduler)
    described = {**settings.as_dict(key), "target": settings.target.as_dict()}
    png = None if png_dir is None else Path(png_dir).resolve()
    for folder in filter(None, (output_dir, png)):
        if folder.is_relative_to(dataset_dir):
            raise RunError(f"the output folder {folder} lies inside the data set {dataset_dir}: name one outside")
    with _Log(output_dir) as log:
        _prepare(output_dir, described, found, png)
        log.write("start", dataset_dir=str(dataset_dir), workers=workers, version=__version__, **described)
        tasks = _tasks(found, dataset_dir, output_dir, settings, key, png)
        open_tasks = _open_tasks(tasks, workers, scheduler, log)
        failures: dict[str, str] = {}
        slices = sum(task.volume.shape[0] for task in tasks)
        done = slices - sum(task.volume.shape[0] for task in open_tasks)
        with tqdm(total=slices, initial=done, unit=" slices", desc="reduce", disable=None) as bar:
            for task, error in _run(open_tasks, workers, scheduler):
                bar.update(task.volume.shape[0])
                if error is None:
                    continue
                if isinstance(error, OutputError):
                    raise error
                reason = str(error) if isinstance(error, VolumeError) else f"{task.volume.path}: {error!r}"
                if strict:
                    raise VolumeError(reason) from error
                failures[task.volume.volume] = reason
                log.write("failure", volume=task.volume.volume)
                tqdm.write(f"failed: {reason}", file=sys.stderr)
        _export_again([task for task in tasks if task not in open_tasks])
        kept = _assemble(tasks, found, failures, described, output_dir)
        summary = Summary(
            volumes=len(tasks) - len(failures),
            slices=slices - sum(task.volume.shape[0] for task in tasks if task.volume.volume in failures),
            kept=kept,
            failures=[
                (task.volume.path, failures[task.volume.volume]) for task in tasks if task.volume.volume in failures
            ],
            skipped=len(found.skipped),
            resumed=len(tasks) - len(open_tasks),
        )
        log.write("end", volumes=summary.volumes, slices=summary.slices, kept=kept, failures=len(failures))
        return summary


def _processes_for(device: str) -> int:
    """How many processes may share a torch device: one, unless it is the CPU.

    Raises:
        RunError: there is no such device.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise RunError(
            f"the device {device!r} cannot be used ({reason}): name another or leave --device out"
        ) from error
    return available_cores() if torch.device(device).type == "cpu" else 1


def find(dataset_dir: Path, settings: Settings, workers: int = 0, scheduler: str | None = None) -> Found:
    """The volumes below `dataset_dir` that `settings` ask for.

    Raises:
        NotADirectoryError: `dataset_dir` is no folder.
        RunError: it holds no volume.
    """

    def map_headers(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        if len(tasks) < 2 * workers:  # not worth starting processes for
            yield from map(function, tasks)
            return
        results = map_all(function, tasks, workers, scheduler)
        yield from tqdm(results, total=len(tasks), desc="read headers", disable=None)

    found = find_volumes(
        dataset_dir,
        include=settings.include,
        patterns=settings.patterns,
        stored=settings.as_released,
        map_headers=map_headers,
    )
    if not found.volumes:
        expected = f"expected CT volumes (DICOM, NIfTI, NRRD, MetaImage or named PNG) below {dataset_dir}, found none"
        if not found.skipped:
            raise RunError(f"{expected}: the folder holds no files")
        first, more = found.skipped[0], len(found.skipped) - 1
        raise RunError(f"{expected}: skipped {first.path} ({first.reason}) and {more} more files")
    return found


def _prepare(output_dir: Path, described: dict[str, Any], found: Found, png: Path | None) -> None:
    """Make the output folder ready for a first run, for one that goes on, or for one with more volumes than before."""
    record = output_dir / PARTS / "settings.json"
    manifest: Manifest | None = None
    before: dict[str, Any] | None = None
    if record.is_file():  # a run in progress: its parts are the truth, whatever it has assembled so far
        before = json.loads(record.read_text(encoding="utf-8"))
        if before.pop("version", None) != __version__:  # another version may hash otherwise
            shutil.rmtree(output_dir / PARTS)
    elif (output_dir / "manifest.json").is_file():
        manifest = Manifest.read(output_dir)
        before = {**manifest.settings, "target": Selection.read(output_dir).target.as_dict()}
    if before is not None and before != described:
        name = next(name for name in (*described, *before) if before.get(name) != described.get(name))
        was, asked = before.get(name), described.get(name)
        if name == "target":
            was, asked = Target.of(**before["target"]), Target.of(**described["target"])
        raise RunError(
            f"{output_dir} holds a run with {name} {was}, now {asked} is asked for: name another folder, "
            "or use `select` for another threshold or fraction"
        )
    with writing(output_dir):
        (output_dir / THUMBNAILS).mkdir(parents=True, exist_ok=True)
        (output_dir / PARTS).mkdir(exist_ok=True)
        if described.get("keep_distances"):
            (output_dir / DISTANCES).mkdir(exist_ok=True)
        _sweep(output_dir)
    if manifest is not None:
        grown = {volume.volume for volume in found.volumes} != {record["volume"] for record in manifest.volumes}
        if grown and png is not None and png.is_dir() and any(png.iterdir()):
            raise RunError(f"PNG names number the volumes, which changed since {png} was written: name an empty folder")
        _reopen(manifest, output_dir, {volume.volume for volume in found.volumes})
    write_json(record, {"version": __version__, **described})  # last: from here on the parts count, not the manifest


def _sweep(output_dir: Path) -> None:
    """Delete what killed processes left half written; only while no task is under way."""
    for folder in (".", "selections", PARTS, STORE, THUMBNAILS, DISTANCES):
        remove_temporaries(output_dir / folder)


def _reopen(manifest: Manifest, output_dir: Path, found: set[str]) -> None:
    """Turn a finished manifest back into parts, so that volumes can be added to it."""
    if gone := [record["path"] for record in manifest.volumes if record["volume"] not in found]:
        raise RunError(
            f"{len(gone)} volumes of {output_dir} (the first: {gone[0]}) are no longer in the data set: "
            "bring them back or name another folder"
        )
    Selection.read(output_dir).check(manifest)
    with (
        (output_dir / "manifest.csv").open(encoding="utf-8", newline="") as rows_file,
        (output_dir / "selections" / "default.csv").open(encoding="utf-8", newline="") as selection_file,
    ):
        rows, selection = csv.reader(rows_file), csv.reader(selection_file)
        next(rows), next(selection)
        for record in manifest.volumes:
            part = {
                "record": record,
                "rows": list(islice(rows, record["slices"])),
                "selection": list(islice(selection, record["slices"])),
            }
            write_json(output_dir / PARTS / f"{record['volume']}.json", part)


def _tasks(
    found: Found, dataset_dir: Path, output_dir: Path, settings: Settings, key: bytes, png_dir: Path | None
) -> list[Task]:
    if png_dir is not None:
        with writing(png_dir):
            png_dir.mkdir(parents=True, exist_ok=True)
            remove_temporaries(png_dir)
    shown = set(sorted(volume.volume for volume in found.volumes)[:VOLUMES_WITH_THUMBNAILS])
    tasks = []
    stems = Counter(PurePosixPath(item.path).stem for volume in found.volumes for item in volume.slices)
    dicom_slices = files = 0
    for volume in found.volumes:
        patient = volume.patient if settings.keep_patient_ids else hash_patient(volume.patient, key)
        # The released names: DICOM slices are numbered through the whole data set, files by volume and slice.
        first, name = 0, re.sub(r"[^A-Za-z0-9.-]", "_", patient)
        if volume.format == "dicom":
            first = dicom_slices
            dicom_slices += volume.shape[0]
        elif volume.format != "images":
            files += 1
            name = f"{name}_{files}"
        else:  # pictures keep their names, which are unique only with their folder
            unique = all(stems[PurePosixPath(item.path).stem] == 1 for item in volume.slices)
            name = "" if unique else f"{volume.volume}_"
        tasks.append(
            Task(
                volume=volume,
                dataset_dir=dataset_dir,
                output_dir=output_dir,
                settings=settings,
                patient=patient,
                thumbnails=volume.volume in shown,
                png_dir=png_dir,
                released_name=name,
                first_number=first,
            )
        )
    return tasks


def _open_tasks(tasks: Sequence[Task], workers: int, scheduler: str | None, log: _Log) -> list[Task]:
    """The tasks that are still to be done: those without a part, and those whose files changed since."""
    done = [task for task in tasks if _part(task).is_file()]
    if done:
        sums = map_all(_checksum, done, workers, scheduler)
        for task, value in tqdm(zip(done, sums, strict=True), total=len(done), desc="check", disable=None):
            record = json.loads(_part(task).read_text(encoding="utf-8"))["record"]
            renamed = record["path"] != task.volume.path
            renumbered = record.get("first_number", task.first_number) != task.first_number
            if record["crc32"] != value or renamed or renumbered:
                log.write("changed", volume=task.volume.volume)
                tqdm.write(f"changed since: {task.volume.path}: reduced again", file=sys.stderr)
                (task.output_dir / "manifest.json").unlink(missing_ok=True)  # its table no longer fits the store
                _part(task).unlink()
    return [task for task in tasks if not _part(task).is_file()]


def _checksum(task: Task) -> str:
    return checksum(task.volume, task.dataset_dir)


def _part(task: Task) -> Path:
    return task.output_dir / PARTS / f"{task.volume.volume}.json"


def _run(
    tasks: Sequence[Task], workers: int, scheduler: str | None = None
) -> Iterator[tuple[Task, BaseException | None]]:
    """Run the tasks in any order and yield each with its error.

    When a worker process dies, the tasks that were under way are set aside and run one by one at the end, so that
    the one that kills its process is found and costs the others nothing.
    """
    waiting = deque(tasks)
    suspects: list[Task] = []
    while waiting:
        flying: dict[Future[int], Task] = {}
        executor = make_executor(workers, scheduler)
        try:
            while waiting or flying:
                while waiting and len(flying) <= workers:
                    flying[executor.submit(reduce_volume, waiting[0])] = waiting[0]
                    waiting.popleft()
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    task = flying.pop(future)
                    if type(error).__name__ == "KilledWorker":  # of dask, which need not be installed
                        error = VolumeError(f"{task.volume.path}: it killed one worker of the cluster after another")
                    yield task, error
        except BrokenProcessPool:
            suspects += flying.values()
        finally:
            executor.shutdown(cancel_futures=True)
    for task in suspects:
        yield task, _run_alone(task)


def _run_alone(task: Task) -> BaseException | None:
    for _ in range(_DEATHS):
        with make_executor(1) as executor:
            error = executor.submit(reduce_volume, task).exception()
        if not isinstance(error, BrokenProcessPool):
            return error
    return VolumeError(
        f"{task.volume.path}: its process died {_DEATHS + 1} times: killed, out of memory, or started from a script "
        'without `if __name__ == "__main__":`'
    )


def _export_again(done: Sequence[Task]) -> None:
    """Write the PNG files of volumes that were reduced before, from the store; their first rows are the selection's."""
    for task in done:
        if task.png_dir is None:
            continue
        selection = json.loads(_part(task).read_text(encoding="utf-8"))["selection"]
        indices = [index for index, row in enumerate(selection) if row[1] == "1"]
        pixels = np.load(task.output_dir / STORE / f"{task.volume.volume}.npy", mmap_mode="r")
        write_png(task, indices, dict(zip(indices, pixels, strict=False)).__getitem__)


def _stored_rows(output_dir: Path, volume: str, before: list[int], chosen: list[int]) -> list[int]:
    """The slices in a volume's store: its default selection, and behind it what `fill_store` added, if that is there.

    A volume that was reduced again has a file of its default selection alone, whatever the index said before.
    """
    if len(before) <= len(chosen) or before[: len(chosen)] != chosen:
        return chosen
    return before if len(np.load(output_dir / STORE / f"{volume}.npy", mmap_mode="r")) == len(before) else chosen


def _assemble(
    tasks: Sequence[Task], found: Found, failures: dict[str, str], described: dict[str, Any], output_dir: Path
) -> int:
    """Turn the parts into manifest, default selection and store index; returns the number of kept slices."""
    rows_before: dict[str, list[int]] = defaultdict(list)
    for name, _ in sorted(read_index(output_dir).items(), key=lambda item: item[1]):
        volume, _, index = name.rpartition("_")
        rows_before[volume].append(int(index))
    finished = [task for task in tasks if task.volume.volume not in failures]

    def parts() -> Iterator[dict[str, Any]]:
        for task in finished:
            yield json.loads(_part(task).read_text(encoding="utf-8"))

    records, stored, kept = [], [], 0
    for part in parts():
        records.append(part["record"])
        volume = part["record"]["volume"]
        chosen = [index for index, row in enumerate(part["selection"]) if row[1] == "1"]
        kept += len(chosen)
        stored.append((volume, _stored_rows(output_dir, volume, rows_before[volume], chosen)))
    count = sum(record["slices"] for record in records)
    shown = {task.volume.volume for task in tasks if task.thumbnails}
    for path in (output_dir / THUMBNAILS).glob("*.npy"):
        if path.stem not in shown:
            path.unlink()
    settings = {name: value for name, value in described.items() if name != "target"}
    info = {
        "version": __version__,
        "settings": settings,
        "volumes": records,
        "failures": [
            {"path": task.volume.path, "reason": failures[task.volume.volume]}
            for task in tasks
            if task.volume.volume in failures
        ],
        "skipped": [{"path": item.path, "reason": item.reason} for item in found.skipped],
    }
    with writing(output_dir):
        _sweep(output_dir)
        write_index(output_dir, stored)
        rows = (row for part in parts() for row in part["selection"])
        write_selection(output_dir, "default", rows, Target(**described["target"]), kept, count)
        write_manifest(output_dir, (row for part in parts() for row in part["rows"]), info)
        (output_dir / PARTS / "settings.json").unlink()  # first: from here on the manifest counts, not the parts
        shutil.rmtree(output_dir / PARTS)
    return kept


class _Log:
    """run.jsonl: what happened when, a JSON object per line; held by one run at a time.

    Raises:
        RunError: the folder holds something else.
        OutputError: the folder cannot be written, or another run is writing into it.
    """

    def __init__(self, output_dir: Path) -> None:
        self._path = output_dir / "run.jsonl"
        if output_dir.is_dir() and any(output_dir.iterdir()) and not self._path.is_file():
            raise RunError(f"{output_dir} is not empty and holds no reduction: name a new folder")
        with writing(output_dir):
            output_dir.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+", encoding="utf-8")
        try:
            lock(self._file, output_dir)
        except OutputError:
            self._file.close()
            raise

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, event: str, **content: Any) -> None:
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), **content}
        with writing(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


@dataclass(frozen=True)
class Estimate:
    """What a reduction will take, judged by up to three volumes of each format: wall minutes, bytes of the store."""

    volumes: int
    slices: int
    minutes: float
    kept: int
    store_bytes: int
    skipped: int


def estimate(dataset_dir: str | Path, settings: Settings, *, workers: int | None = None) -> Estimate:
    """What `reduce_dataset` will take; writes nothing but to a temporary folder."""
    dataset_dir = Path(dataset_dir).resolve()
    workers = available_cores() if workers is None else workers
    found = find(dataset_dir, settings, workers)
    seconds = kept = store = 0.0
    with tempfile.TemporaryDirectory() as folder:
        output_dir = Path(folder)
        for folder in (PARTS, DISTANCES, THUMBNAILS):
            (output_dir / folder).mkdir(parents=True)
        tasks = _tasks(found, dataset_dir, output_dir, settings, b"", None)
        for volume_format in sorted({task.volume.format for task in tasks}):
            same = [task for task in tasks if task.volume.format == volume_format]
            begin, tried, sizes = time.perf_counter(), 0, []
            for task in {task.volume.volume: task for task in (same[0], same[len(same) // 2], same[-1])}.values():
                try:
                    tried += reduce_volume(task)
                except OutputError:
                    raise
                except Exception:  # the run itself will list it
                    continue
                pixels = np.load(output_dir / STORE / f"{task.volume.volume}.npy", mmap_mode="r")
                sizes.append((len(pixels), pixels.nbytes))
            share = sum(task.volume.shape[0] for task in same) / max(tried, 1)
            seconds += (time.perf_counter() - begin) * share
            kept += sum(count for count, _ in sizes) * share
            store += sum(size for _, size in sizes) * share
    return Estimate(
        volumes=len(tasks),
        slices=sum(task.volume.shape[0] for task in tasks),
        minutes=seconds / 60 / max(workers, 1),
        kept=round(kept),
        store_bytes=round(store),
        skipped=len(found.skipped),
    )


def select(output_dir: str | Path, target: Target, name: str, *, order: str = "thinnest") -> tuple[Selection, int]:
    """Write the selection `name` of a finished output; no image is read.

    Args:
        output_dir: output folder of `reduce`.
        target: what to keep.
        name: of the selection.
        order: of the volumes, where slices are compared across them; see `duplicates.select_across`.

    Returns:
        The selection, and how many of its slices the store lacks.

    Raises:
        ManifestError: the output is incomplete or damaged.
        UserError: the name is that of the run's own selection, or holds odd characters.
    """
    output_dir = Path(output_dir)
    if check_name(name) == "default":
        raise UserError("the selection 'default' is the one of the run itself: choose another name")
    manifest = Manifest.read(output_dir)
    if target.scope == "volume":
        selection = manifest.select(target)
    else:
        assert target.threshold is not None
        (selection,) = select_across([manifest], target.threshold, scope=target.scope, order=order)
    selection.write(output_dir, name)
    rows = read_index(output_dir)
    return selection, sum(kept not in rows for kept in selection.kept_ids)
