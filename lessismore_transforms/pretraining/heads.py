"""Projection heads: the layers between a backbone and a loss, which are thrown away after pre-training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from lessismore_transforms.training.precision import at_least_float32
from lessismore_transforms.weights.backbones import three_channels


def projection_head(
    inputs: int, hidden: int, outputs: int, *, layers: int = 2, norm: bool = True, output_norm: bool = False
) -> nn.Sequential:
    """Build a head of linear layers with biases: (B, inputs) to (B, outputs).

    Args:
        inputs: number of the backbone's features.
        hidden: width of the hidden layers.
        outputs: size of the embedding.
        layers: number of linear layers, at least one.
        norm: put a batch norm before each ReLU, as SwAV and SimCLR do; MoCo v2 has none.
        output_norm: put a batch norm without weights behind the last layer, as SimSiam does.
    """
    widths = [inputs, *[hidden] * (layers - 1)]
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] if norm else []), nn.ReLU(inplace=True)]
    parts += [nn.Linear(widths[-1], outputs), *([nn.BatchNorm1d(outputs, affine=False)] if output_norm else [])]
    return nn.Sequential(*parts)


def project(backbone: nn.Module, head: nn.Module, views: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What a head makes of each view, (B, D) in float32.

    Each view goes through the network by itself, so that a batch norm sees pictures of one kind of view.

    Args:
        backbone: maps pictures (N, 3, H, W) to features (N, F).
        head: maps features to embeddings (N, D).
        views: (B, 1 or 3, H, W) each, of the same B pictures.
    """
    return [at_least_float32(head(backbone(three_channels(view)))) for view in views]
