"""One pass through a volume: each slice read, made a picture, hashed, and laid aside until it is known who stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.pipeline.spool import Spool
from lessismore_transforms.pipeline.task import Task
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.volumes import Crc32, Slice, Volume, read_slices
from lessismore_transforms.volumes.pixels import padding_voxels, to_pixels
from lessismore_transforms.wording import counted, printable

THUMBNAIL_SIZE = 96  # pixels


@dataclass(eq=False)
class Streamed:
    """What a pass through a volume of n slices leaves.

    Args:
        task: the volume's task.
        spool: the training pixels of the candidates.
        hashes: uint64 (n,).
        candidate: bool (n,), the slices that can be kept.
        reasons: why a slice is left out, empty for the others.
        pictures: uint8 (n, rows, columns), what measures other than HASH compare; None for HASH.
        thumbnails: uint8 (n, 96, 96), or None where the volume has none.
        crc: checksum of the files.
        replaced: number of voxels that were NaN or infinite.
        padding: number of voxels below -1024 HU.
        bodiless: number of slices left out because they show no body.
    """

    task: Task
    spool: Spool
    hashes: NDArray[np.uint64]
    candidate: NDArray[np.bool_]
    reasons: list[str]
    pictures: NDArray[np.uint8] | None
    thumbnails: NDArray[np.uint8] | None
    crc: Crc32 = field(default_factory=Crc32)
    replaced: int = 0
    padding: int = 0
    bodiless: int = 0

    @classmethod
    def empty(cls, task: Task, spool: Spool) -> Streamed:
        """Of no slice yet.

        Raises:
            VolumeError: a worker may not take the memory that the measure needs.
        """
        count = task.volume.shape[0]
        return cls(
            task,
            spool,
            hashes=np.zeros(count, dtype=np.uint64),
            candidate=np.zeros(count, dtype=bool),
            reasons=[""] * count,
            pictures=_room_for_pictures(task),
            thumbnails=np.zeros((count, THUMBNAIL_SIZE, THUMBNAIL_SIZE), dtype=np.uint8) if task.thumbnails else None,
        )

    def add(self, ct_slice: Slice) -> None:
        """Take in a slice that can be kept."""
        volume, settings, index = self.task.volume, self.task.settings, ct_slice.index
        hashed, pixels = to_pixels(ct_slice, volume.format, settings.pixels, as_released=settings.as_released)
        self.hashes[index] = dhash(hashed)
        self.candidate[index] = True
        if self.pictures is not None:
            self.pictures[index] = hashed
        self.replaced += ct_slice.replaced
        self.padding += padding_voxels(ct_slice)
        self.spool.put(index, pixels)
        if self.thumbnails is not None:
            self.thumbnails[index] = _thumbnail(pixels)


def stream_slices(task: Task, spool: Spool) -> Streamed:
    """What one pass through a volume leaves.

    Args:
        task: the volume's task.
        spool: room for the training pixels.

    Raises:
        VolumeError: no slice can be read, or the pictures take too much memory.
        OutputError: the spool cannot be written.
    """
    volume = task.volume
    streamed = Streamed.empty(task, spool)
    for ct_slice in read_slices(volume, task.dataset_dir, streamed.crc, memory_mb=task.settings.memory_mb):
        if ct_slice.reason:
            streamed.reasons[ct_slice.index] = ct_slice.reason
        elif task.settings.body and (reason := _without_body(ct_slice, volume)):
            streamed.reasons[ct_slice.index] = reason
            streamed.bodiless += 1
        else:
            streamed.add(ct_slice)
    if not streamed.candidate.any() and not streamed.bodiless:
        first = streamed.reasons[0]
        for path in (volume.slice_path(0), printable(volume.slice_path(0))):  # the page that shows this names no file
            first = first.removeprefix(f"{path}: ")
        raise VolumeError(
            f"{volume.path}: none of its {counted(volume.shape[0], 'slice')} can be read; the first: {first}"
        )
    return streamed


def _room_for_pictures(task: Task) -> NDArray[np.uint8] | None:
    """Room for the pictures that a measure compares; none for HASH, which compares hashes."""
    volume, settings = task.volume, task.settings
    if settings.target.measure == "hash":
        return None
    count, height, width = volume.shape
    if count * height * width > settings.memory_mb << 20:
        raise VolumeError(
            f"{volume.path}: {settings.target.measure} needs {count * height * width >> 20} MB in memory for "
            f"{counted(count, 'slice')} of {height} x {width}, more than the {settings.memory_mb} MB a worker may "
            "take: raise --memory_mb"
        )
    return np.zeros(volume.shape, dtype=np.uint8)


def _without_body(ct_slice: Slice, volume: Volume) -> str:
    """Why a slice is left out as empty; nothing where it shows a body."""
    from lessismore_transforms.reduction.foreground import NO_BODY, foreground_share

    share = foreground_share(ct_slice.hu, volume.spacing_mm[1:])
    return f"no body: {100 * share:.2f} % of the slice" if share < NO_BODY else ""


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[Any]:
    """The picture shrunk to fit, on black."""
    from PIL import Image

    scale = THUMBNAIL_SIZE / max(pixels.shape)
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    # By a whole factor first, which takes a tenth of the time and leaves no mark in a picture this small.
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX, reducing_gap=1.0)
    canvas = np.zeros((THUMBNAIL_SIZE, THUMBNAIL_SIZE), dtype=np.uint8)
    top, left = (THUMBNAIL_SIZE - height) // 2, (THUMBNAIL_SIZE - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(small)
    return canvas
