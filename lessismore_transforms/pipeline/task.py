"""One volume's reduction, wherever it runs: stream, hash, rank, choose, store; its part proves that it is done."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import TEMPORARY, atomic_write, write_json, writing
from lessismore_transforms.errors import VolumeError
from lessismore_transforms.pipeline.settings import Encoder, Settings, network
from lessismore_transforms.reduced.manifest import DISTANCES, format_number, matrix_rows, record_order, slice_id
from lessismore_transforms.reduced.store import STORE, write_pictures, write_volume
from lessismore_transforms.reduction.hashing import dhash, format_hash, hamming_distances
from lessismore_transforms.reduction.measures import features_of, pair_matrix, rank_slices
from lessismore_transforms.reduction.selection import Ranking, target_count
from lessismore_transforms.reduction.target import choose
from lessismore_transforms.volumes import Crc32, Slice, Volume, read_slices
from lessismore_transforms.volumes.pixels import to_pixels

PARTS = "parts"
THUMBNAILS = f"{STORE}/thumbnails"
THUMBNAIL_SIZE = 96  # pixels
_SPOOL_BYTES = 64 << 20  # pixels of a volume beyond this go to disk until it is known which are kept


@functools.lru_cache(maxsize=1)
def _encoder(encoder: Encoder, device: str) -> Any:
    """The network made fast for inference, once in each process."""
    from lessismore_transforms.weights.backbones import to_encoder

    return to_encoder(network(encoder), device)


@dataclass(frozen=True)
class Task:
    """All that one volume's reduction needs, wherever it runs."""

    volume: Volume
    dataset_dir: Path
    output_dir: Path
    settings: Settings
    patient: str
    thumbnails: bool
    png_dir: Path | None
    released_name: str  # what PNG files of the volume are called, up to the number (or the name) of the slice
    first_number: int  # the first slice's number there


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
    volume, settings = task.volume, task.settings
    count, height, width = volume.shape
    hashes, candidate = np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=bool)
    reasons = [""] * count
    offsets = np.full(count, -1, dtype=np.int64)
    thumbnails = np.zeros((count, THUMBNAIL_SIZE, THUMBNAIL_SIZE), dtype=np.uint8) if task.thumbnails else None
    crc, replaced = Crc32(), 0
    parts = task.output_dir / PARTS
    measure = settings.target.measure
    pictures = None
    if measure != "hash":
        if count * height * width > settings.memory_mb << 20:
            raise VolumeError(
                f"{volume.path}: {measure} needs {count * height * width >> 20} MB in memory for {count} slices of "
                f"{height} x {width}, more than the {settings.memory_mb} MB a worker may take: raise --memory_mb"
            )
        pictures = np.zeros(volume.shape, dtype=np.uint8)
    bodiless = 0
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=str(parts), prefix=TEMPORARY) as spool:
        for ct_slice in read_slices(volume, task.dataset_dir, crc):
            if ct_slice.reason:
                reasons[ct_slice.index] = ct_slice.reason
                continue
            if settings.body and (reason := _without_body(ct_slice, volume)):
                reasons[ct_slice.index] = reason
                bodiless += 1
                continue
            hashed, pixels = to_pixels(ct_slice, volume.format, settings.pixels, as_released=settings.as_released)
            hashes[ct_slice.index] = dhash(hashed)
            candidate[ct_slice.index] = True
            if pictures is not None:
                pictures[ct_slice.index] = hashed
            replaced += ct_slice.replaced
            offsets[ct_slice.index] = spool.tell()
            with writing(parts):
                spool.write(np.ascontiguousarray(pixels).data)
            if thumbnails is not None:
                thumbnails[ct_slice.index] = _thumbnail(pixels)
        if not candidate.any() and not bodiless:
            raise VolumeError(f"{volume.path}: none of its {count} slices can be read; the first: {reasons[0]}")

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
            "crc32": str(crc),
            "notes": list(volume.notes),
        }
        if replaced:
            record["notes"].append(f"{replaced} voxels were NaN or infinite: set to the lowest value of their slice")
        if broken := count - int(candidate.sum()) - bodiless:
            record["notes"].append(f"{broken} slices cannot be read; their rows tell why")
        if bodiless:
            record["notes"].append(f"{bodiless} slices show no body and are left out")
        if settings.as_released and volume.format != "images":
            record["first_number"] = task.first_number
        ranking, distances_from = _rank(task, hashes, pictures, candidate)
        if unranked := int((candidate & (ranking.rank == 0)).sum()):
            record["ranked_to"] = unranked
        kept = choose(
            settings.target,
            ranking,
            candidate,
            positions_mm=np.asarray(volume.positions_mm),
            distances_from=distances_from,
            order=record_order(record),
        )

        indices = np.flatnonzero(kept.kept)

        def picture(index: int) -> NDArray[np.uint8]:
            spool.seek(offsets[index])
            return np.frombuffer(spool.read(height * width), dtype=np.uint8).reshape(height, width)

        write_pictures(task.output_dir, volume.volume, map(picture, indices.tolist()), (len(indices), height, width))
        if task.png_dir is not None:
            write_png(task, indices.tolist(), picture)
    if thumbnails is not None:
        write_volume(task.output_dir, f"thumbnails/{volume.volume}", thumbnails)

    names = [slice_id(volume.volume, index) for index in range(count)]
    rows = [
        (
            names[index], volume.volume, task.patient, volume.series, volume.slice_path(index), str(index),
            f"{position + 0.0:.3f}", str(height), str(width),
            format_hash(hashes[index]) if candidate[index] else "",
            format_number(ranking.removed_at[index]),
            names[ranking.removed_by[index]] if ranking.removed_by[index] >= 0 else "",
            str(ranking.rank[index]) if ranking.rank[index] else "",
            reasons[index],
        )
        for index, position in enumerate(volume.positions_mm)
    ]  # fmt: skip
    choice = [
        (
            names[index],
            str(int(kept.kept[index])),
            names[kept.kept_by[index]] if kept.kept_by[index] >= 0 else "",
            format_number(kept.distance[index]),
        )
        for index in range(count)
    ]
    write_json(parts / f"{volume.volume}.json", {"record": record, "rows": rows, "selection": choice}, indent=None)
    return count


