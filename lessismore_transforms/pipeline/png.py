"""The kept slices of a volume as PNG files, under the names of the released scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.pipeline.finished_part import kept_indices, read_part
from lessismore_transforms.pipeline.task import Task, png_stem
from lessismore_transforms.reduced.store import STORE
from lessismore_transforms.reduced.table_files import open_array


def write_png(task: Task, indices: Sequence[int], picture: Callable[[int], NDArray[np.uint8]]) -> None:
    """Write some slices of a volume as PNG, each from what `picture` gives for its index.

    Raises:
        OutputError: the folder cannot be written.
    """
    from PIL import Image

    assert task.png_dir is not None
    for index in indices:
        name = png_stem(task.volume, task.released_name, task.first_number, index)
        with atomic_write(task.png_dir / f"{name}.png", "wb", durable=False) as file:
            Image.fromarray(picture(index)).save(file, format="PNG", compress_level=1)


def write_png_again(done: Sequence[Task]) -> None:
    """Write the PNG files of volumes that were reduced before, from the store; their first rows are the selection's.

    Raises:
        OutputError: the folder cannot be written.
    """
    for task in done:
        indices = kept_indices(read_part(task))
        pixels = open_array(task.output_dir / STORE / f"{task.volume.volume}.npy")
        write_png(task, indices, dict(zip(indices, pixels, strict=False)).__getitem__)
