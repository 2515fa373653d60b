"""The encoder of a pre-training bundle: what its `models/model.pt` fills, in training and in inference."""

from __future__ import annotations

from torch import nn

from lessismore_transforms.weights.backbones import build_backbone
from lessismore_transforms.weights.whole import refuse_parts


def encoder(backbone: str = "resnet50", seed: int = 0) -> nn.Module:
    """An encoder at random that takes the weights of all its tensors or none, as `network_def` of a configuration.

    Args:
        backbone: a classification model of torchvision, or `timm:NAME`.
        seed: of its random weights.

    Raises:
        UserError: the network is unknown.
    """
    return refuse_parts(build_backbone(backbone, weights="random", seed=seed))
