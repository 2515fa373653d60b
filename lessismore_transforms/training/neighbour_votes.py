"""Votes of the nearest neighbours: of a probe while an encoder is trained, and of one when it is done."""

from __future__ import annotations

import torch


def neighbour_votes(
    cosines: torch.Tensor, targets: torch.Tensor, classes: int, neighbours: int, temperature: float
) -> torch.Tensor:
    """The votes (R, C) for each class: of each row's nearest pictures, weighted by exp(cosine / temperature).

    They are divided by the weight of the nearest one, which changes no share of them and never overflows.

    Args:
        cosines: (R, N), -inf for a picture that has no vote.
        targets: int64 (N,), 0..classes - 1.
        classes: number of classes C.
        neighbours: number of pictures that vote; all of them where there are fewer.
        temperature: of the weights.
    """
    found, places = cosines.topk(min(neighbours, cosines.shape[1]))  # (R, k)
    weights = ((found - found[:, :1]) / temperature).exp()  # 1 for the nearest, 0 where it is -inf
    return weights.new_zeros(len(cosines), classes).scatter_add_(1, targets[places], weights)
