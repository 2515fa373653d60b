"""BYOL: a network predicts what a slow copy of itself makes of another view; nothing is a negative.

After Grill et al. 2020, "Bootstrap Your Own Latent" (arXiv 2006.07733), Section 3 and Algorithm 1. One view goes
through the network that learns and its predictor, the other through the slow copy, the target, which follows it; each
view takes either part in turn. Target networks see their own batches only: their batch norms keep statistics of what
they saw themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from lessismore_transforms.pretraining.heads import project, projection_head
from lessismore_transforms.pretraining.momentum import momentum_copy, update_copy
from lessismore_transforms.training.precision import at_least_float32
from torch import nn

LOWEST_LOSS = 0.0  # which a constant embedding has, too


class BYOL(nn.Module):
    """Online network with its predictor, and the target network (Section 3.1).

    Args:
        backbone: maps pictures (N, 3, H, W) to features (N, F).
        features: F, 2048 for a ResNet50.
        hidden: width of the hidden layers of projector and predictor.
        embedding: D, size of the projections and predictions.
    """

    def __init__(self, backbone: nn.Module, features: int, *, hidden: int = 4096, embedding: int = 256) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = projection_head(features, hidden, embedding)
        self.predictor: nn.Module = projection_head(embedding, hidden, embedding)
        self.target = momentum_copy(nn.Sequential(self.backbone, self.head))

    def update_target(self, momentum: float) -> None:
        """Move the target towards the online network (Equation 1)."""
        update_copy(self.target, nn.Sequential(self.backbone, self.head), momentum)

    def forward(self, views: Sequence[torch.Tensor], index: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Predict the target's projection of each view from the other view.

        Args:
            views: two (B, 1 or 3, H, W) of the same B pictures.
            index: not used.

        Returns:
            `predictions` (2, B, D), from the first and the second view; `targets` (2, B, D), of the other views in this
            order, without gradient; `embedding` (B, D), the projections of the first view, of length 1, without
            gradient.
        """
        projections = project(self.backbone, self.head, views)
        predictions = torch.stack([at_least_float32(self.predictor(z)) for z in projections])  # (2, B, D)
        with torch.no_grad():
            targets = torch.stack(project(self.target[0], self.target[1], views[::-1]))  # (2, B, D)
        return {
            "predictions": predictions,
            "targets": targets,
            "embedding": F.normalize(projections[0].detach(), dim=1),
        }


class BYOLLoss(nn.Module):
    """Squared distance of directions, 2 - 2 cosine, of both predictions together (Equations 2 and 3); 0 to 8."""

    def forward(self, prediction: Mapping[str, torch.Tensor], target: None = None) -> torch.Tensor:
        """The mean over pictures.

        Args:
            prediction: output of `BYOL`.
            target: not used.
        """
        with torch.autocast(prediction["predictions"].device.type, enabled=False):
            cosines = F.cosine_similarity(prediction["predictions"], prediction["targets"].detach(), dim=2)  # (2, B)
            return (2 - 2 * cosines).sum(dim=0).mean()
