"""A tiny backbone and pictures for it, for the tests of methods that compare two views."""

from __future__ import annotations

import torch
from torch import nn

FEATURES = 6


def flat_backbone() -> nn.Module:
    """A linear map of pictures (N, 3, 3, 3) to features (N, 6)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(27, FEATURES))


def two_views(count: int = 5) -> list[torch.Tensor]:
    """Two grey views (count, 1, 3, 3), always the same."""
    return list(torch.randn(2, count, 1, 3, 3, generator=torch.Generator().manual_seed(1)))
