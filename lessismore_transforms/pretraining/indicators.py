"""Indicators of a healthy or a failing training: numbers computed from embeddings, assignments and negatives."""

from __future__ import annotations

import torch
from torch.nn import functional as F

NEAR_BITS = 6  # of 64: within these the paper takes one of two slices of a volume for redundant


def spread(embedding: torch.Tensor) -> torch.Tensor:
    """The spread of directions: 1 if they are even on the whole sphere, 0 if they are all the same.

    Standard deviation of each dimension times sqrt(D), the mean over dimensions: the collapse test of SimSiam
    (arXiv 2011.10566, Section 4.1). It does not see embeddings that vary along one line only; `rank_me` does.

    Args:
        embedding: (N, D), vectors of any length, N > 1.

    Returns:
        float32 ().
    """
    z = F.normalize(embedding.float(), dim=1)  # (N, D)
    return z.std(dim=0).mean().mul(z.shape[1] ** 0.5)


def rank_me(embedding: torch.Tensor) -> torch.Tensor:
    """The number of dimensions that the directions use: exp of the entropy of their singular values, 1 to min(N, D).

    RankMe, Garrido et al. 2023 (arXiv 2210.02885, Equation 1), without its epsilon. Rows are scaled to length 1, so
    that each picture has the same weight. They are not centred: embeddings that collapsed to a constant are noise
    around their mean, and this noise would seem to use every dimension.

    Args:
        embedding: (N, D).

    Returns:
        float32 ().
    """
    values = torch.linalg.svdvals(F.normalize(embedding.float(), dim=1))  # (min(N, D),)
    return _exp_entropy(values / values.sum())


def prototype_usage(assignment: torch.Tensor) -> torch.Tensor:
    """The share of prototypes in use: exp of the entropy of the mean assignment, divided by K; 1 / K to 1.

    Args:
        assignment: (N, K), soft assignments of the pictures, before Sinkhorn's algorithm makes them even; rows sum
            to 1.

    Returns:
        float32 ().
    """
    return _exp_entropy(assignment.float().mean(dim=0)) / assignment.shape[1]


def near_copies(
    images: torch.Tensor,
    negatives: torch.Tensor,
    hashes: torch.Tensor,
    volumes: torch.Tensor,
    bits: int = NEAR_BITS,
    *,
    masked: int = -1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The number of negatives that show nearly the same as the picture that they are pushed away from.

    Args:
        images: int64 (B,), positions of the pictures in the data set.
        negatives: int64 (L,), positions of the slices that all B pictures are compared with; -1 for none. A picture
            is not a negative of itself.
        hashes: int64 (n,), the bits of the difference hash of each slice of the data set.
        volumes: int64 (n,), the number of the volume of each slice.
        bits: a slice of the same volume is a near-copy up to this Hamming distance.
        masked: slices of the same volume up to this distance are no negatives; -1 where the loss masks none.

    Returns:
        int64 () twice: pairs of a picture and a near-copy, and pairs of a picture and a negative.
    """
    other = (negatives >= 0) & (images[:, None] != negatives)  # (B, L)
    alike = other & (volumes[images, None] == volumes[negatives])
    rows, columns = alike.nonzero(as_tuple=True)  # few, so that few hashes are compared
    distances = popcount(hashes[images[rows]] ^ hashes[negatives[columns]])
    left_out = distances <= masked
    return ((distances <= bits) & ~left_out).sum(), other.sum() - left_out.sum()


def popcount(values: torch.Tensor) -> torch.Tensor:
    """The number of bits set in each int64, by adding neighbours in pairs, fours and eights."""
    pairs = values - ((values >> 1) & 0x5555555555555555)  # the sign that a shift drags in is masked away
    fours = (pairs & 0x3333333333333333) + ((pairs >> 2) & 0x3333333333333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (eights * 0x0101010101010101) >> 56  # the product's highest byte holds the sum of all


def _exp_entropy(shares: torch.Tensor) -> torch.Tensor:
    entropy: torch.Tensor = torch.special.entr(shares).nansum()  # nan: shares of nothing
    return entropy.exp()