def _without_body(ct_slice: Slice, volume: Volume) -> str:
    """Why a slice is left out as empty; nothing where it shows a body."""
    from lessismore_transforms.reduction.foreground import NO_BODY, foreground_share

    share = foreground_share(ct_slice.hu, volume.spacing_mm[1:])
    return f"no body: {100 * share:.2f} % of the slice" if share < NO_BODY else ""


def _rank(
    task: Task, hashes: NDArray[np.uint64], pictures: NDArray[np.uint8] | None, candidate: NDArray[np.bool_]
) -> tuple[Ranking, Callable[[int], NDArray[Any]]]:
    """The ranking of a volume by the measure of the run, and the distances of one slice to all."""
    settings, target = task.settings, task.settings.target
    if pictures is None:
        return rank_slices("hash", hashes, candidate), lambda index: hamming_distances(
            hashes[index : index + 1], hashes
        )[0]
    encoder = _encoder(settings.encoder, settings.device or "cpu") if target.measure == "deepnet" else None
    features = features_of(
        target.measure, pictures, encoder=encoder, device=settings.device, precision=settings.encoder.precision
    )
    matrix = count = None
    if settings.keep_distances or target.measure != "ssim" or target.fraction is None:
        matrix = pair_matrix(target.measure, features[candidate], bins=settings.bins, device=settings.device)
    else:
        count = target_count(int(candidate.sum()), target.fraction)
    if settings.keep_distances and matrix is not None:
        with atomic_write(task.output_dir / DISTANCES / f"{task.volume.volume}.npy", "wb") as file:
            np.save(file, matrix)
    ranking = rank_slices(target.measure, features, candidate, matrix=matrix, count=count, device=settings.device)
    return ranking, matrix_rows(matrix, candidate) if matrix is not None else lambda _: np.empty(0)


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture shrunk to fit, on black."""
    from PIL import Image

    scale = THUMBNAIL_SIZE / max(pixels.shape)
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    canvas = np.zeros((THUMBNAIL_SIZE, THUMBNAIL_SIZE), dtype=np.uint8)
    top, left = (THUMBNAIL_SIZE - height) // 2, (THUMBNAIL_SIZE - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(small)
    return canvas


def write_png(task: Task, indices: Sequence[int], picture: Callable[[int], NDArray[np.uint8]]) -> None:
    """Write some slices of a volume as PNG, each from what `picture` gives for its index."""
    from PIL import Image

    assert task.png_dir is not None
    for index in indices:
        if task.volume.format == "images":
            name = f"{task.released_name}{PurePosixPath(task.volume.slice_path(index)).stem}"
        else:
            name = f"{task.released_name}_{task.first_number + index}"
        with atomic_write(task.png_dir / f"{name}.png", "wb") as file:
            Image.fromarray(picture(index)).save(file, format="PNG", compress_level=1)
