"""SimCLR and DCLW: the two views of a picture attract each other, all other pictures of the batch repel both.

After Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations" (arXiv 2002.05709),
Section 2 and Algorithm 1; and Yeh et al. 2022, "Decoupled Contrastive Learning" (arXiv 2110.06848), Section 3, which
takes the right picture out of the denominator (DCL) and weights easy pairs less (DCLW). The pictures of all processes
are compared, and gradients flow to all of them. Near copies of a picture can be left out of its negatives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.heads import project, projection_head
from lessismore_transforms.pretraining.near_copy_mask import NearCopyMask
from lessismore_transforms.training.processes import all_gather, all_gather_with_gradients, own_rows
from torch import nn


class SimCLR(nn.Module):
    """Backbone and projection head: two views to points on the sphere (Section 2.1).

    Args:
        backbone: maps pictures (N, 3, H, W) to features (N, F).
        features: F, 2048 for a ResNet50.
        hidden: width of the head's hidden layer.
        embedding: D, size of the embeddings.
        near_copies: tells which pictures of a batch are no negatives of each other; None where all are.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        *,
        hidden: int = 2048,
        embedding: int = 128,
        near_copies: NearCopyMask | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = projection_head(features, hidden, embedding)
        self.near_copies = near_copies

    def forward(self, views: Sequence[torch.Tensor], index: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Project both views.

        Args:
            views: two (B, 1 or 3, H, W) of the same B pictures.
            index: (B,), the number of each picture in the data set.

        Returns:
            `projections` (2, B, D), of length 1; `embedding` (B, D), that of the first view, without gradient; and
            `masked` bool (B, N), near copies of each picture among the N of all processes, where these are left out.
        """
        z = F.normalize(torch.stack(project(self.backbone, self.head, views)), dim=2)  # (2, B, D)
        prediction = {"projections": z, "embedding": z[0].detach()}
        if self.near_copies is not None and index is not None:
            prediction["masked"] = self.near_copies(index, all_gather(index))
        return prediction


def similarities(
    z: torch.Tensor, masked: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosines of the pictures of this process with the two views of all pictures.

    Args:
        z: (2, B, D), both views of the B pictures of this process, of length 1.
        masked: bool (B, N), pictures that are no negatives of a picture; None for none.

    Returns:
        Cosines (2, B, 2N), the first views and then the second ones; the columns of each picture's other view (2, B);
        and what is no negative, bool (2, B, 2N): the view itself, its other view, and masked pictures.
    """
    everyone = all_gather_with_gradients(z, dim=1)  # (2, N, D)
    count = everyone.shape[1]
    rows = torch.arange(count, device=z.device)[own_rows(z[0])]  # (B,), places of the own pictures among all
    others = torch.stack([rows + count, rows])  # (2, B)
    excluded = F.one_hot(rows, count).bool() if masked is None else masked | F.one_hot(rows, count).bool()  # (B, N)
    return z @ everyone.reshape(2 * count, -1).T, others, excluded.repeat(1, 2).expand(2, -1, -1)


class NTXent(nn.Module):
    """Cross-entropy of finding the other view of a picture among all views but its own (Equation 1).

    A network that tells nothing apart has the loss ln(2N - 1).

    Args:
        temperature: divisor of the cosines.

    Raises:
        UserError: the temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = _positive("temperature", temperature)

    def forward(self, prediction: Mapping[str, torch.Tensor], target: None = None) -> torch.Tensor:
        """The mean over the views of this process.

        Args:
            prediction: output of `SimCLR`.
            target: not used.
        """
        return self.of_views(prediction).mean()

    def of_views(self, prediction: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of each view, (2, B)."""
        z = prediction["projections"]
        with torch.autocast(z.device.type, enabled=False):
            cosines, others, excluded = similarities(z, prediction.get("masked"))
            right = F.one_hot(others, cosines.shape[2]).bool()
            logits = (cosines / self.temperature).masked_fill(excluded & ~right, -math.inf)  # (2, B, 2N)
            losses: torch.Tensor = F.cross_entropy(logits.flatten(0, 1), others.flatten(), reduction="none")
            return losses.view(z.shape[:2])


class DCLW(nn.Module):
    """Decoupled contrastive loss with weights: -w s / temperature + log of the sum over the negatives (Equations 5, 6).

    w = 2 - exp(s / sigma) / mean of exp(s / sigma), with the cosine s of the two views of a picture: pairs that agree
    already count less. A network that tells nothing apart has the loss ln(2N - 2). It can be below 0.

    Args:
        temperature: divisor of the cosines.
        sigma: divisor of the cosines in the weights.
        symmetric: the mean over both views; False takes the first view of each picture alone, as the released code.
        detach_weights: let no gradient flow through the weights; False as the released code.

    Raises:
        UserError: temperature or sigma is not above 0.
    """

    def __init__(
        self, temperature: float = 0.1, sigma: float = 0.5, *, symmetric: bool = True, detach_weights: bool = True
    ) -> None:
        super().__init__()
        self.temperature, self.sigma = _positive("temperature", temperature), _positive("sigma", sigma)
        self.symmetric, self.detach_weights = symmetric, detach_weights

    def forward(self, prediction: Mapping[str, torch.Tensor], target: None = None) -> torch.Tensor:
        """The mean over the views of this process.

        Args:
            prediction: output of `SimCLR`.
            target: not used.
        """
        losses = self.of_views(prediction)
        return losses.mean() if self.symmetric else losses[0].mean()

    def of_views(self, prediction: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of each view, (2, B)."""
        z = prediction["projections"]
        with torch.autocast(z.device.type, enabled=False):
            cosines, _, excluded = similarities(z, prediction.get("masked"))
            alone = excluded.all(dim=2, keepdim=True)  # where all others are masked, nothing repels
            repelled = (cosines / self.temperature).masked_fill(excluded, -math.inf).masked_fill(alone, 0)
            repulsion = repelled.logsumexp(dim=2).masked_fill(alone[..., 0], 0)  # (2, B)
            agreement = (z[0] * z[1]).sum(dim=1)  # (B,)
            easy = (agreement / self.sigma).exp()
            weights = 2 - easy / all_gather_with_gradients(easy).mean()
            if self.detach_weights:
                weights = weights.detach()
            return repulsion - weights * agreement / self.temperature


def chance_loss(batch_size: int, *, decoupled: bool = False) -> float:
    """Loss of a network that tells nothing apart, the ln of the number of candidates.

    Args:
        batch_size: N, pictures of all processes together.
        decoupled: of DCLW, whose candidates are the 2N - 2 negatives; SimCLR's are 2N - 1.

    Raises:
        UserError: there is no negative.
    """
    if batch_size < 2:
        raise UserError(
            f"expected 2 pictures or more in a batch, found {batch_size}: the other pictures are the negatives; give "
            "a larger batch_size"
        )
    return math.log(2 * batch_size - (2 if decoupled else 1))


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise UserError(f"expected {name} above 0, found {value}; give a positive one")
    return value
