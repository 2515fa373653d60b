"""SimSiam: a view's prediction of the other view's projection, through which no gradient flows.

After Chen and He 2021, "Exploring Simple Siamese Representation Learning" (arXiv 2011.10566), Section 3 and
Algorithm 1. There are no negatives and no slow copy: what keeps the projections from becoming all alike is that no
gradient flows through the projection that is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from lessismore_transforms.pretraining.heads import project, projection_head
from lessismore_transforms.training.precision import at_least_float32
from torch import nn

LOWEST_LOSS = -1.0  # which a constant projection has, too


class SimSiam(nn.Module):
    """Backbone, projector and predictor (Section 3, "Baseline settings").

    Args:
        backbone: maps pictures (N, 3, H, W) to features (N, F).
        features: F, 2048 for a ResNet50.
        hidden: width of the projector's hidden layers.
        embedding: D, size of the projections.
        layers: of the projector.
        output_norm: a batch norm behind the projector's last layer.
        bottleneck: width of the predictor's hidden layer; 0 for no predictor, as the released code.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        *,
        hidden: int = 2048,
        embedding: int = 2048,
        layers: int = 3,
        output_norm: bool = True,
        bottleneck: int = 512,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = projection_head(features, hidden, embedding, layers=layers, output_norm=output_norm)
        self.predictor: nn.Module = projection_head(embedding, bottleneck, embedding) if bottleneck else nn.Identity()

    def forward(self, views: Sequence[torch.Tensor], index: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Project both views, and predict each from the other.

        Args:
            views: two (B, 1 or 3, H, W) of the same B pictures.
            index: not used.

        Returns:
            `predictions` (2, B, D), from the first and the second view; `projections` (2, B, D), of the same views;
            `embedding` (B, D), the projections of the first view, of length 1, without gradient.
        """
        projections = torch.stack(project(self.backbone, self.head, views))  # (2, B, D)
        predictions = torch.stack([at_least_float32(self.predictor(z)) for z in projections])  # (2, B, D)
        embedding = F.normalize(projections[0].detach(), dim=1)
        return {"predictions": predictions, "projections": projections, "embedding": embedding}


class SimSiamLoss(nn.Module):
    """Minus the cosine of a prediction and the other view's projection, the mean over both ways (Equations 1 to 4)."""

    def forward(self, prediction: Mapping[str, torch.Tensor], target: None = None) -> torch.Tensor:
        """The mean over pictures, -1 to 1.

        Args:
            prediction: output of `SimSiam`.
            target: not used.
        """
        with torch.autocast(prediction["predictions"].device.type, enabled=False):
            predicted = prediction["projections"].detach().flip(0)  # (2, B, D), that of the other view
            return -F.cosine_similarity(prediction["predictions"], predicted, dim=2).mean()
