"""A 2-D picture in a file as 8 bit, for pipelines that begin with a path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from lessismore_transforms.errors import UserError
from lessismore_transforms.volumes.pictures import check_window, read_image, with_channels


class LoadPictured(MapTransform):  # type: ignore[misc]
    """Read PNG, JPEG, TIFF or DICOM pictures as uint8 tensors (C, H, W), as the inference of the bundles sees them.

    What is no path is taken for a picture that was read before: a tensor stays as it is, and an array uint8 (H, W) or
    (H, W, 3) becomes a tensor.

    Examples:
        >>> from lessismore_transforms.transforms import LoadPictured
        >>> load = LoadPictured("image")

    Args:
        keys: of the paths.
        channels: 1 for grey, or 3.
        window: in which those with HU are seen, see `pictures.read_image`.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        UserError: there is no such window or number of channels; or, when called, a picture cannot be read.
    """

    def __init__(
        self, keys: KeysCollection, channels: int = 1, window: str | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if channels not in (1, 3):
            raise UserError(f"expected pictures of 1 or 3 channels, found channels {channels!r}: give one of these")
        check_window(window, channels)
        self.channels, self.window = channels, window

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """The item with its pictures read."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._load(item[key])
        return item

    def _load(self, picture: Any) -> torch.Tensor:
        if isinstance(picture, torch.Tensor):
            return picture
        if isinstance(picture, str | Path):
            picture = read_image(Path(picture), self.channels, window=self.window)
        planes = np.atleast_3d(with_channels(picture, self.channels)).transpose(2, 0, 1)  # (C, H, W)
        return torch.from_numpy(planes.copy())
