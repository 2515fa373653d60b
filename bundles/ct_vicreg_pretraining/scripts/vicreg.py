"""VICReg: two views have equal embeddings, whose dimensions vary and do not repeat each other.

After Bardes et al. 2022, "VICReg: Variance-Invariance-Covariance Regularization" (arXiv 2105.04906), Section 4 and
Algorithm 1. Nothing is a negative: what keeps the embeddings apart is that each dimension has to have a standard
deviation of 1, and that dimensions may not be correlated. Both are statistics of the pictures of all processes. The
variance terms of the two views are halved, as in the authors' code; Equation 6 adds them whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lessismore_transforms.pretraining.heads import project, projection_head
from lessismore_transforms.pretraining.health import Monitor
from lessismore_transforms.training.processes import all_gather_with_gradients
from torch import nn

_EPSILON = 1e-4  # under the square root of a variance


class VICReg(nn.Module):
    """Backbone and expander: two views to embeddings of any length (Section 4.1).

    Args:
        backbone: maps pictures (N, 3, H, W) to features (N, F).
        features: F, 2048 for a ResNet50.
        width: D, of all layers of the expander.
        layers: of the expander.
    """

    def __init__(self, backbone: nn.Module, features: int, *, width: int = 8192, layers: int = 3) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = projection_head(features, width, width, layers=layers)

    def forward(self, views: Sequence[torch.Tensor], index: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Expand both views.

        Args:
            views: two (B, 1 or 3, H, W) of the same B pictures.
            index: not used.

        Returns:
            `projections` (2, B, D); `embedding` (B, D), that of the first view, of length 1, without gradient.
        """
        z = torch.stack(project(self.backbone, self.head, views))  # (2, B, D)
        return {"projections": z, "embedding": F.normalize(z[0].detach(), dim=1)}


def vicreg_terms(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Invariance, variance and covariance of two views (Equations 1 to 5).

    Args:
        z: (2, N, D), of the pictures of all processes, N > 1.

    Returns:
        The mean squared difference; how much the standard deviations of the dimensions are below 1, the mean over
        dimensions and views; and the sum over the views of the squared covariances of different dimensions, over D.
    """
    invariance = F.mse_loss(z[0], z[1])
    centred = z - z.mean(dim=1, keepdim=True)  # (2, N, D)
    variance = centred.square().sum(dim=1) / (z.shape[1] - 1)  # (2, D)
    # The squares of all covariances add up to those of the products of pictures, which are fewer than 8192 x 8192.
    few = z.shape[1] < z.shape[2]
    products = centred @ centred.transpose(1, 2) if few else centred.transpose(1, 2) @ centred
    between = (products / (z.shape[1] - 1)).square().sum() - variance.square().sum()
    return invariance, F.relu(1 - (variance + _EPSILON).sqrt()).mean(), between / z.shape[2]


class VICRegLoss(nn.Module):
    """The weighted sum of the three terms (Equation 6).

    Args:
        invariance: weight of the first term.
        variance: weight of the second one.
        covariance: weight of the third one.
    """

    def __init__(self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> None:
        super().__init__()
        self.weights = (invariance, variance, covariance)

    def forward(self, prediction: Mapping[str, torch.Tensor], target: None = None) -> torch.Tensor:
        """The loss of the pictures of all processes together, the same in each of them.

        Args:
            prediction: output of `VICReg`.
            target: not used.
        """
        z = prediction["projections"]
        with torch.autocast(z.device.type, enabled=False):
            terms = vicreg_terms(all_gather_with_gradients(z, dim=1))
            return torch.stack([weight * term for weight, term in zip(self.weights, terms, strict=True)]).sum()


class Terms(Monitor):
    """The three terms without their weights, of this process's share: `invariance`, `variance` and `covariance`."""

    def __call__(self, engine: Any) -> dict[str, float]:
        """The terms of the last batch; nothing where there is one picture alone."""
        z = engine.state.output["pred"]["projections"].detach()  # (2, B, D)
        if z.shape[1] < 2:
            return {}
        return dict(zip(("invariance", "variance", "covariance"), map(float, vicreg_terms(z)), strict=True))
