"""Batches of slices from the store, of any sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset


class Slices(Protocol):
    """Any data set of `{"image": uint8 (C, H, W), ...}`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class SliceBatches(Dataset[Any]):
    """A data set of finished batches, so that loader workers hand over whole ones.

    Args:
        dataset: of single slices.
    """

    def __init__(self, dataset: Slices) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, batch: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """`image` uint8 (B, C, H, W), `size` int64 (B, 2), `index` int64 (B,) and `step` of a batch.

        Slices of different sizes are padded with zeros at the right and the bottom to the largest of the batch.
        """
        step, indices = batch
        pictures = [np.asarray(self.dataset[index]["image"]) for index in indices]
        shapes = np.array([picture.shape for picture in pictures])  # (B, 3)
        images = np.zeros((len(pictures), *shapes.max(axis=0)), np.uint8)
        for image, picture in zip(images, pictures, strict=True):
            image[:, : picture.shape[1], : picture.shape[2]] = picture
        return {
            "image": torch.from_numpy(images),
            "size": torch.from_numpy(shapes[:, 1:].copy()),
            "index": torch.tensor(indices),
            "step": step,
        }
