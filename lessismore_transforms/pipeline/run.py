"""Reduce a data set: volumes as tasks, results that do not depend on how many workers there were or who was killed.

Each finished volume leaves `store/<volume>.npy` and then `parts/<volume>.json`, both written whole or not at all.
A run that was killed goes on from its parts; when all volumes are done the parts become the manifest.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lessismore_transforms import __version__
from lessismore_transforms.cores import available_cores
from lessismore_transforms.errors import OutputError, RunError, UserError, VolumeError
from lessismore_transforms.pipeline.assemble import assemble, list_failures
from lessismore_transforms.pipeline.event_log import EventLog
from lessismore_transforms.pipeline.executors import ClusterExecutor, processes_for, start_context
from lessismore_transforms.pipeline.find import find
from lessismore_transforms.pipeline.png import write_png_again
from lessismore_transforms.pipeline.pool import run_tasks
from lessismore_transforms.pipeline.resume import find_open_tasks, prepare
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pipeline.task import Task, make_tasks
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.reduced.patients import load_key
from lessismore_transforms.wording import bounded, counted


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
        UserError: `dataset_dir` is no folder.
        RunError: there are no volumes, the output belongs to another run, or there is no scheduler with workers.
        OutputError: the output cannot be written, or another run is writing it; what is finished is kept.
        VolumeError: with `strict`, the first volume that cannot be read.
    """
    settings = settings or Settings()
    if not str(dataset_dir):
        raise UserError("expected a folder of CT volumes, found an empty name: give DATASET_DIR")
    dataset_dir, output_dir = Path(dataset_dir).resolve(), Path(output_dir).resolve()
    key = load_key(None if patient_key is None else Path(patient_key))
    workers = _start_workers(workers, settings.used_device, scheduler)
    found = find(dataset_dir, settings, workers, scheduler)
    described = {**settings.as_dict(key), "target": settings.target.as_dict()}
    png = None if png_dir is None else Path(png_dir).resolve()
    _check_outside(dataset_dir, output_dir, png)
    with EventLog(output_dir) as log:
        prepare(output_dir, described, found, png)
        log.write("start", dataset_dir=str(dataset_dir), workers=workers, version=__version__, **described)
        tasks = make_tasks(found, dataset_dir, output_dir, settings, key, png)
        open_tasks = find_open_tasks(tasks, workers, scheduler, log)
        failures = _reduce_all(tasks, open_tasks, workers, scheduler, log, strict=strict)
        if png is not None:
            new = {task.volume.volume for task in open_tasks}
            write_png_again([task for task in tasks if task.volume.volume not in new])
        kept = assemble(tasks, found, failures, described, output_dir)
        summary = Summary(
            volumes=len(tasks) - len(failures),
            slices=_slices([task for task in tasks if task.volume.volume not in failures]),
            kept=kept,
            failures=[(item["path"], item["reason"]) for item in list_failures(tasks, failures)],
            skipped=len(found.skipped),
            resumed=len(tasks) - len(open_tasks),
        )
        log.write("end", volumes=summary.volumes, slices=summary.slices, kept=kept, failures=len(failures))
        return summary


def _start_workers(workers: int | None, device: str | None, scheduler: str | None) -> int:
    """How many tasks run beside each other; processes of this machine begin to import what they need.

    Raises:
        RunError: there is no such device, or no scheduler with workers.
    """
    workers = available_cores() if workers is None else workers
    if scheduler is not None:
        with ClusterExecutor(scheduler) as cluster:
            slots: int = cluster.slots
            words = f"{counted(slots, 'slot')} on the cluster; dashboard: {cluster.dashboard}"
            tqdm.write(words, file=sys.stderr)
            return slots
    if device is not None:
        workers = min(workers, processes_for(device))
    if workers:
        start_context()
    return workers


def _check_outside(dataset_dir: Path, *folders: Path | None) -> None:
    """Refuse to write into the data set.

    Raises:
        RunError: a folder lies inside it.
    """
    for folder in filter(None, folders):
        if folder.is_relative_to(dataset_dir):
            raise RunError(f"the output folder {folder} lies inside the data set {dataset_dir}: name one outside")


def _reduce_all(
    tasks: Sequence[Task],
    open_tasks: Sequence[Task],
    workers: int,
    scheduler: str | None,
    log: EventLog,
    *,
    strict: bool,
) -> dict[str, str]:
    """Run the open tasks; the reasons of those that failed, by volume.

    Raises:
        OutputError: the output cannot be written.
        VolumeError: with `strict`, the first volume that cannot be read.
    """
    failures: dict[str, str] = {}
    total = _slices(tasks)
    with progress_bar(total=total, initial=total - _slices(open_tasks), unit=" slices", desc="reduce") as bar:
        for task, error in run_tasks(open_tasks, workers, scheduler):
            bar.update(task.volume.shape[0])
            if error is None:
                continue
            if isinstance(error, OutputError):
                raise error
            reason = bounded(_sentence(task, error))
            if strict:
                raise VolumeError(reason) from error
            failures[task.volume.volume] = reason
            defect = {} if isinstance(error, UserError) else {"defect": _places(error)}
            log.write("failure", volume=task.volume.volume, **defect)
            tqdm.write(f"failed: {reason}", file=sys.stderr)
    return failures


def _sentence(task: Task, error: BaseException) -> str:
    """Why a volume failed; an unexpected exception tells only its kind, as its message may repeat what a file says."""
    if isinstance(error, UserError):
        return str(error) if isinstance(error, VolumeError) else f"{task.volume.path}: {error}"
    kind = type(error).__name__
    return f"{task.volume.path}: a defect of this program ({kind}): report it with the lines of run.jsonl"


def _places(error: BaseException) -> list[str]:
    """Where an exception was raised, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    return [type(error).__name__, *(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)]


def _slices(tasks: Sequence[Task]) -> int:
    """Number of slices of the tasks' volumes."""
    return sum(task.volume.shape[0] for task in tasks)
