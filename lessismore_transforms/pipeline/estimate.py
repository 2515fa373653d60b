"""What a reduction will take, judged by a few volumes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lessismore_transforms.cores import available_cores
from lessismore_transforms.errors import OutputError
from lessismore_transforms.pipeline.executors import processes_for
from lessismore_transforms.pipeline.find import find
from lessismore_transforms.pipeline.output_folder import make_folders
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pipeline.task import Task, make_tasks
from lessismore_transforms.pipeline.volume_task import reduce_volume
from lessismore_transforms.reduced.store import STORE


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
    """What `reduce_dataset` will take; writes nothing but to a temporary folder.

    Raises:
        UserError: `dataset_dir` is no folder.
        RunError: it holds no volume, or there is no such device.
    """
    dataset_dir = Path(dataset_dir).resolve()
    workers = available_cores() if workers is None else workers
    if settings.used_device is not None:
        workers = min(workers, processes_for(settings.used_device))
    found = find(dataset_dir, settings, workers)
    seconds = kept = store = 0.0
    with tempfile.TemporaryDirectory() as folder:
        output_dir = Path(folder)
        make_folders(output_dir, distances=True)
        tasks = make_tasks(found, dataset_dir, output_dir, settings, b"", None)
        for volume_format in sorted({task.volume.format for task in tasks}):
            same = [task for task in tasks if task.volume.format == volume_format]
            begin = time.perf_counter()
            tried, sizes = _try_some(same)
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


def _try_some(tasks: Sequence[Task]) -> tuple[int, list[tuple[int, int]]]:
    """Number of slices of the first, the middle and the last volume, and of each the kept slices and their bytes."""
    tried, sizes = 0, []
    for task in {task.volume.volume: task for task in (tasks[0], tasks[len(tasks) // 2], tasks[-1])}.values():
        try:
            tried += reduce_volume(task)
        except OutputError:
            raise
        except Exception:  # the run itself will list it
            continue
        pixels = np.load(task.output_dir / STORE / f"{task.volume.volume}.npy", mmap_mode="r")
        sizes.append((len(pixels), pixels.nbytes))
    return tried, sizes
