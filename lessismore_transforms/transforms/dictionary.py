"""The transforms of `array` for dictionaries, as MONAI pipelines carry them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.intensity import Window
from lessismore_transforms.transforms.array import ScaleToUint8, SelectSlices, WindowToUint8
from lessismore_transforms.volumes.pixels import AIR_HU


class ScaleToUint8d(MapTransform):  # type: ignore[misc]
    """`ScaleToUint8` for dictionaries.

    Args:
        keys: the images.
        lower: smaller values (padding) count as this one, in HU; None keeps them.
        slice_dim: axis of the slices of a volume (C, x, y, z).
        allow_missing_keys: leave out images that are not there.
    """

    backend = ScaleToUint8.backend

    def __init__(
        self, keys: KeysCollection, lower: float | None = AIR_HU, slice_dim: int = -1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = ScaleToUint8(lower, slice_dim)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of `data` with the images scaled."""
        return {**data, **{key: self.scale(data[key]) for key in self.key_iterator(data)}}


class WindowToUint8d(MapTransform):  # type: ignore[misc]
    """`WindowToUint8` for dictionaries.

    Args:
        keys: the images.
        window: a preset's name (`lung`), level and width in HU (`"40/400"`), or a `Window`.
        slice_dim: axis of the slices of a volume (C, x, y, z).
        allow_missing_keys: leave out images that are not there.
    """

    backend = WindowToUint8.backend

    def __init__(
        self, keys: KeysCollection, window: str | Window, slice_dim: int = -1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = WindowToUint8(window, slice_dim)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of `data` with the images windowed."""
        return {**data, **{key: self.scale(data[key]) for key in self.key_iterator(data)}}


class SelectSlicesd(MapTransform, InvertibleTransform):  # type: ignore[misc]
    """`SelectSlices` for dictionaries: keeps exactly the slices that `reduce` keeps.

    The key then holds the kept slices of the original, as a volume in the order given, and `<key>_slices` holds their
    indices in the volume given, int64 (1, kept), which `pad_list_data_collate` pads as it pads the slices.
    `SplitDimd([key, f"{key}_slices"], dim=-1, keepdim=False, list_output=True)` then gives 2-D slices, each with its
    index. `inverse` puts the slices back at their places; it honours what was done before, such as `Spacingd`.

    Examples:
        >>> from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
        >>> from lessismore_transforms.transforms import CTVolumeReader
        >>> reduce = Compose(
        ...     [
        ...         LoadImaged("image", reader=CTVolumeReader()),
        ...         EnsureChannelFirstd("image"),
        ...         SelectSlicesd("image", method="hash", threshold=6),
        ...     ]
        ... )

    Args:
        keys: the volumes, each ranked by itself.
        method: the measure of redundancy.
        threshold: distance (HASH: whole bits, 0 to 64, by default 6) or similarity at which a slice is redundant.
        fraction: share of the slices to keep instead, in (0, 1].
        rule: `exemplars` (default with a HASH threshold) or `pairs` (default else).
        slice_dim: axis of the slices, counted as in the array (C, x, y, z).
        allow_missing_keys: leave out volumes that are not there.
        source_key: rank only this volume, and keep the same slices of every key, for instance of a label. It has to be
            there wherever one of the keys is.
        step: keep every step-th slice; `every_n` only.
        step_mm: keep a slice every so many mm; `every_n` only.
        offset: of the first slice to keep, in slices or mm; `every_n` only.
        near: keep so many of the slices that each kept one stands for too, the nearest first; exemplars only.
        seed: of the draw; `random` only.
        encoder: takes (N, 3, H, W) and gives (N, D); `deepnet` only.
        bins: grey levels of the joint histogram; `mi` only.
        fill_value: of the removed slices, where a volume is inverted.

    Raises:
        UserError: the method or rule is unknown, a value is out of range, or two options exclude each other; in a call,
            the source is missing, or a volume is not on its grid.
    """

    backend = SelectSlices.backend

    def __init__(
        self,
        keys: KeysCollection,
        method: str = "hash",
        threshold: float | None = None,
        fraction: float | None = None,
        rule: str | None = None,
        slice_dim: int = -1,
        allow_missing_keys: bool = False,
        *,
        source_key: str | None = None,
        step: int | None = None,
        step_mm: float | None = None,
        offset: float = 0,
        near: int = 0,
        seed: int = 0,
        encoder: Callable[[torch.Tensor], torch.Tensor] | None = None,
        bins: int = 64,
        fill_value: float = 0,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source_key = source_key
        self.select = SelectSlices(
            method,
            threshold,
            fraction,
            rule,
            slice_dim,
            step=step,
            step_mm=step_mm,
            offset=offset,
            near=near,
            seed=seed,
            encoder=encoder,
            bins=bins,
            fill_value=fill_value,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of `data` with the kept slices and their indices."""
        result = dict(data)
        kept: dict[Hashable, NDArray[np.int64]] = {}
        for key in self.key_iterator(data):
            source = key if self.source_key is None else self.source_key
            if source not in data:
                raise UserError(
                    f"expected the source_key {source!r}, whose slices are ranked, found only "
                    f"{', '.join(map(repr, data))}: load it before, or name another one"
                )
            if source not in kept:
                kept[source] = self.select.kept_slices(data[source])
            if data[key].shape[1:] != data[source].shape[1:]:
                found, expected = tuple(data[key].shape[1:]), tuple(data[source].shape[1:])
                raise UserError(
                    f"expected {key} on the grid of {source}, {expected}, found {found}: resample it before"
                )
            result[key] = self.select.take(data[key], kept[source])
        return result | {f"{source}_slices": slices[None] for source, slices in kept.items()}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of `data` with the slices back at their places, see `SelectSlices.inverse`."""
        return {**data, **{key: self.select.inverse(data[key]) for key in self.key_iterator(data)}}


ScaleToUint8D = ScaleToUint8Dict = ScaleToUint8d
WindowToUint8D = WindowToUint8Dict = WindowToUint8d
SelectSlicesD = SelectSlicesDict = SelectSlicesd
