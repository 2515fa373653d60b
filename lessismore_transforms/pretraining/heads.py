"""Projection heads: the layers between a backbone and a loss, which are thrown away after pre-training."""

from __future__ import annotations

from torch import nn


def projection_head(inputs: int, hidden: int, outputs: int, *, norm: bool = True) -> nn.Sequential:
    """Build a head of two linear layers with biases: (B, inputs) to (B, outputs).

    Args:
        inputs: number of the backbone's features.
        hidden: width of the hidden layer.
        outputs: size of the embedding.
        norm: put a batch norm before the ReLU, as SwAV and SimCLR do; MoCo v2 has none.
    """
    middle = [nn.BatchNorm1d(hidden)] if norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *middle, nn.ReLU(inplace=True), nn.Linear(hidden, outputs))
