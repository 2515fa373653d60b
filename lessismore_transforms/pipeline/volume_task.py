"""One volume's reduction, wherever it runs: stream, rank, choose, store; its part proves that it is done."""

from __future__ import annotations

from typing import Any

import numpy as np

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.pipeline.finished_part import make_record, manifest_rows, selection_rows, write_part
from lessismore_transforms.pipeline.output_folder import PARTS
from lessismore_transforms.pipeline.png import write_png
from lessismore_transforms.pipeline.ranking import rank_volume
from lessismore_transforms.pipeline.slice_stream import Streamed, stream_slices
from lessismore_transforms.pipeline.spool import Spool
from lessismore_transforms.pipeline.task import Task
from lessismore_transforms.reduced.manifest import DISTANCES, record_order
from lessismore_transforms.reduced.store import THUMBNAILS, write_pictures, write_volume
from lessismore_transforms.reduced.table_files import file_crc32
from lessismore_transforms.reduction.target import Kept, choose


def reduce_volume(task: Task) -> int:
    """Reduce one volume and write its part; returns the number of its slices.

    Raises:
        VolumeError: the volume cannot be read.
        OutputError: the output folder cannot be written.
    """
    try:
        return _reduce_volume(task)
    except OSError as error:
        raise VolumeError(f"{task.volume.path}: cannot be read: {error.strerror or error}") from error


def _reduce_volume(task: Task) -> int:
    volume = task.volume
    with Spool(task.output_dir / PARTS, volume.shape) as spool:
        streamed = stream_slices(task, spool)
        record = make_record(streamed)
        ranking, distances_from = rank_volume(streamed)
        if unranked := int((streamed.candidate & (ranking.rank == 0)).sum()):
            record["ranked_to"] = unranked
        kept = choose(
            task.settings.target,
            ranking,
            streamed.candidate,
            positions_mm=np.asarray(volume.positions_mm),
            distances_from=distances_from,
            order=record_order(record),
            hashes=streamed.hashes,
        )
        record["store"] = _store(streamed, kept)
    if streamed.thumbnails is not None:
        write_volume(task.output_dir, f"thumbnails/{volume.volume}", streamed.thumbnails)
        record["thumbnails_crc32"] = file_crc32(task.output_dir / THUMBNAILS / f"{volume.volume}.npy")
    if task.settings.keep_distances:
        record["distances_crc32"] = file_crc32(task.output_dir / DISTANCES / f"{volume.volume}.npy")
    write_part(task.output_dir, record, manifest_rows(streamed, ranking), selection_rows(volume.volume, kept))
    return volume.shape[0]


def _store(streamed: Streamed, kept: Kept) -> dict[str, Any]:
    """Write the kept slices into the store and, where they are wanted, as PNG; what the record holds of the store."""
    task = streamed.task
    _, height, width = task.volume.shape
    indices = np.flatnonzero(kept.kept).tolist()
    shape = (len(indices), height, width)
    stored = write_pictures(task.output_dir, task.volume.volume, map(streamed.spool.picture, indices), shape)
    if task.png_dir is not None:
        write_png(task, indices, streamed.spool.picture)
    return stored
