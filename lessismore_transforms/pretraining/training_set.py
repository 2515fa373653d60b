"""What a pre-training reads: the selected slices of outputs of `reduce`, or a folder of pictures.

All that a training asks of its data set beside the items themselves is asked here, for both kinds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.picture_set import PictureSet, is_reduction
from lessismore_transforms.training.processes import process_rank

TrainingSet = SliceSelectionDataset | PictureSet

_LOGGER = logging.getLogger("lessismore_transforms")


def open_dataset(
    dataset_dir: str | Path | Sequence[str | Path],
    selection: str = "default",
    split: str | Path | None = None,
    channels: int | None = None,
    sampling: str = "random",
) -> TrainingSet:
    """The data set of a training.

    Args:
        dataset_dir: output folder of `reduce`, or several; or a folder of pictures.
        selection: of the outputs.
        split: which of the pictures, see `picture_list.list_split`.
        channels: of the pictures, see `PictureSet`.
        sampling: `rotate` takes the slices that the selection removed as well.

    Raises:
        ManifestError: an output is incomplete or damaged, or the folder holds nothing that can be read.
        UserError: a setting of the one kind was given for the other, or a picture or list cannot be used.
    """
    folders = [Path(each) for each in ([dataset_dir] if isinstance(dataset_dir, (str, Path)) else dataset_dir)]
    reduced = len(folders) != 1 or is_reduction(folders[0])
    if reduced or not folders[0].is_dir():
        if split is not None or channels is not None:
            name, value = ("split", split) if split is not None else ("channels", channels)
            raise UserError(
                f"expected one folder of pictures for {name} {value!r}, found {dataset_dir}: name the folder, or leave "
                f"{name} out for the output of a reduction"
            )
        return SliceSelectionDataset(folders, selection, removed=sampling == "rotate")
    if selection != "default":
        raise UserError(
            f"expected an output of the reduction for selection {selection!r}, found none in {folders[0]}: "
            "name the output, or choose pictures of a folder by --split"
        )
    if sampling == "rotate":
        raise UserError(
            f"expected an output of the reduction for the sampling rotate, found the pictures of {folders[0]}, which "
            "no selection put into clusters: take the sampling random or spread"
        )
    return PictureSet(folders[0], split, channels)


def slices(dataset: TrainingSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Bits of the difference hash, and volume as a number from 0, of each item, int64 (n,) each.

    The volume of a picture is what its table groups it by, else its folder.
    """
    if isinstance(dataset, SliceSelectionDataset):
        numbers = {volume: number for number, volume in enumerate(dict.fromkeys(dataset.volumes))}
        volumes = np.array([numbers[volume] for volume in dataset.volumes], np.int64)
    else:
        volumes = np.unique(dataset.groups(), return_inverse=True)[1].astype(np.int64)
    return torch.from_numpy(dataset.hashes().view(np.int64).copy()), torch.from_numpy(volumes)


def smallest(dataset: TrainingSet) -> tuple[int, int]:
    """Rows and columns of the item with the fewest pixels."""
    return dataset.smallest()


def channels(dataset: TrainingSet) -> int:
    """Of each item: 1 where it is grey, 3 in colour; a slice is grey."""
    return 1 if isinstance(dataset, SliceSelectionDataset) else dataset.channels


def grey_mean(dataset: TrainingSet) -> list[float]:
    """The mean of the values in 0..1 of each channel; says where grey pictures are stored in colour."""
    if isinstance(dataset, SliceSelectionDataset):
        return [dataset.mean_std()[0]]
    mean, std = dataset.mean_std()
    if dataset.channels == 3 and len({*mean}) == len({*std}) == 1 and process_rank() == 0:
        _LOGGER.warning(
            "the pictures of %s are stored in colour but show grey: --channels 1 gives the same at a third of the cost",
            dataset.folder,
        )
    return mean


def grey_std(dataset: TrainingSet) -> list[float]:
    """The standard deviation of the values in 0..1 of each channel."""
    return [dataset.mean_std()[1]] if isinstance(dataset, SliceSelectionDataset) else dataset.mean_std()[1]


def described_set(dataset: TrainingSet) -> dict[str, Any]:
    """What config.json tells of pictures beside the settings; an output of the reduction tells it by itself."""
    return {} if isinstance(dataset, SliceSelectionDataset) else {"pictures": dataset.record()}


class WritePictures:
    """Write `pictures.csv` into the folder of a run when it begins; only process 0 writes.

    Args:
        dataset: the pictures.
        folder: of the run.
    """

    def __init__(self, dataset: PictureSet, folder: str | Path) -> None:
        self.dataset, self.folder = dataset, folder

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, _: Engine) -> None:
        """Write the file."""
        if process_rank() == 0:
            self.dataset.write(self.folder)
