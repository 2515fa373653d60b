"""Where a network looks: maps of pictures by Grad-CAM or by the length of features, and how far two maps agree.

The paper (Wolf et al. 2024, Section 3.4) compares maps after pre-training with maps after fine-tuning by their IoU and
tells neither layer, class nor threshold. Before fine-tuning the linear layer is random and so are gradients of its
classes: `feature_norm_map` then shows where features are large, and asks for no class.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional as F

from lessismore_transforms.analysis.layers import full_name, is_block, watching
from lessismore_transforms.errors import UserError, first_line
from lessismore_transforms.weights.backbones import three_channels
from lessismore_transforms.wording import counted

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SHARE = 0.5
SHARES = tuple(number / 10 for number in range(1, 10))
_LEAST_PLACES = 4  # of a layer's map
_ROUNDING = 1e-5  # width of a map, as a share of its largest value, that is rounding
_BATCH = 64


class Overlap(NamedTuple):
    """How far two maps of each of N pictures agree; nan for a picture with a constant map.

    Attributes:
        shares: (S,) of the maximum, at which maps are binarised.
        iou: (S, N) intersection over union at each share.
        intersection: (N,) of `histogram_intersection`.
        spearman: (N,) of `rank_correlation`.
        constant: number of pictures with a constant map.
    """

    shares: Floats
    iou: Floats
    intersection: Floats
    spearman: Floats
    constant: int


def default_layer(network: nn.Module) -> str:
    """The name of the last residual block, or of the last convolution of a network without any.

    Raises:
        UserError: the network has neither.
    """
    modules = dict(network.named_modules())
    blocks = [name for name, module in modules.items() if is_block(module)]
    convolutions = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    if not (blocks or convolutions):
        raise UserError("expected a network with a convolution, found none: give a ResNet")
    names: list[str] = blocks or convolutions
    return names[-1]


def grad_cam(
    network: nn.Module,
    images: torch.Tensor,
    *,
    classes: ArrayLike | torch.Tensor | None = None,
    layer: str | None = None,
    batch_size: int = _BATCH,
) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391, Equations 1 and 2), by MONAI, upsampled to the pictures.

    MONAI's own scaling makes the largest value 0; here it is 1. MONAI adds the gradients of the classes of all pictures
    of a batch to each of them; here each picture has that of its own class. The network is not changed: hooks and
    gradients are those of a copy in evaluation mode, frozen or not.

    Args:
        network: gives logits (B, C) for pictures (B, 3, H, W).
        images: (N, 1 or 3, H, W), prepared as for the network, on its device.
        classes: (N,) whose evidence is shown, such as the true ones; by default the predicted ones.
        layer: name of a module with output (B, channels, h, w); by default `default_layer`.
        batch_size: pictures at once.

    Returns:
        float32 (N, H, W) on the CPU, 0..1 in each picture; 0 everywhere for a constant map.

    Raises:
        UserError: there is no such layer or class, or the layer gives no maps.
    """
    from monai.visualize import GradCAM  # takes seconds to import

    chosen = _checked_classes(classes, len(images))
    name, copied = _prepared(network, images, layer)
    cam: Any = GradCAM(_ChosenLogit(copied), f"network.{name}", postprocessing=nn.Identity())
    maps = []
    for rows in torch.split(torch.arange(len(images)), batch_size):
        batch = three_channels(images[rows]).detach().clone().requires_grad_()  # gradients also where all is frozen
        asked = None if chosen is None else chosen[rows].to(batch.device)
        try:
            with torch.enable_grad():
                found = cam(batch, class_idx=0, classes=asked)  # (B, 1, H, W)
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise
            raise UserError(
                f"expected a layer whose output stays as it is, found that the network changes that of {name} in place "
                f"({first_line(error)[:80]}): give the block that it is in"
            ) from error
        maps.append(scaled(found[:, 0].detach()).cpu())
    return torch.cat(maps)


