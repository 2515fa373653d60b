"""The volumes of a data set that the settings of a run ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import RunError
from lessismore_transforms.pipeline.executors import map_all
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.volumes import Found, find_volumes
from lessismore_transforms.volumes.images import NO_PATTERN
from lessismore_transforms.wording import bounded, plural

_LONGEST = 300  # characters of a path, or of a reason, that stands in a sentence


def find(dataset_dir: Path, settings: Settings, workers: int = 0, scheduler: str | None = None) -> Found:
    """The volumes below `dataset_dir` that `settings` ask for.

    Raises:
        UserError: `dataset_dir` is no folder.
        RunError: it holds no volume.
    """

    def map_headers(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        if not tasks:
            return
        if workers == 0:  # else the processes that are starting have the kernels for headers, and this one has not
            yield from map(function, tasks)
            return
        results = map_all(function, tasks, workers, scheduler)
        yield from progress_bar(results, total=len(tasks), desc="read headers", unit=" files")

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
        skipped = f"{bounded(first.path, _LONGEST)} ({bounded(first.reason, _LONGEST)})"
        named = first.reason == NO_PATTERN
        hint = "; single pictures need no reduction: give their folder to a pre-training" if named else ""
        raise RunError(f"{expected}: skipped {skipped} and {more} more {plural(more, 'file')}{hint}")
    return found
