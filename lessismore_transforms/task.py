"""One volume's reduction, wherever it runs: stream, hash, rank, choose, store; its part proves that it is done."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import TEMPORARY, atomic_write, write_json, writing
from lessismore_transforms.manifest import format_number, record_order, slice_id
from lessismore_transforms.patients import key_fingerprint
from lessismore_transforms.pixels import check_pixels, to_pixels
from lessismore_transforms.reduction.hashing import dhash, format_hash
from lessismore_transforms.reduction.target import Target, choose, rank_hashes
from lessismore_transforms.store import STORE, write_volume
from lessismore_transforms.volumes import Crc32, Volume, VolumeError, read_slices

PARTS = "parts"
THUMBNAILS = f"{STORE}/thumbnails"
THUMBNAIL_SIZE = 96  # pixels
_SPOOL_BYTES = 64 << 20  # pixels of a volume beyond this go to disk until it is known which are kept


@dataclass(frozen=True)
class Settings:
    """What decides the content of an output folder; see `reduce --help` for each."""

    target: Target = field(default_factory=Target.of)
    pixels: str = "clipped"
    as_released: bool = False
    include: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    keep_patient_ids: bool = False

    def __post_init__(self) -> None:
        check_pixels(self.pixels)

    def as_dict(self, key: bytes) -> dict[str, Any]:
        """What the manifest holds of the settings: all but the target, which its selection holds."""
        return {
            "method": self.target.method,
            "pixels": self.pixels,
            "as_released": self.as_released,
            "include": list(self.include),
            "patterns": list(self.patterns),
            "patients": "as found" if self.keep_patient_ids else f"hashed with key {key_fingerprint(key)}",
        }


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
    released_name: str  # what the volume's slices are called in the released data, up to the number of the slice
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
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=str(parts), prefix=TEMPORARY) as spool:
        for piece in read_slices(volume, task.dataset_dir, crc):
            if piece.reason:
                reasons[piece.index] = piece.reason
                continue
            hashed, pixels = to_pixels(piece, volume.format, settings.pixels, as_released=settings.as_released)
            hashes[piece.index] = dhash(hashed)
            candidate[piece.index] = True
            replaced += piece.replaced
            offsets[piece.index] = spool.tell()
            with writing(parts):
                spool.write(np.ascontiguousarray(pixels).data)
            if thumbnails is not None:
                thumbnails[piece.index] = _thumbnail(pixels)
        if not candidate.any():
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
            "crc32": f"0x{crc.value:08x}",
            "notes": list(volume.notes),
        }
        if replaced:
            record["notes"].append(f"{replaced} voxels were NaN or infinite: set to the lowest value of their slice")
        if not candidate.all():
            record["notes"].append(f"{count - candidate.sum()} slices cannot be read; their rows tell why")
        if settings.as_released and volume.format != "images":
            record["first_number"] = task.first_number
        ranking = rank_hashes(hashes, candidate)
        kept = choose(settings.target, hashes, ranking, candidate, record_order(record))

        indices = np.flatnonzero(kept.kept)
        stored = np.empty((len(indices), height, width), dtype=np.uint8)
        for row, index in enumerate(indices):
            spool.seek(offsets[index])
            stored[row] = np.frombuffer(spool.read(height * width), dtype=np.uint8).reshape(height, width)
    write_volume(task.output_dir, volume.volume, stored)
    if thumbnails is not None:
        write_volume(task.output_dir, f"thumbnails/{volume.volume}", thumbnails)
    if task.png_dir is not None:
        _write_png(task, indices, stored)

    names = [slice_id(volume.volume, index) for index in range(count)]
    rows = [
        (
            names[index], volume.volume, task.patient, volume.series, volume.slice_path(index), str(index),
            f"{position + 0.0:.3f}", str(height), str(width),
            format_hash(hashes[index]) if candidate[index] else "",
            format_number(ranking.removed_at[index]),
            names[ranking.removed_by[index]] if ranking.removed_by[index] >= 0 else "",
            str(ranking.rank[index]) if candidate[index] else "",
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
    write_json(parts / f"{volume.volume}.json", {"record": record, "rows": rows, "selection": choice})
    return count


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


def _write_png(task: Task, indices: NDArray[np.int64], stored: NDArray[np.uint8]) -> None:
    from PIL import Image

    assert task.png_dir is not None
    for row, index in enumerate(indices.tolist()):
        if task.volume.format == "images":
            name = PurePosixPath(task.volume.slice_path(index)).stem
        else:
            name = f"{task.released_name}_{task.first_number + index}"
        with atomic_write(task.png_dir / f"{name}.png", "wb") as file:
            Image.fromarray(stored[row]).save(file, format="PNG", compress_level=1)