@torch.no_grad()
def feature_norm_map(
    network: nn.Module, images: torch.Tensor, *, layer: str | None = None, batch_size: int = _BATCH
) -> torch.Tensor:
    """The length of the features at each place of a layer, upsampled to the pictures: a map that needs no class.

    Args:
        network: a backbone or a classifier.
        images: (N, 1 or 3, H, W), prepared as for the network, on its device.
        layer: as for `grad_cam`.
        batch_size: pictures at once.

    Returns:
        float32 (N, H, W) on the CPU, 0..1 in each picture; 0 everywhere for a constant map.

    Raises:
        UserError: there is no such layer, or it gives no maps.
    """
    name, copied = _prepared(network, images, layer)
    maps = []
    for batch in torch.split(images, batch_size):
        length = torch.linalg.vector_norm(_output_of(copied, name, batch), dim=1, keepdim=True)  # (B, 1, h, w)
        found = F.interpolate(length.float(), size=batch.shape[2:], mode="bilinear", align_corners=False)
        maps.append(scaled(found[:, 0]).cpu())
    return torch.cat(maps)


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """Maps (N, H, W) with least value 0 and largest 1 in each picture; a constant one is 0."""
    least, most = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    width = most - least
    constant = width <= _ROUNDING * torch.maximum(least.abs(), most.abs())
    return torch.where(constant, torch.zeros_like(maps), (maps - least) / torch.where(constant, 1, width))


def overlap(first: ArrayLike, second: ArrayLike, *, shares: Sequence[float] = SHARES) -> Overlap:
    """All measures of agreement of two maps of each picture.

    Maps of different pictures agree too, as organs lie in the middle: `overlap(first, np.roll(second, 1, axis=0))`
    tells how far. `group_intervals.mean_by_groups` and `difference_by_groups` give means with intervals.

    Args:
        first: (N, H, W), 0..1 in each picture.
        second: (N, H, W), of the same pictures.
        shares: of the maximum, at which maps are binarised.

    Raises:
        UserError: the shapes differ, values are negative or not finite, or a share is out of range.
    """
    a, b = _checked_maps(first, second)
    return Overlap(
        np.asarray(shares, np.float64),
        np.array([iou(a, b, share=share) for share in shares]),
        histogram_intersection(a, b),
        rank_correlation(a, b),
        int(_constant(a, b).sum()),
    )


def iou(first: ArrayLike, second: ArrayLike, *, share: float = SHARE) -> Floats:
    """Intersection over union (N,) of the places where each map is at least a share of its maximum.

    Args:
        first: (N, H, W), 0..1 in each picture.
        second: (N, H, W), of the same pictures.
        share: more than 0, up to 1.

    Returns:
        (N,); nan for a picture with a constant map.

    Raises:
        UserError: as `overlap`.
    """
    a, b = _checked_maps(first, second)
    if not 0 < share <= 1:
        raise UserError(f"expected a share of the maximum above 0 and up to 1, found {share}: {SHARE} is usual")
    hot_a, hot_b = (maps >= share * maps.max(axis=(1, 2), keepdims=True) for maps in (a, b))
    both, either = (hot_a & hot_b).sum(axis=(1, 2)), (hot_a | hot_b).sum(axis=(1, 2))
    return np.where(_constant(a, b), np.nan, both / either)


def histogram_intersection(first: ArrayLike, second: ArrayLike) -> Floats:
    """The sum of the lesser of two maps, each with sum 1: 1 for the same, 0 for disjoint ones, without a threshold.

    SIM of Bylinskii et al. 2019 (arXiv 1604.03605), after Swain & Ballard 1991.

    Args:
        first: (N, H, W), 0..1 in each picture.
        second: (N, H, W), of the same pictures.

    Returns:
        (N,); nan for a picture with a constant map.

    Raises:
        UserError: as `overlap`.
    """
    a, b = _checked_maps(first, second)
    constant = _constant(a, b)
    p, q = (maps / np.where(constant, 1, maps.sum(axis=(1, 2)))[:, None, None] for maps in (a, b))
    return np.where(constant, np.nan, np.minimum(p, q).sum(axis=(1, 2)))


