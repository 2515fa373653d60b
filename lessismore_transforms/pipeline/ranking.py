"""The ranking of one volume by the measure of the run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.pipeline.settings import Encoder, network
from lessismore_transforms.pipeline.slice_stream import Streamed
from lessismore_transforms.reduced.manifest import DISTANCES, matrix_rows
from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.measures import features_of, pair_matrix, rank_slices
from lessismore_transforms.reduction.selection import Ranking, target_count


def rank_volume(streamed: Streamed) -> tuple[Ranking, Callable[[int], NDArray[Any]]]:
    """The ranking of a volume, and the distances of one slice to all; a run that keeps distances has them written.

    Raises:
        OutputError: the distances cannot be written.
    """
    task, candidate = streamed.task, streamed.candidate
    settings, target = task.settings, task.settings.target
    if streamed.pictures is None:
        hashes = streamed.hashes
        ranking = rank_slices("hash", hashes, candidate)
        return ranking, lambda index: hamming_distances(hashes[index : index + 1], hashes)[0]
    encoder = _encoder(settings.encoder, settings.device or "cpu") if target.measure == "deepnet" else None
    features = features_of(
        target.measure,
        streamed.pictures,
        encoder=encoder,
        device=settings.device,
        precision=settings.encoder.precision,
    )
    matrix = count = None
    if settings.keep_distances or target.measure != "ssim" or target.fraction is None:
        matrix = pair_matrix(target.measure, features[candidate], bins=settings.bins, device=settings.device)
    else:
        count = target_count(int(candidate.sum()), target.fraction)
    if settings.keep_distances and matrix is not None:
        with atomic_write(task.output_dir / DISTANCES / f"{task.volume.volume}.npy", "wb", durable=False) as file:
            np.save(file, matrix)
    ranking = rank_slices(target.measure, features, candidate, matrix=matrix, count=count, device=settings.device)
    return ranking, matrix_rows(matrix, candidate) if matrix is not None else lambda _: np.empty(0)


@functools.lru_cache(maxsize=1)
def _encoder(encoder: Encoder, device: str) -> Any:
    """The network made fast for inference, once in each process."""
    from lessismore_transforms.weights.backbones import to_encoder

    return to_encoder(network(encoder), device)
