"""The class of a picture by a vote of the training pictures with the most similar features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from lessismore_transforms.probing.settings import NEIGHBOURS, TEMPERATURE
from lessismore_transforms.training.neighbour_votes import neighbour_votes

Floats = NDArray[np.float64]


def nearest(
    train: Floats,
    labels: NDArray[np.int64],
    test: Floats,
    classes: int,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Floats:
    """The share of each class (M, C) in the votes, weighted by exp(cosine / temperature) (Wu et al. 2018, Section 3.4).

    Args:
        train: features (N, F).
        labels: (N,), 0..classes - 1.
        test: features (M, F).
        classes: number of classes.
        neighbours: number of pictures that vote; all of them where there are fewer.
        temperature: of the weights; as in Wu et al. 2018 (arXiv 1805.01978).
    """
    one, other = (F.normalize(torch.from_numpy(features)) for features in (test, train))
    votes = neighbour_votes(one @ other.T, torch.from_numpy(labels), classes, neighbours, temperature)
    shares: Floats = (votes / votes.sum(dim=1, keepdim=True)).numpy()
    return shares