def rank_correlation(first: ArrayLike, second: ArrayLike) -> Floats:
    """Spearman's rank correlation (N,) of two maps over the places of each picture.

    Args:
        first: (N, H, W).
        second: (N, H, W), of the same pictures.

    Returns:
        (N,); nan for a picture with a constant map.

    Raises:
        UserError: as `overlap`.
    """
    from scipy.stats import rankdata  # takes a second to import

    a, b = _checked_maps(first, second)
    found = np.full(len(a), np.nan)
    for row in np.flatnonzero(~_constant(a, b)):
        found[row] = np.corrcoef(rankdata(a[row]), rankdata(b[row]))[0, 1]
    return found


class _ChosenLogit(nn.Module):
    """A network whose only output (B, 1) is the logit of one class for each picture, by default the largest."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, classes: torch.Tensor | None) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)  # (B, C)
        chosen = logits.argmax(dim=1) if classes is None else classes  # (B,)
        if chosen.min() < 0 or chosen.max() >= logits.shape[1]:
            raise UserError(
                f"expected classes from 0 to {logits.shape[1] - 1}, found {int(chosen.min())} to {int(chosen.max())}: "
                "give the positions of outputs of this network"
            )
        return logits.gather(1, chosen[:, None])


def _prepared(network: nn.Module, images: torch.Tensor, layer: str | None) -> tuple[str, nn.Module]:
    """The name of a layer that gives maps, and a copy of the network in evaluation mode that changes less in place."""
    if images.ndim != 4 or not len(images):
        raise UserError(f"expected pictures (N, 1 or 3, H, W), found {tuple(images.shape)}: give one or more")
    known = [name for name, _ in network.named_modules() if name]
    name = default_layer(network) if layer is None else full_name(layer, known)
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for module in copied.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    with torch.no_grad():
        found = _output_of(copied, name, images[:1])
    if found.ndim != 4 or found.shape[2] * found.shape[3] < _LEAST_PLACES:
        raise UserError(
            f"expected a layer that gives maps (B, channels, h, w) of several places, found "
            f"{tuple(found.shape)} of {name}: "
            f"give an earlier one, such as {default_layer(network)!r}"
        )
    return name, copied


def _output_of(network: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """What a layer gives for pictures."""
    outputs: list[torch.Tensor] = []
    with watching(network, [layer], lambda _, output: outputs.append(output)):
        network(three_channels(images))
    if not outputs:
        raise UserError(f"expected a layer that runs and gives one tensor, found that {layer} does not: give another")
    return outputs[0]


def _checked_classes(classes: ArrayLike | torch.Tensor | None, pictures: int) -> torch.Tensor | None:
    if classes is None:
        return None
    chosen = torch.as_tensor(np.asarray(classes.cpu() if isinstance(classes, torch.Tensor) else classes))
    if chosen.is_floating_point() or chosen.shape != (pictures,):
        raise UserError(
            f"expected the position of a class for each of {counted(pictures, 'picture')}, found "
            f"{tuple(chosen.shape)} of {chosen.dtype}: give whole numbers"
        )
    return chosen.long()


def _checked_maps(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 3 or a.shape != b.shape:
        raise UserError(f"expected two sets of maps (N, H, W) of one shape, found {a.shape} and {b.shape}: resize one")
    for maps in (a, b):
        if not (np.isfinite(maps).all() and (maps >= 0).all()):
            raise UserError("expected maps of 0 or more, found negative values or none: scale them to 0..1")
    return a, b


def _constant(first: Floats, second: Floats) -> Bools:
    """Whether one of both maps of a picture is constant (N,)."""
    flat: Iterator[Bools] = (maps.max(axis=(1, 2)) == maps.min(axis=(1, 2)) for maps in (first, second))
    return np.logical_or(*flat)
