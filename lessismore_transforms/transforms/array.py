"""Slice selection and 8-bit pictures as MONAI transforms of channel-first arrays, tensors and MetaTensors."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, Transform
from monai.utils import MetaKeys, SpaceKeys
from monai.utils.enums import TraceKeys, TransformBackends
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.intensity import Window, min_max_uint8, window_uint8
from lessismore_transforms.reduction.measures import features_of, pair_matrix, rank_slices
from lessismore_transforms.reduction.target import Target, choose
from lessismore_transforms.volumes.geometry import LPS_TO_RAS, canonical_affine, canonical_orientation, slice_positions
from lessismore_transforms.volumes.pixels import AIR_HU
from lessismore_transforms.volumes.volume import to_hu
from lessismore_transforms.weights.backbones import to_encoder
from lessismore_transforms.wording import counted

Image = TypeVar("Image", NDArray[Any], torch.Tensor)

_BACKENDS = [TransformBackends.TORCH, TransformBackends.NUMPY]


class _ToUint8(Transform):  # type: ignore[misc]
    """Common base of the two transforms to 8 bit: they take slice after slice, each in finite HU."""

    backend = _BACKENDS

    def __init__(self, slice_dim: int) -> None:
        self.slice_dim = slice_dim

    def __call__(self, img: Image) -> Image:
        """The picture of `img` (C, H, W) or (C, x, y, z): uint8, same shape and kind, metadata kept."""
        hu = _as_array(img)
        if hu.ndim not in (3, 4):
            raise UserError(f"expected an image (C, H, W) or a volume (C, x, y, z), found shape {hu.shape}")
        axis = _slice_axis(hu.shape, self.slice_dim) + 1 if hu.ndim == 4 else 0
        slices = np.moveaxis(hu, axis, 1) if axis else hu[:, None]  # (C, S, ...)
        pixels = np.empty(slices.shape, dtype=np.uint8)
        for place in np.ndindex(slices.shape[:2]):
            pixels[place] = self._picture(to_hu(np.ascontiguousarray(slices[place]))[0])
        return _like(img, np.ascontiguousarray(np.moveaxis(pixels, 1, axis) if axis else pixels[:, 0]))

    def _picture(self, hu: NDArray[Any]) -> NDArray[np.uint8]:
        raise NotImplementedError


class ScaleToUint8(_ToUint8):
    """Stretch each slice over 0..255 by its own minimum and maximum, rounded half to even; a constant slice is zeros.

    By default this is the picture that is hashed and that `reduce` stores; see `reduction.intensity.min_max_uint8`.

    Args:
        lower: smaller values (padding) count as this one, in HU; None keeps them, for pictures that are not in HU.
        slice_dim: axis of the slices of a volume (C, x, y, z); of an image (C, H, W) each channel is a slice.
    """

    def __init__(self, lower: float | None = AIR_HU, slice_dim: int = -1) -> None:
        super().__init__(slice_dim)
        self.lower = lower

    def _picture(self, hu: NDArray[Any]) -> NDArray[np.uint8]:
        return min_max_uint8(hu, lower=self.lower)


class WindowToUint8(_ToUint8):
    """Show a window of HU as 0..255, rounded half to even; see `reduction.intensity.window_uint8`.

    Args:
        window: a preset's name (`lung`), level and width in HU (`"40/400"`), or a `Window`.
        slice_dim: axis of the slices of a volume: NaN and infinite voxels count as the lowest of their slice.

    Raises:
        UserError: there is no such window.
    """

    def __init__(self, window: str | Window, slice_dim: int = -1) -> None:
        super().__init__(slice_dim)
        self.window = window if isinstance(window, Window) else Window.parse(window)

    def _picture(self, hu: NDArray[Any]) -> NDArray[np.uint8]:
        return window_uint8(hu, self.window)


class SelectSlices(InvertibleTransform):  # type: ignore[misc]
    """Keep the slices of a volume that are worth learning from: exactly those that `reduce` keeps.

    An 8-bit copy is ranked, in canonical order and orientation by the MetaTensor's affine; the original's slices are
    returned, in the order given. An array or tensor without affine is taken as LPS+ (x to the patient's left, y to
    posterior, z to the head), with one warning per process; a MetaTensor always has one, by default MONAI's identity,
    which is RAS+.

    In the affine of the result the first and the last slice stay where they were, and the step between slices is the
    mean distance. This is exact where the kept slices are evenly spaced; else `kept_slices` gives the true places.
    `inverse` puts the slices back at their places in the volume; the removed ones hold `fill_value`.

    Examples:
        >>> import numpy as np
        >>> volume = np.zeros((1, 32, 32, 3), dtype=np.float32)
        >>> volume[:, :16, :, 2] = 100.0
        >>> SelectSlices(threshold=6).kept_slices(volume)
        array([0, 2])

    Args:
        method: the measure of redundancy.
        threshold: distance (HASH: whole bits, 0 to 64, by default 6) or similarity at which a slice is redundant.
        fraction: share of the slices to keep instead, in (0, 1].
        rule: `exemplars` (default with a HASH threshold) or `pairs` (default else).
        slice_dim: axis of the slices, counted as in the array (C, x, y, z).
        step: keep every step-th slice; `every_n` only, like the next two.
        step_mm: keep a slice every so many mm.
        offset: of the first slice to keep, in slices or mm.
        near: keep so many of the slices that each kept one stands for too, the nearest first; exemplars only.
        seed: of the draw; `random` only.
        encoder: takes (N, 3, H, W) and gives (N, D); `deepnet` only.
        bins: grey levels of the joint histogram; `mi` only.
        fill_value: of the removed slices, where a volume is inverted.

    Raises:
        UserError: the method or rule is unknown, a value is out of range, or two options exclude each other.
    """

    backend = _BACKENDS

    def __init__(
        self,
        method: str = "hash",
        threshold: float | None = None,
        fraction: float | None = None,
        rule: str | None = None,
        slice_dim: int = -1,
        *,
        step: int | None = None,
        step_mm: float | None = None,
        offset: float = 0,
        near: int = 0,
        seed: int = 0,
        encoder: Callable[[torch.Tensor], torch.Tensor] | None = None,
        bins: int = 64,
        fill_value: float = 0,
    ) -> None:
        self.target = Target.of(
            method=method,
            rule=rule,
            threshold=threshold,
            fraction=fraction,
            step=step,
            step_mm=step_mm,
            offset=offset,
            near=near,
            seed=seed,
        )
        self.slice_dim = slice_dim
        self.encoder = to_encoder(encoder) if isinstance(encoder, torch.nn.Module) else encoder
        self.bins, self.fill_value = bins, fill_value
        if method == "deepnet" and encoder is None:
            raise UserError("deepnet needs an encoder: give one, such as backbones.build_backbone('resnet50', ...)")

    def __call__(self, img: Image) -> Image:
        """The kept slices of `img` (1, x, y, z) as a volume of the same kind and type."""
        return self.take(img, self.kept_slices(img))

    def kept_slices(self, img: NDArray[Any] | torch.Tensor) -> NDArray[np.int64]:
        """Indices of the slices of `img` (1, x, y, z) that are kept, ascending.

        Raises:
            UserError: the array is not a volume of one channel, or its affine has no orientation.
        """
        if img.ndim != 4 or img.shape[0] != 1 or 0 in img.shape:
            raise UserError(
                f"expected one channel of a volume (1, x, y, z), found shape {tuple(img.shape)}: "
                "put EnsureChannelFirstd before, and select channels one by one"
            )
        axis = _slice_axis(img.shape, self.slice_dim)
        across = [other for other in range(3) if other != axis]
        affine = _affine(img)[:, [*across, axis, 3]]
        orientation = canonical_orientation(affine)
        width, height, count = (img.shape[other + 1] for other in (*across, axis))
        pictures: list[NDArray[np.uint8]] = [np.empty((0, 0), np.uint8)] * count
        for stored, ct_slice in enumerate(np.moveaxis(_as_array(img)[0], axis, 0)):
            hu, _ = to_hu(np.ascontiguousarray(ct_slice).T)  # the first of the two axes is the columns'
            pictures[orientation.index(stored, count)] = min_max_uint8(orientation.apply(hu), lower=AIR_HU)
        features = features_of(self.target.measure, np.stack(pictures), encoder=self.encoder)
        matrix = pair_matrix(self.target.measure, features, bins=self.bins)
        candidate = np.ones(count, dtype=bool)
        kept = choose(
            self.target,
            rank_slices(self.target.measure, features, candidate, matrix=matrix),
            candidate,
            positions_mm=slice_positions(canonical_affine(affine, (width, height, count), orientation), count),
            distances_from=matrix.__getitem__,
            hashes=features if self.target.measure == "hash" else None,
        ).kept
        return np.flatnonzero(kept[[orientation.index(stored, count) for stored in range(count)]])

    def take(self, img: Image, slices: NDArray[np.int64]) -> Image:
        """The given slices of `img` as a volume, with the affine that this class describes."""
        axis = _slice_axis(img.shape, self.slice_dim)
        if not isinstance(img, torch.Tensor):
            return np.take(img, slices, axis=axis + 1)
        kept = torch.index_select(img, axis + 1, torch.from_numpy(slices).to(img.device))
        if isinstance(kept, MetaTensor):
            self.push_transform(
                kept,
                orig_size=tuple(img.shape[1:]),
                extra_info={"slices": tuple(slices.tolist()), "affine": kept.affine.clone()},
            )
            affine = kept.affine.clone()
            first, last = int(slices[0]), int(slices[-1])
            affine[:3, 3] += affine[:3, axis] * first
            affine[:3, axis] *= (last - first) / (len(slices) - 1) if len(slices) > 1 else 1
            kept.affine = affine
        return kept

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """The slices (C, x, y, kept) back at their places (C, x, y, z); the others hold `fill_value`.

        Raises:
            UserError: it is no MetaTensor that this transform has made, or its slices are not those that were kept.
        """
        if not isinstance(data, MetaTensor) or not data.applied_operations:
            raise UserError(
                "expected a MetaTensor that knows what was done with it, found none: load with LoadImage, and leave "
                "MONAI's tracing on, to invert SelectSlices"
            )
        done = self.pop_transform(data)
        size, slices = tuple(done[TraceKeys.ORIG_SIZE]), done[TraceKeys.EXTRA_INFO]["slices"]
        axis = _slice_axis((1, *size), self.slice_dim)
        expected = tuple(len(slices) if place == axis else length for place, length in enumerate(size))
        if tuple(data.shape[1:]) != expected:
            raise UserError(
                f"expected the {counted(len(slices), 'kept slice')}, of shape {expected}, found "
                f"{tuple(data.shape[1:])}: invert first what changed their size"
            )
        restored = torch.full((len(data), *size), self.fill_value, dtype=data.dtype, device=data.device)
        places = torch.tensor(slices, device=data.device)
        restored.index_copy_(axis + 1, places, data.as_tensor())
        found: torch.Tensor = MetaTensor(restored).copy_meta_from(data)
        found.affine = done[TraceKeys.EXTRA_INFO]["affine"]  # type: ignore[attr-defined]
        return found


def _slice_axis(shape: tuple[int, ...] | torch.Size, slice_dim: int) -> int:
    """Index among the three spatial axes of the axis that `slice_dim` names in the array (C, x, y, z)."""
    if not 1 <= slice_dim % 4 <= 3 or not -4 < slice_dim < 4:
        raise UserError(f"expected slice_dim 1, 2 or 3 (or -3, -2, -1) of the array {tuple(shape)}, found {slice_dim}")
    return slice_dim % 4 - 1


def _as_array(img: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    """The voxels as a NumPy array, without a copy where they are in main memory."""
    if not isinstance(img, torch.Tensor):
        return np.asarray(img)
    plain = img.as_tensor() if isinstance(img, MetaTensor) else img
    plain = plain.detach().cpu()
    return np.asarray(plain.float() if plain.dtype == torch.bfloat16 else plain)


def _like(img: Image, values: NDArray[Any]) -> Image:
    """`values` as an array, tensor or MetaTensor like `img`, on its device and with its metadata."""
    if not isinstance(img, torch.Tensor):
        return values
    tensor = torch.from_numpy(values).to(img.device)
    return MetaTensor(tensor).copy_meta_from(img) if isinstance(img, MetaTensor) else tensor


def _affine(img: NDArray[Any] | torch.Tensor) -> NDArray[np.float64]:
    """RAS+ affine (4, 4) of the array's three spatial axes."""
    if not isinstance(img, MetaTensor):
        _warn_without_affine()
        return LPS_TO_RAS
    affine: NDArray[np.float64] = img.affine.cpu().numpy().astype(np.float64)
    return LPS_TO_RAS @ affine if img.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS else affine


@functools.cache
def _warn_without_affine() -> None:
    warnings.warn(
        "an array without affine is taken as LPS+ (x to the patient's left, y to posterior, z to the head): "
        "which slices are kept depends on it; load with CTVolumeReader to have it known",
        stacklevel=4,
    )
