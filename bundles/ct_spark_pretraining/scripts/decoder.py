"""The decoder of SparK, which is thrown away after pre-training: it makes a picture of features with holes.

After Tian et al. 2023 (arXiv 2301.03580), Section 3.2, in the shape of the authors' code: a small U-Net of five blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .sparse import Mask, batch_norm, sparse_batch_norm

BLOCKS = 5  # each doubles the size: 32 in all


class Densify(nn.Module):
    """Fill the holes of each map with a learned token, then give it the decoder's width.

    Args:
        widths: channels of the features, deepest first; 2048, 1024, 512 and 256 for a ResNet50.
        decoder_width: channels of the deepest dense map; each following map has half as many.
    """

    def __init__(self, widths: Sequence[int], decoder_width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        tokens = (torch.empty(1, width, 1, 1) for width in widths)
        self.mask_tokens = nn.ParameterList(nn.init.trunc_normal_(token, std=0.02, a=-0.02, b=0.02) for token in tokens)
        self.projections = nn.ModuleList(
            nn.Conv2d(width, decoder_width >> level, kernel_size=3, padding=1) for level, width in enumerate(widths)
        )
        deepest = nn.Conv2d(widths[0], decoder_width, kernel_size=1)
        self.projections[0] = nn.Identity() if widths[0] == decoder_width else deepest

    def forward(self, features: Sequence[torch.Tensor], mask: Mask) -> list[torch.Tensor]:
        """Dense maps (B, D / 2^i, H_i, W_i) of sparse ones (B, C_i, H_i, W_i), deepest first."""
        maps = []
        for x, norm, token, project in zip(features, self.norms, self.mask_tokens, self.projections, strict=True):
            x = sparse_batch_norm(x, norm, mask)
            maps.append(project(torch.where(mask.at(x), x, token.to(x.dtype))))
        return maps


class Decoder(nn.Module):
    """Double the size of the deepest map five times, adding the other maps on the way, up to a picture.

    Args:
        width: channels of the deepest map, a multiple of 32, because each block halves it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width >> level) for level in range(BLOCKS))
        self.head = nn.Conv2d(width >> BLOCKS, 3, kernel_size=1)
        self.apply(_initialise)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """A picture (B, 3, 32 h, 32 w) of maps (B, D / 2^i, 2^i h, 2^i w), i from 0 to 3."""
        x = maps[0]  # (B, D, h, w)
        for level, block in enumerate(self.blocks):
            x = block(x + maps[level] if 0 < level < len(maps) else x)  # (B, D / 2^(level + 1), twice as large)
        return self.head(x)


class _Block(nn.Module):
    """Double the size of a map (B, C, H, W) and halve its channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, kernel_size=4, stride=2, padding=1)
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width // 2, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(batch_norm(self.conv1(self.up(x)), self.norm1))
        return batch_norm(self.conv2(x), self.norm2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
