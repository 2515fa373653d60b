"""SparK: a convolutional network learns by painting the hidden parts of pictures.

After Tian et al. 2023, "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling"
(arXiv 2301.03580), with the settings of Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Appendix C, and of its
released code. Most cells of 32 x 32 pixels are masked; the encoder (`sparse.py`) sees the others alone, a decoder
(`decoder.py`) fills the holes with tokens and paints a picture, and the loss compares it where the encoder was blind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from lessismore_transforms.errors import UserError
from lessismore_transforms.training.precision import at_least_float32
from lessismore_transforms.weights.backbones import three_channels
from torch import nn
from torchvision.models.resnet import ResNet

from .decoder import BLOCKS, Decoder, Densify
from .sparse import STRIDE, Mask, sparse_features


class SparK(nn.Module):
    """Sparse encoder, tokens and decoder: a picture with holes to a whole one (Section 3).

    Args:
        backbone: a ResNet, ResNeXt or Wide ResNet of torchvision; its `fc` is not used.
        mask_ratio: share of the cells of every picture that is masked.
        decoder_width: channels of the decoder's first block; halved by each of its five.
        drop_path: probability that a picture skips the residual branch of the encoder's last block; it rises linearly
            from 0 at the first.

    Raises:
        UserError: the backbone is another network, or a setting is outside its range.
    """

    def __init__(
        self, backbone: nn.Module, *, mask_ratio: float = 0.6, decoder_width: int = 768, drop_path: float = 0.05
    ) -> None:
        super().__init__()
        if not isinstance(backbone, ResNet):
            found = type(backbone).__name__
            raise UserError(
                f"expected a ResNet, ResNeXt or Wide ResNet of torchvision for SparK, whose sparse convolutions know "
                f"their blocks, found {found}; take resnet50, or another method"
            )
        if not 0 < mask_ratio < 1:
            raise UserError(f"expected a mask_ratio between 0 and 1, found {mask_ratio}; 0.6 is usual")
        if decoder_width < 1 or decoder_width % 2**BLOCKS:
            raise UserError(
                f"expected a decoder_width that {2**BLOCKS} divides, found {decoder_width}; 768 is usual, 64 is small"
            )
        if not 0 <= drop_path < 1:
            raise UserError(f"expected a drop_path from 0 to below 1, found {drop_path}; 0.05 is usual")
        self.backbone = backbone
        self.mask_ratio = mask_ratio
        self.drop_path = drop_path
        widths = [backbone.inplanes >> level for level in range(4)]  # 2048, 1024, 512 and 256 for a ResNet50
        self.densify = Densify(widths, decoder_width)
        self.decoder = Decoder(decoder_width)

    def forward(
        self, views: Sequence[torch.Tensor], index: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Hide most of each picture, and paint it.

        Args:
            views: one view (B, 1 or 3, H, W), whose sides 32 divides.
            index: not used: SparK does not compare pictures.
            mask: (B, 1, H/32, W/32) bool, True where a cell is kept; drawn by default.

        Returns:
            `reconstruction` (B, L, N) of the L = H W / 32^2 patches of N = 3 * 32^2 values, each relative to its
            patch's mean and standard deviation; `image` (B, 3, H, W); `mask`; and `embedding` (B, F), the mean of the
            deepest features over kept cells, without gradient.

        Raises:
            UserError: there are several views, or a size or the mask does not fit.
        """
        if len(views) != 1:
            raise UserError(f"expected one view of each picture for SparK, found {len(views)}; set its count to 1")
        image = three_channels(views[0])  # (B, 3, H, W)
        height, width = image.shape[2:]
        if height % STRIDE or width % STRIDE:
            raise UserError(
                f"expected pictures whose sides {STRIDE} divides, found {height} x {width}; set image_size to 224"
            )
        shape = (len(image), 1, height // STRIDE, width // STRIDE)
        if mask is None:
            mask = draw_mask(shape, self.mask_ratio)  # (B, 1, f_h, f_w)
        if mask.shape != shape or mask.dtype != torch.bool:
            found = f"{mask.dtype} of {tuple(mask.shape)}"
            raise UserError(f"expected a mask of torch.bool of {shape}, True where kept, found {found}; give another")
        cells = Mask(mask, image.device)
        features = sparse_features(self.backbone, image, cells, drop_path=self.drop_path)  # 4 of (B, C, H/s, W/s)
        painted = self.decoder(self.densify(features, cells))  # (B, 3, H, W)
        kept = cells.kept.sum((2, 3))  # (B, 1)
        return {
            "reconstruction": patchify(painted),  # (B, L, N)
            "image": image,
            "mask": cells.kept,
            "embedding": features[0].detach().float().sum((2, 3)) / kept,  # (B, F); masked cells are 0
        }


class SparKLoss(nn.Module):
    """Mean squared error of the masked patches, each relative to its own mean and standard deviation (Section 3.3).

    A network that paints nothing has a loss of 1 less the share of patches without texture, such as the air around a
    patient, for which painting nothing is right.
    """

    def forward(self, prediction: Mapping[str, torch.Tensor], target: None = None) -> torch.Tensor:
        """The mean over the masked patches of all pictures.

        Args:
            prediction: output of `SparK`: `reconstruction` (B, L, N), `image` (B, 3, H, W) and `mask` (B, 1, f_h, f_w).
            target: not used: the picture is its own target.
        """
        patches = at_least_float32(patchify(prediction["image"]))  # (B, L, N)
        mean, std = _statistics(patches)  # (B, L, 1) each
        painted = at_least_float32(prediction["reconstruction"])  # (B, L, N)
        errors = (painted - (patches - mean) / std).square().mean(dim=2)  # (B, L)
        masked = ~prediction["mask"].flatten(1)  # (B, L)
        return (errors * masked).sum() / (masked.sum() + 1e-8)


def draw_mask(shape: Sequence[int], ratio: float) -> torch.Tensor:
    """Draw the cells that are kept, equally many in every picture, from torch's global generator.

    In the paper each cell is masked with that probability; the authors' code fixes the number of masked cells.

    Args:
        shape: (B, 1, f_h, f_w).
        ratio: share of masked cells; 0.6 keeps 20 of 7 x 7 cells.

    Returns:
        Bool on the CPU, True where a cell is kept.

    Raises:
        UserError: there are too few cells to mask some and keep some.
    """
    pictures, _, rows, columns = shape
    cells = rows * columns
    kept = round(cells * (1 - ratio))
    if not 0 < kept < cells:
        raise UserError(
            f"expected cells to keep and cells to mask, found {kept} of {rows} x {columns} kept at a mask_ratio of "
            f"{ratio}; set a larger image_size or another mask_ratio"
        )
    chosen = torch.rand(pictures, cells).argsort(dim=1)[:, :kept]  # (B, kept)
    return torch.zeros(pictures, cells, dtype=torch.bool).scatter_(1, chosen, True).view(*shape)


def patchify(images: torch.Tensor) -> torch.Tensor:
    """Cut pictures (B, C, H, W) into patches (B, L, C * 32^2), row by row."""
    return F.pixel_unshuffle(images, STRIDE).flatten(2).mT


def unpatchify(patches: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Put patches (B, L, C * 32^2) of a grid (f_h, f_w) together to pictures (B, C, H, W)."""
    return F.pixel_shuffle(patches.mT.unflatten(2, tuple(grid)), STRIDE)


@torch.no_grad()
def reconstruct(prediction: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Pictures (B, 3, H, W): kept patches as they are, masked ones as painted.

    A painted patch is relative to mean and standard deviation; here it gets those of the original patch.

    Args:
        prediction: output of `SparK`.
    """
    patches = at_least_float32(patchify(prediction["image"]))  # (B, L, N)
    mean, std = _statistics(patches)
    painted = at_least_float32(prediction["reconstruction"]) * std + mean
    mask = prediction["mask"]  # (B, 1, f_h, f_w)
    return unpatchify(torch.where(mask.flatten(1)[:, :, None], patches, painted), mask.shape[2:])


def _statistics(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each patch (B, L, N), as (B, L, 1); a flat one has 0.001."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + 1e-6).sqrt()
