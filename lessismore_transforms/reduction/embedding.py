"""Features of slices by any encoder, and their cosine similarities: the measure DeepNet.

Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Section 2.1, DeepNet (Eq. 3): the cosine of the outputs of a
ResNet50 with torchvision's ImageNet weights. The paper states no input size: here the whole slice is resized to
224 x 224, so that nothing of it is cropped away, and normalised as ImageNet was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError

if TYPE_CHECKING:
    import torch

Features = npt.NDArray[np.float32]

DTYPES = ("float32", "bfloat16")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red, green, blue; of grey values in 0..1
_CPU_BATCH, _GPU_BATCH = 8, 64  # on two CPU cores 16 and 32 are slower: a ResNet50 outgrows the caches


def cosine_matrix(features: npt.NDArray[Any]) -> Features:
    """The cosine similarity of each pair of slices (Eq. 3), computed in float64.

    Args:
        features: (S, D), floats.

    Returns:
        float32 (S, S), symmetric, -1..1, diagonal 1. A vector of zeros has no direction: its similarity to another
        vector of zeros is 1, to everything else 0.

    Raises:
        UserError: the features are not of shape (S, D), or not finite.
    """
    if features.ndim != 2:
        raise UserError(f"expected features (S, D), found {features.shape}; give one vector for each slice")
    if not np.isfinite(features).all():
        raise UserError("expected finite features, found NaN or infinity; check the weights of the encoder")
    directions = features.astype(np.float64)
    lengths = np.linalg.norm(directions, axis=1)
    empty = lengths == 0
    directions /= np.where(empty, 1, lengths)[:, None]
    cosines: Features = (directions @ directions.T).clip(-1, 1).astype(np.float32)
    cosines[np.ix_(empty, empty)] = 1
    np.fill_diagonal(cosines, 1)
    return cosines


def embed(
    slices: npt.NDArray[np.uint8],
    encoder: Callable[[torch.Tensor], torch.Tensor],
    *,
    size: int = 224,
    batch_size: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Features:
    """The features of each slice.

    Args:
        slices: uint8 (S, H, W), grey.
        encoder: takes float32 (N, 3, size, size), normalised, in channels_last, and gives (N, D) or (N, D, 1, 1): a
            network on `device` in eval mode, fastest from `weights.backbones.to_encoder`, or any other callable.
        size: pixels per side that the slices are resized to (bilinear, antialiased, in floats).
        batch_size: slices per call of the encoder; by default 8 on a CPU, 64 elsewhere.
        device: where to compute: "cpu", "cuda", "cuda:1", ...
        dtype: "float32", or "bfloat16" for autocast: twice as fast, but use float32 for a kept set that you report.

    Returns:
        float32 (S, D); the same bytes for the same input, settings, machine and number of threads.

    Raises:
        UserError: the slices are not uint8 (S, H, W), `dtype` or a number is out of range, or the encoder is in
            training mode, is on another device or does not give one vector per slice.
    """
    import torch

    where = torch.device(device)
    batch = batch_size if batch_size is not None else _CPU_BATCH if where.type == "cpu" else _GPU_BATCH
    _check(slices, size, batch, dtype)
    _check_encoder(encoder, where)
    features = []
    with (
        torch.inference_mode(),
        torch.autocast(where.type, torch.bfloat16, enabled=dtype == "bfloat16"),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        for start in range(0, len(slices), batch):
            grey = torch.from_numpy(slices[start : start + batch].copy()).to(where)
            output = encoder(_normalise(grey, size))
            if output.ndim not in (2, 4) or len(output) != len(grey) or output[0].numel() != output.shape[1]:
                raise UserError(
                    f"expected features ({len(grey)}, D) or ({len(grey)}, D, 1, 1) from the encoder, found "
                    f"{tuple(output.shape)}; pool its maps first"
                )
            features.append(output.flatten(1).float())
    if not features:
        return np.empty((0, 0), np.float32)
    result: Features = torch.cat(features).cpu().numpy()
    return result


def _normalise(grey: torch.Tensor, size: int) -> torch.Tensor:
    """Network input float32 (N, 3, size, size) of pictures uint8 (N, H, W), channels_last without a copy.

    The network keeps its three channels. A first layer that takes one channel saves no measurable time and is wrong at
    the border, because the zeros of the padding stand for another grey in each normalised channel.
    """
    import torch

    from lessismore_transforms.reduction.network_input import resize

    small = resize(grey[:, None].float(), size)  # (N, 1, s, s)
    mean, std = torch.tensor(_MEAN, device=grey.device), torch.tensor(_STD, device=grey.device)
    return ((small[:, 0, :, :, None] / 255 - mean) / std).permute(0, 3, 1, 2)


def _check(slices: npt.NDArray[np.uint8], size: int, batch: int, dtype: str) -> None:
    if slices.dtype != np.uint8 or slices.ndim != 3 or 0 in slices.shape[1:]:
        raise UserError(
            f"expected uint8 slices (S, H, W), found {slices.dtype} of shape {slices.shape}; "
            "scale them with min_max_uint8 first"
        )
    if size < 1 or batch < 1:
        raise UserError(f"expected a size and a batch of 1 or more, found {size} and {batch}; give larger ones")
    if dtype not in DTYPES:
        raise UserError(f"expected a dtype out of {', '.join(DTYPES)}, found {dtype!r}; float32 is usual")


def _check_encoder(encoder: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> None:
    import torch

    if not isinstance(encoder, torch.nn.Module):
        return
    if encoder.training:
        raise UserError("expected an encoder in eval mode, found training mode, where batches mix; call encoder.eval()")
    weights = next(encoder.parameters(), None)
    if weights is not None and weights.device.type != device.type:
        raise UserError(f"expected the encoder on {device}, found it on {weights.device}; move it with encoder.to()")
