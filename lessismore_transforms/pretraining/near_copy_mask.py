"""Which pairs of slices are near copies, so that a loss leaves them out of its negatives."""

from __future__ import annotations

import torch
from torch import nn

from lessismore_transforms.pretraining.indicators import NEAR_BITS, popcount


class NearCopyMask(nn.Module):
    """Near copies of pictures among others: slices of the same volume within some bits of the difference hash.

    A part of a method's network, so that its tables lie on the network's device; no checkpoint holds them.

    Args:
        slices: hashes and volumes, int64 (n,) each, as `training_set.slices` gives them.
        bits: largest Hamming distance of near copies.
    """

    def __init__(self, slices: tuple[torch.Tensor, torch.Tensor], bits: int = NEAR_BITS) -> None:
        super().__init__()
        self.bits = bits
        self.hashes: torch.Tensor
        self.volumes: torch.Tensor
        self.register_buffer("hashes", slices[0], persistent=False)
        self.register_buffer("volumes", slices[1], persistent=False)

    @torch.no_grad()
    def forward(self, index: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Whether another picture is a near copy of a picture, bool (B, L); a picture is none of itself.

        Args:
            index: int64 (B,), positions of pictures in the data set.
            others: int64 (L,), positions of the others; -1 for none, which is no near copy.
        """
        distance = popcount(self.hashes[index, None] ^ self.hashes[others])  # (B, L)
        same = self.volumes[index, None] == self.volumes[others]
        return same & (distance <= self.bits) & (index[:, None] != others) & (others >= 0)
